// Adam where there is a gradient. See nerf/kernels/adam.py for the definition.
//
// A thread takes four numbers. Most of a large table has had no gradient, and nothing else is read for it.
#include "device.h"

struct AdamArgs {
    float* parameter;
    const float* gradient;
    float *mean, *square;
    int64_t count;
    int32_t aligned;  // whether all four tensors begin on a boundary of 16 bytes
    float beta1, beta2, eps, rate, unbias;  // rate: over 1 - beta1^step; unbias: 1 / sqrt(1 - beta2^step)
};

DEVICE_FN void update(const AdamArgs& args, float g, float& parameter, float& mean, float& square) {
    if (g == 0) return;
    mean = fma_(g - mean, 1 - args.beta1, mean);
    square = fma_(g * g, 1 - args.beta2, square * args.beta2);
    parameter -= mean * args.rate / (sqrtf(square) * args.unbias + args.eps);
}

KERNEL(adam, AdamArgs, 256) {
    const int64_t first = global_thread() * 4, end = first + 4 < args.count ? first + 4 : args.count;
    if (first + 4 > args.count || !args.aligned) {
        for (int64_t i = first; i < end; ++i)
            update(args, args.gradient[i], args.parameter[i], args.mean[i], args.square[i]);
        return;
    }
    const float4 g = *reinterpret_cast<const float4*>(args.gradient + first);
    if (g.x == 0 && g.y == 0 && g.z == 0 && g.w == 0) return;
    float4 &to = *reinterpret_cast<float4*>(args.parameter + first), p = to;
    float4 &to_mean = *reinterpret_cast<float4*>(args.mean + first), m = to_mean;
    float4 &to_square = *reinterpret_cast<float4*>(args.square + first), v = to_square;
    update(args, g.x, p.x, m.x, v.x);
    update(args, g.y, p.y, m.y, v.y);
    update(args, g.z, p.z, m.z, v.z);
    update(args, g.w, p.w, m.w, v.w);
    to = p, to_mean = m, to_square = v;
}
