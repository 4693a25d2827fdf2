// Volume rendering of packed samples, forward and backward. See nerf/kernels/composite.py for the definition, and
// cuda/shared/composite.h for the recurrence.
//
// Exponentials are vectorised over samples, whichever rays they belong to; the recurrence then walks ray by ray.
#include <algorithm>

#include "abi.h"
#include "maths.h"
#include "threads.h"

#include "../shared/composite.h"

namespace {

using namespace simd;

constexpr int64_t task_rays = 64;
constexpr int window = 512;  // samples whose exponentials are at hand at once

// What samples absorb, 1 - e^-x, and let pass, e^-x, with x = density * dt; computed a window at a time.
template <class T>
struct Layers {
    const T *density, *dt;
    int64_t end;  // of the task's samples
    int64_t first = 0, last = 0;
    alignas(64) T absorbs[window + lanes<T>], passes[window + lanes<T>];

    void fill(int64_t from) {
        first = from;
        last = std::min(end, from + window);
        const int count = static_cast<int>(last - first);
        int i = 0;
        for (; i + lanes<T> <= count; i += lanes<T>) fill_at(i, sizeof(vec<T>));
        if (i < count) fill_at(i, (count - i) * sizeof(T));
    }
    inline __attribute__((always_inline)) void fill_at(int i, size_t bytes) {
        vec<T> d = {}, length = {};
        std::memcpy(&d, density + first + i, bytes);
        std::memcpy(&length, dt + first + i, bytes);
        const vec<T> x = d * length;
        store(absorbs + i, -expm1_(-x));
        store(passes + i, exp_(-x));
    }
    int at(int64_t sample) {
        if (sample >= last) fill(sample);
        return static_cast<int>(sample - first);
    }
};

// Calls fn(ray, first sample, end) for a task's rays, in order.
template <class Fn>
void for_rays(const int64_t* offsets, int64_t rays, int64_t task, Fn&& fn) {
    const int64_t end = std::min(rays, (task + 1) * task_rays);
    for (int64_t r = task * task_rays; r < end; ++r) fn(r, offsets[r], offsets[r + 1]);
}

template <class T>
Layers<T> layers_of(const int64_t* offsets, int64_t rays, int64_t task, const T* density, const T* dt) {
    Layers<T> layers;
    layers.density = density, layers.dt = dt;
    layers.first = layers.last = offsets[task * task_rays];
    layers.end = offsets[std::min(rays, (task + 1) * task_rays)];
    return layers;
}

int64_t tasks_of(int64_t rays) { return (rays + task_rays - 1) / task_rays; }

template <class T>
void transmittance(int threads, int64_t rays, const int64_t* offsets, const T* density, const T* dt, T* out) {
    threads::parallel_for(threads, tasks_of(rays), [&](int64_t task) {
        Layers<T> layers = layers_of(offsets, rays, task, density, dt);
        for_rays(offsets, rays, task, [&](int64_t, int64_t begin, int64_t end) {
            double light = 1;
            for (int64_t i = begin; i < end; ++i) {
                out[i] = static_cast<T>(light);
                light *= layers.passes[layers.at(i)];
            }
        });
    });
}

template <class T>
struct Call {
    int threads;
    int64_t rays, background_rows;  // 0: black, 1: the same for all rays, or one a ray
    const int64_t* offsets;
    const T *density, *rgb, *t, *dt, *background;

