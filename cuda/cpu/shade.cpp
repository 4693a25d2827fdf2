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
