// What stands between the kernels of a training step on a hash grid's field: points on rays, what enters the colour
// network, and the gradient of what the density network gave. See nerf/kernels/shade.py for the definition.
#include "frame.h"

namespace {

using frame::steepest_raw, frame::V;

constexpr int64_t task_samples = 2048;

template <class Fn>
void for_samples(int threads, int64_t samples, Fn&& fn) {
    threads::parallel_for(threads, (samples + task_samples - 1) / task_samples, [&](int64_t task) {
        for (int64_t i = task * task_samples; i < std::min(samples, (task + 1) * task_samples); ++i) fn(i);
    });
}

}  // namespace

// Points of the unit cube at the distances t along the rays. numbers: centre (3) and half side of the space.
EXPORT const char* nerf_unit_points(int threads, int64_t samples, const float* origins, const float* directions,
                                    const int64_t* ray, const float* t, int contract, const double* numbers, float* x) {
    return guarded([&] {
        const auto number = [&](int i) { return static_cast<float>(numbers[i]); };
        const marching::Space space = {{number(0), number(1), number(2)}, number(3), contract != 0};
        for_samples(threads, samples, [&](int64_t i) {
            frame::to_unit(space, origins + 3 * ray[i], directions + 3 * ray[i], t[i], x + 3 * i);
        });
    });
}

// Points of the world in the unit cube. numbers: as above.
EXPORT const char* nerf_to_unit(int threads, int64_t samples, const float* x_world, int contract, const double* numbers,
                                float* x) {
    return guarded([&] {
        const auto number = [&](int i) { return static_cast<float>(numbers[i]); };
        const marching::Space space = {{number(0), number(1), number(2)}, number(3), contract != 0};
        for_samples(threads, samples, [&](int64_t i) {
            float y[3];
            for (int a = 0; a < 3; ++a) y[a] = (x_world[3 * i + a] - space.center[a]) / space.half;
            frame::unit_of(space, y, x + 3 * i);
        });
    });
}

// The gradients of points of the world, from those of the unit cube: u = y s(n) + 1/2 with n = max(1, |y|_inf) and
// s(n) = (2 - 1/n) / (4 n), where the space is contracted.
EXPORT const char* nerf_to_unit_gradient(int threads, int64_t samples, const float* x_world, int contract,
                                         const double* numbers, const float* to_unit, float* to_world) {
    return guarded([&] {
        const auto number = [&](int i) { return static_cast<float>(numbers[i]); };
        const float center[3] = {number(0), number(1), number(2)}, inverse_half = 1 / number(3);
        for_samples(threads, samples, [&](int64_t i) {
            const float* g = to_unit + 3 * i;
            float y[3], *to = to_world + 3 * i;
            int longest = 0;
            for (int a = 0; a < 3; ++a) {
                y[a] = (x_world[3 * i + a] - center[a]) * inverse_half;
                if (std::abs(y[a]) > std::abs(y[longest])) longest = a;
            }
            const float norm = contract ? std::max(1.f, std::abs(y[longest])) : 1.f, inverse = 1 / norm;
            const float shrink = contract ? (2 - inverse) * inverse * 0.25f : 0.5f;
            for (int a = 0; a < 3; ++a) to[a] = g[a] * shrink * inverse_half;
            if (norm == 1) return;
            const float slope = (inverse - 1) * inverse * inverse * 0.5f;  // ds/dn
            const float along = (g[0] * y[0] + g[1] * y[1] + g[2] * y[2]) * slope * inverse_half;
            to[longest] += y[longest] > 0 ? along : -along;
        });
    });
}

// density = scale exp(raw + bias), and the colour network's inputs: all features, then the ray's row of `view`.
EXPORT const char* nerf_color_inputs(int threads, int64_t samples, const int64_t* ray, int features, const float* given,
                                     int seen, const float* view, double bias, double scale, float* density,
                                     float* inputs) {
    return guarded([&] {
        const float b = static_cast<float>(bias), s = static_cast<float>(scale);
        threads::parallel_for(threads, (samples + task_samples - 1) / task_samples, [&](int64_t task) {
            const int64_t first = task * task_samples, end = std::min(samples, first + task_samples);
            for (int64_t i = first; i < end; ++i) {
                float* to = inputs + i * (features + seen);
                std::copy_n(given + i * features, features, to);
                std::copy_n(view + ray[i] * seen, seen, to + features);
                density[i] = given[i * features];
            }
            for (int64_t i = first; i < end; i += simd::lanes<float>) {
                V raw = {};
                const size_t bytes = std::min<int64_t>(simd::lanes<float>, end - i) * sizeof(float);
                std::memcpy(&raw, density + i, bytes);
                raw = frame::density_of(raw, b, s);
                std::memcpy(density + i, &raw, bytes);
            }
        });
    });
}

// Gradients of samples near a camera, scaled in place by (t / near)^2 where that is below 1.
EXPORT const char* nerf_near_gradient(int threads, int64_t samples, const float* t, double near, float* to_density,
                                      float* to_rgb) {
    return guarded([&] {
        for_samples(threads, samples, [&](int64_t i) {
            const float share = t[i] / static_cast<float>(near), scale = std::min(1.f, share * share);
            to_density[i] *= scale;
            for (int c = 0; c < 3; ++c) to_rgb[3 * i + c] *= scale;
        });
    });
}

// What the density network's outputs get: the colour network's share, and the density's through its exponential.
EXPORT const char* nerf_feature_gradient(int threads, int64_t samples, int features, const float* given, int seen,
                                         const float* to_inputs, double bias, double scale, const float* to_density,
                                         float* to_features) {
    return guarded([&] {
        const float b = static_cast<float>(bias), s = static_cast<float>(scale);
        threads::parallel_for(threads, (samples + task_samples - 1) / task_samples, [&](int64_t task) {
            const int64_t first = task * task_samples, end = std::min(samples, first + task_samples);
            for (int64_t i = first; i < end; i += simd::lanes<float>) {
                const int live = static_cast<int>(std::min<int64_t>(simd::lanes<float>, end - i));
                alignas(64) float raw[simd::lanes<float>] = {};
                for (int j = 0; j < live; ++j) raw[j] = given[(i + j) * features] + b;
                V r = simd::load<V>(raw);
                r = r > steepest_raw ? V{} + steepest_raw : r;
                r = r < -steepest_raw ? V{} - steepest_raw : r;
                simd::store(raw, simd::exp_(r) * s);
                for (int j = 0; j < live; ++j) {
                    float* to = to_features + (i + j) * features;
                    std::copy_n(to_inputs + (i + j) * (features + seen), features, to);
                    to[0] += to_density[i + j] * raw[j];
                }
            }
        });
    });
}

// What each ray's row of `view` gets: the sum over its samples.
EXPORT const char* nerf_view_gradient(int threads, int64_t rays, const int64_t* offsets, int features, int seen,
                                      const float* to_inputs, float* to_view) {
    return guarded([&] {
        threads::parallel_for(threads, (rays + 255) / 256, [&](int64_t task) {
            for (int64_t r = task * 256; r < std::min(rays, (task + 1) * 256); ++r) {
                float* to = to_view + r * seen;
                std::fill_n(to, seen, 0.f);
                for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
                    for (int k = 0; k < seen; ++k) to[k] += to_inputs[i * (features + seen) + features + k];
            }
        });
    });
}
