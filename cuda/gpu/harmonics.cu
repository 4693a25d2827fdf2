// Spherical harmonics of directions, a thread a row. See nerf/kernels/harmonics.py for the definition.
#include "device.h"

#include "../shared/harmonics.h"

struct HarmonicsArgs {
    const float* directions;  // rows x 3
    float* out;               // rows x 16, on a boundary of 16 bytes
    int64_t rows;
};

KERNEL(harmonics_rows, HarmonicsArgs, 256) {
    const int64_t i = global_thread();
    if (i >= args.rows) return;
    const float* d = args.directions + 3 * i;
    float values[harmonics::count];
    harmonics::of(d[0], d[1], d[2], values);
    float4* out = reinterpret_cast<float4*>(args.out + harmonics::count * i);
    UNROLL for (int k = 0; k < harmonics::count / 4; ++k)
        out[k] = make_float4(values[4 * k], values[4 * k + 1], values[4 * k + 2], values[4 * k + 3]);
}
