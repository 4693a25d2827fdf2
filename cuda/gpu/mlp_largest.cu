// The largest magnitude among some numbers: what gradients are scaled by before they are rounded to float16.
#include "device.h"

struct LargestArgs {
    const float* x;
    float* largest;  // 0 before
    int64_t count;
};

KERNEL(mlp_largest, LargestArgs, 256) {
    float largest = 0;
    for (int64_t i = global_thread(); i < args.count; i += all_threads()) {
        const float size = bits_float(float_bits(args.x[i]) & 0x7fffffffu);
        largest = size > largest ? size : largest;
    }
    largest = warp_max(largest);
    if (lane_index() == 0) atomic_max_positive(args.largest, largest);
}