    T behind(int64_t ray, int c) const {
        return background_rows == 0 ? T(0) : background[(background_rows == 1 ? 0 : ray) * 3 + c];
    }
};

template <class T>
void forward(const Call<T>& call, T* rgb, T* depth, T* opacity, T* weights) {
    threads::parallel_for(call.threads, tasks_of(call.rays), [&](int64_t task) {
        Layers<T> layers = layers_of(call.offsets, call.rays, task, call.density, call.dt);
        for_rays(call.offsets, call.rays, task, [&](int64_t r, int64_t begin, int64_t end) {
            rendering::Sums<T> ray;
            for (int64_t i = begin; i < end; ++i) {
                const int k = layers.at(i);
                weights[i] =
                    rendering::add_sample(ray, layers.absorbs[k], layers.passes[k], call.rgb + i * 3, call.t[i]);
            }
            for (int c = 0; c < 3; ++c) rgb[r * 3 + c] = ray.rgb[c] + (1 - ray.opacity) * call.behind(r, c);
            depth[r] = ray.depth;
            opacity[r] = ray.opacity;
        });
    });
}

template <class T>
struct Gradients {  // of the results; each but rgb may be null
    const T *rgb, *depth, *opacity, *weights;
};

template <class T>
void backward(const Call<T>& call, const T* weights, const Gradients<T>& grad, T* grad_density, T* grad_rgb) {
    threads::parallel_for(call.threads, tasks_of(call.rays), [&](int64_t task) {
        Layers<T> layers = layers_of(call.offsets, call.rays, task, call.density, call.dt);
        for_rays(call.offsets, call.rays, task, [&](int64_t r, int64_t begin, int64_t end) {
            double light = 1;
            for (int64_t i = begin; i < end;
                 ++i)  // grad_density holds the light after each sample until it is its turn
                grad_density[i] = static_cast<T>(light *= layers.passes[layers.at(i)]);
            const T* to_rgb = grad.rgb + r * 3;
            T common = grad.opacity ? grad.opacity[r] : T(0);
            for (int c = 0; c < 3; ++c) common -= to_rgb[c] * call.behind(r, c);
            const T to_depth = grad.depth ? grad.depth[r] : T(0);
            T behind = 0;
            for (int64_t i = end - 1; i >= begin; --i) {
                T value = common + to_depth * call.t[i] + (grad.weights ? grad.weights[i] : T(0));
                for (int c = 0; c < 3; ++c) {
                    value += to_rgb[c] * call.rgb[i * 3 + c];
                    grad_rgb[i * 3 + c] = to_rgb[c] * weights[i];
                }
                grad_density[i] = call.dt[i] * rendering::optical_gradient(behind, value, weights[i], grad_density[i]);
            }
        });
    });
}

}  // namespace

#define COMPOSITE(T, suffix)                                                                                        \
    EXPORT const char* nerf_transmittance_##suffix(int threads, int64_t rays, const int64_t* offsets,               \
                                                   const T* density, const T* dt, T* out) {                         \
        return guarded([&] { transmittance<T>(threads, rays, offsets, density, dt, out); });                        \
    }                                                                                                               \
    EXPORT const char* nerf_composite_##suffix(                                                                     \
        int threads, int64_t rays, int64_t background_rows, const int64_t* offsets, const T* density, const T* rgb, \
        const T* t, const T* dt, const T* background, T* out_rgb, T* depth, T* opacity, T* weights) {               \
        return guarded([&] {                                                                                        \
            forward<T>({threads, rays, background_rows, offsets, density, rgb, t, dt, background}, out_rgb, depth,  \
                       opacity, weights);                                                                           \
        });                                                                                                         \
    }                                                                                                               \
    EXPORT const char* nerf_composite_backward_##suffix(                                                            \
        int threads, int64_t rays, int64_t background_rows, const int64_t* offsets, const T* density, const T* rgb, \
        const T* t, const T* dt, const T* background, const T* weights, const T* grad_out_rgb, const T* grad_depth, \
        const T* grad_opacity, const T* grad_weights, T* grad_density, T* grad_rgb) {                               \
        return guarded([&] {                                                                                        \
            backward<T>({threads, rays, background_rows, offsets, density, rgb, t, dt, background}, weights,        \
                        {grad_out_rgb, grad_depth, grad_opacity, grad_weights}, grad_density, grad_rgb);            \
        });                                                                                                         \
    }

COMPOSITE(float, f32)
COMPOSITE(double, f64)
