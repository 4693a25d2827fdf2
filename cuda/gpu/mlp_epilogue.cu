// What follows the products of a network too wide for mlp_forward.cu, whose products are cuBLAS's: biases and activations
// forward, and their slopes on the way back. A thread takes a number at a time: all this does is read and write.
#include "mlp_network.h"

namespace mlp {

struct EpilogueArgs {
    const float* sums;         // [count / columns][columns]: a product
    const float* bias;         // [columns]; null: none
    const float* grad;         // of the last layer's results
    const float* largest;      // as `scale_of` takes it
    const uint16_t* steep;     // slopes that mlp_epilogue wrote
    float* out;                // results, not rounded; null: not wanted
    uint16_t* value;           // rounded; null: not wanted
    uint16_t* slope;           // likewise
    int64_t count;
    int32_t columns, kind;     // of the activation
    float omega;
};

DEVICE_FN activation::Result<float> at(const EpilogueArgs& args, int64_t i) {
    const float bias = args.bias ? args.bias[i % args.columns] : 0.f;
    return value_and_slope(args.kind, args.sums[i] + bias, args.omega);
}
DEVICE_FN uint16_t narrow(float x) { return static_cast<uint16_t>(pack<Format>(x, 0.f)); }

KERNEL(mlp_epilogue, EpilogueArgs, 256) {
    for (int64_t i = global_thread(); i < args.count; i += all_threads()) {
        const activation::Result<float> both = at(args, i);
        if (args.out) args.out[i] = both.value;
        if (args.value) args.value[i] = narrow(both.value);
        if (args.slope) args.slope[i] = narrow(both.slope);
    }
}

// The gradient by the last layer's sums, into `value`.
KERNEL(mlp_epilogue_last, EpilogueArgs, 256) {
    const float scale = scale_of(args.largest).up;
    for (int64_t i = global_thread(); i < args.count; i += all_threads())
        args.value[i] = narrow(args.grad[i] * (scale * at(args, i).slope));
}

// The gradient by a layer's sums, into `value`, from that by its values, the product in `sums`.
KERNEL(mlp_epilogue_back, EpilogueArgs, 256) {
    for (int64_t i = global_thread(); i < args.count; i += all_threads())
        args.value[i] = narrow(args.sums[i] * widen<Format>(args.steep[i]));
}

}  // namespace mlp
