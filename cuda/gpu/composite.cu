// Volume rendering of packed samples, forward and backward. See nerf/kernels/composite.py for the definition, and
// cuda/shared/composite.h for the recurrence.
//
// A warp takes a ray, 32 samples at a time. Light is a running product over its lanes, carried from one 32 to the next in
// float64: one multiplication for 32 samples costs nothing, even where a GPU has few units for it. Sums run in one order,
// so every run gives the same bits.
#include "scan.h"

#include "../shared/composite.h"

namespace rendering {

struct CompositeArgs {
    const int64_t* offsets;  // rays + 1
    const float *density, *rgb, *t, *dt;
    const float* background;    // background_rows x 3
    const float* weights;       // backward: what forward gave
    const float *grad_rgb, *grad_depth, *grad_opacity, *grad_weights;  // of the results; each may be null
    float *out_rgb, *out_depth, *out_opacity, *out_weights;            // forward; transmittance goes to out_weights
    float *to_density, *to_rgb, *to_dt;                                // backward; to_dt of transmittance alone
    int64_t rays;
    int32_t background_rows;  // 0: black, 1: the same for all rays, or one a ray
    float near;               // gradients of samples closer than this are scaled by (t / near)^2; 0: none are
};

// Calls fn(ray, first sample, end) for each ray of this warp.
template <class Fn>
DEVICE_FN void for_rays(const CompositeArgs& args, Fn&& fn) {
    const int64_t ray = static_cast<int64_t>(block_index()) * block_warps() + warp_index();
    if (ray < args.rays) fn(ray, args.offsets[ray], args.offsets[ray + 1]);  // the same for all lanes
}

DEVICE_FN float behind(const CompositeArgs& args, int64_t ray, int c) {
    return args.background_rows == 0 ? 0.f : args.background[(args.background_rows == 1 ? 0 : ray) * 3 + c];
}

// Walks a ray 32 samples at a time and calls fn(sample or -1, thickness, light before the sample, light after it).
template <class Fn>
DEVICE_FN void along(const CompositeArgs& args, int64_t begin, int64_t end, Fn&& fn) {
    double light = 1;
    for (int64_t first = begin; first < end; first += 32) {
        const int64_t i = first + lane_index();
        const bool live = i < end;
        const float thickness = live ? args.density[i] * args.dt[i] : 0.f;
        const float passed = scan::product(live ? expf(-thickness) : 1.f);
        const float before = shuffle_up(passed, 1);
        const double at = lane_index() == 0 ? light : light * before;
        fn(live ? i : -1, thickness, static_cast<float>(at), static_cast<float>(light * passed));
        light *= shuffle(passed, 31);
    }
}

// The 32s of a ray from its last to its first: calls fn(sample or -1).
template <class Fn>
DEVICE_FN void backwards(int64_t begin, int64_t end, Fn&& fn) {
    for (int64_t first = begin + (end - begin + 31) / 32 * 32 - 32; first >= begin; first -= 32)
        fn(first + lane_index() < end ? first + lane_index() : -1);
}

KERNEL(transmittance, CompositeArgs, 128) {
    for_rays(args, [&](int64_t, int64_t begin, int64_t end) {
        along(args, begin, end, [&](int64_t i, float, float before, float) {
            if (i >= 0) args.out_weights[i] = before;
        });
    });
}

// dL/dx_j = -sum_{i > j} g_i T_i with x = density dt.
KERNEL(transmittance_backward, CompositeArgs, 128) {
    for_rays(args, [&](int64_t, int64_t begin, int64_t end) {
        float carried = 0;
        backwards(begin, end, [&](int64_t i) {
            const float own = i >= 0 ? args.grad_weights[i] * args.weights[i] : 0.f;
            const float gathered = scan::sum_behind(own), next = shuffle_down(gathered, 1);
            const float gradient = -(carried + (lane_index() == 31 ? 0.f : next));
            if (i >= 0) args.to_density[i] = gradient * args.dt[i], args.to_dt[i] = gradient * args.density[i];
            carried += shuffle(gathered, 0);
        });
    });
}

KERNEL(composite, CompositeArgs, 128) {
    for_rays(args, [&](int64_t ray, int64_t begin, int64_t end) {
        Sums<float> sums;
        along(args, begin, end, [&](int64_t i, float thickness, float before, float) {
            if (i < 0) return;
            args.out_weights[i] = add_weighted(sums, before * -expm1f(-thickness), args.rgb + 3 * i, args.t[i]);
        });
        const float opacity = warp_sum(sums.opacity), depth = warp_sum(sums.depth);
        for (int c = 0; c < 3; ++c) {
            const float color = warp_sum(sums.rgb[c]);
            if (lane_index() == c) args.out_rgb[ray * 3 + c] = color + (1 - opacity) * behind(args, ray, c);
        }
        if (lane_index() == 0) args.out_depth[ray] = depth, args.out_opacity[ray] = opacity;
    });
}

// A lane keeps the light after its samples in to_density until it comes to them again, from the other end.
KERNEL(composite_backward, CompositeArgs, 128) {
    for_rays(args, [&](int64_t ray, int64_t begin, int64_t end) {
        along(args, begin, end, [&](int64_t i, float, float, float after) {
            if (i >= 0) args.to_density[i] = after;
        });
        float to_ray[3], common = args.grad_opacity ? args.grad_opacity[ray] : 0.f, carried = 0;
        for (int c = 0; c < 3; ++c) {
            to_ray[c] = args.grad_rgb ? args.grad_rgb[ray * 3 + c] : 0.f;
            common -= to_ray[c] * behind(args, ray, c);
        }
        const float to_depth = args.grad_depth ? args.grad_depth[ray] : 0.f;
        backwards(begin, end, [&](int64_t i) {
            float value = 0, weight = 0, scale = 1;
            if (i >= 0) {
                weight = args.weights[i];
                value = common + to_depth * args.t[i] + (args.grad_weights ? args.grad_weights[i] : 0.f);
                for (int c = 0; c < 3; ++c) value += to_ray[c] * args.rgb[i * 3 + c];
                if (args.near > 0) {
                    const float share = args.t[i] / args.near;
                    scale = share < 1 ? share * share : 1.f;
                }
            }
            const float gathered = scan::sum_behind(value * weight), next = shuffle_down(gathered, 1);
            float beyond = carried + (lane_index() == 31 ? 0.f : next);
            if (i >= 0) {
                const float gradient = optical_gradient(beyond, value, weight, args.to_density[i]);
                args.to_density[i] = scale * (args.dt[i] * gradient);
                for (int c = 0; c < 3; ++c) args.to_rgb[i * 3 + c] = scale * (to_ray[c] * weight);
            }
            carried += shuffle(gathered, 0);
        });
    });
}

}  // namespace rendering
