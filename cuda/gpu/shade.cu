// What stands between the kernels of a training step on a hash grid's field: points on rays, what enters the colour
// network, and the gradient of what the density network gave. See nerf/kernels/shade.py for the definition.
#include "field.h"
#include "march.h"

namespace shade {

struct ShadeArgs {
    marching::Space space;
    field::Density raw;
    const float *origins, *directions;  // rays x 3
    const int64_t* ray;                 // of each sample
    const float* t;
    const float* features;    // samples x width: what the density network gave, the raw density first
    const float* view;        // rays x seen
    const float* to_inputs;   // gradients: samples x (width + seen)
    const float* to_density;  // samples
    float *x, *density, *inputs, *to_features;
    int64_t samples;
    int32_t width, seen;
};

KERNEL(unit_points, ShadeArgs, 256) {
    const int64_t i = global_thread();
    if (i >= args.samples) return;
    const float *o = args.origins + 3 * args.ray[i], *d = args.directions + 3 * args.ray[i];
    const Rounded origin[3] = {o[0], o[1], o[2]}, direction[3] = {d[0], d[1], d[2]};
    float unit[3];
    marching::to_unit(args.space, origin, direction, args.t[i], unit);
    for (int a = 0; a < 3; ++a) args.x[3 * i + a] = unit[a];
}

// The colour network's inputs, a thread a number: all features, then the ray's row of `view`.
KERNEL(color_inputs, ShadeArgs, 256) {
    const int32_t columns = args.width + args.seen;
    const int64_t at = global_thread(), i = at / columns;
    if (i >= args.samples) return;
    const int32_t c = static_cast<int32_t>(at - i * columns);
    const float value =
        c < args.width ? args.features[i * args.width + c] : args.view[args.ray[i] * args.seen + c - args.width];
    args.inputs[at] = value;
    if (c == 0) args.density[i] = density_of(args.raw, value);
}

// The colour network's share, and the density's through its exponential; a thread a number.
KERNEL(feature_gradient, ShadeArgs, 256) {
    const int64_t at = global_thread(), i = at / args.width;
    if (i >= args.samples) return;
    const int32_t c = static_cast<int32_t>(at - i * args.width);
    float gradient = args.to_inputs[i * (args.width + args.seen) + c];
    if (c == 0) gradient = fma_(args.to_density[i], density_slope(args.raw, args.features[at]), gradient);
    args.to_features[at] = gradient;
}

}  // namespace shade
