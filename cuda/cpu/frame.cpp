// The entry points of `look` and `frame`. See nerf/kernels/frame.py for their definitions.
#include "frame.h"

#include <atomic>
#include <memory>

#include "../shared/composite.h"

namespace {

using namespace frame;

// Raises values[cell] to `value`. The largest of many is the same in whatever order threads come.
void raise(float* values, int64_t cell, float value) {
    static_assert(sizeof(std::atomic<float>) == sizeof(float), "an atomic float is a float");
    auto& held = reinterpret_cast<std::atomic<float>&>(values[cell]);
    float before = held.load(std::memory_order_relaxed);
    while (before < value && !held.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
}

int64_t cell_of(const float* unit, int resolution) {
    int64_t cell[3];
    for (int a = 0; a < 3; ++a) {
        const float grid = unit[a] * static_cast<float>(resolution), last = static_cast<float>(resolution) - 0.5f;
        const float low = grid > 0 ? grid : 0;  // a NaN goes to cell 0
        cell[a] = static_cast<int64_t>(low < last ? low : last);
    }
    return (cell[2] * resolution + cell[1]) * resolution + cell[0];
}

struct Kept {
    std::vector<float> t, dt;
    std::vector<int> ray;  // of the task
};

struct Looked {
    int64_t per_task;
    std::vector<Kept> tasks;
};

// Samples come a wave at a time: puts each ray's together, in order.
void sort_by_ray(Kept& kept, int64_t* counts, int64_t rays) {
    std::vector<int64_t> next(rays + 1, 0);
    for (int r : kept.ray) ++next[r + 1];
    for (int64_t r = 0; r < rays; ++r) counts[r] = next[r + 1], next[r + 1] += next[r];
    Kept sorted;
    sorted.t.resize(kept.t.size()), sorted.dt.resize(kept.t.size()), sorted.ray.resize(kept.t.size());
    for (size_t i = 0; i < kept.t.size(); ++i) {
        const int64_t to = next[kept.ray[i]]++;
        sorted.t[to] = kept.t[i], sorted.dt[to] = kept.dt[i], sorted.ray[to] = kept.ray[i];
    }
    kept = std::move(sorted);
}

template <class F>
void look(int threads, int64_t rays, const marching::Call& call, const Field& field, const mlp::Network<F>& network,
          const Bend<F>& by, Limits limits, float* values, float value_scale, int64_t* offsets, int64_t* lit,
          Looked& found) {
    found.per_task = rays_of_task(rays);
    found.tasks.resize((rays + found.per_task - 1) / found.per_task);
    std::vector<int64_t> counts(found.tasks.size());
    threads::parallel_for(threads, static_cast<int64_t>(found.tasks.size()), [&](int64_t task) {
        static thread_local Wave wave;
        Kept& kept = found.tasks[task];
        const int64_t first = task * found.per_task, end = std::min(rays, first + found.per_task);
        const auto see = [&](int i, double) {
            ++counts[task];
            const float* place = by.warp ? &wave.place[3 * i] : &wave.x[3 * i];
            if (values) raise(values, cell_of(place, call.resolution), wave.density[i] * value_scale);
            if (!(wave.density[i] * wave.dt[i] > limits.faint)) return;
            kept.t.push_back(wave.t[i]), kept.dt.push_back(wave.dt[i]), kept.ray.push_back(wave.ray[i]);
        };
        walk(call, field, network, by, limits.stop, first, end, wave, see, [] {});
        sort_by_ray(kept, offsets + 1 + first, end - first);
    });
    offsets[0] = 0;
    for (int64_t r = 0; r < rays; ++r) offsets[r + 1] += offsets[r];
    *lit = 0;
    for (int64_t count : counts) *lit += count;
}

// Colours of the samples that are worth it.
struct Colours {
    std::vector<float> inputs, rgb, t, weight;
    std::vector<int> ray;
};

template <class F>
void picture(int threads, int64_t rays, const marching::Call& call, const Field& field, const mlp::Network<F>& network,
             const mlp::Network<F>& colour, const Bend<F>& by, const float* view, Limits limits, float* rgb, float* depth,
             float* opacity) {
    const int64_t per_task = rays_of_task(rays);
    const int geometry = network.layers.back().out, inputs = colour.layers.front().in, seen = inputs - geometry;
    threads::parallel_for(threads, (rays + per_task - 1) / per_task, [&](int64_t task) {
        static thread_local Wave wave;
        static thread_local Colours c;
        const int64_t first = task * per_task, end = std::min(rays, first + per_task);
        std::vector<rendering::Sums<float>> sums(end - first);
        const auto see = [&](int i, double light) {
            const float weight = static_cast<float>(light * wave.absorbs[i]);
            if (!(weight > limits.faint)) return;
            const float* features = &wave.features[static_cast<int64_t>(i) * wave.width];
            const float* from = view + (first + wave.ray[i]) * seen;
            c.inputs.insert(c.inputs.end(), features, features + geometry);
            c.inputs.insert(c.inputs.end(), from, from + seen);
            c.t.push_back(wave.t[i]), c.weight.push_back(weight), c.ray.push_back(wave.ray[i]);
        };
        const auto after = [&] {
            c.rgb.resize(c.ray.size() * 3);
            mlp::forward_rows(colour, static_cast<int64_t>(c.ray.size()), c.inputs.data(), c.rgb.data());
            for (size_t i = 0; i < c.ray.size(); ++i) {
                auto& ray = sums[c.ray[i]];
                for (int k = 0; k < 3; ++k) ray.rgb[k] += c.weight[i] * c.rgb[3 * i + k];
                ray.depth += c.weight[i] * c.t[i], ray.opacity += c.weight[i];
            }
            c.inputs.clear(), c.t.clear(), c.weight.clear(), c.ray.clear();
        };
        walk(call, field, network, by, limits.stop, first, end, wave, see, after);
        for (int64_t r = first; r < end; ++r) {
            const auto& ray = sums[r - first];
            std::copy_n(ray.rgb, 3, rgb + 3 * r);
            depth[r] = ray.depth, opacity[r] = ray.opacity;
        }
    });
}

struct Layers {  // a network as the caller gives it
    int depth;
    const int32_t* widths;
    const void *const *weights, *const *biases;

    template <class F>
    mlp::Network<F> network(int output_activation) const {
        return mlp::network<F>({depth, widths, nullptr, activation::relu, output_activation, 0}, weights, biases, false);
    }
};

// Calls fn with the deformation as `walk` takes it.
template <class F, class Fn>
void with_bend(const warping::Given& given, const float* codes, Fn&& fn) {
    if (!given.depth) return fn(Bend<F>{nullptr, nullptr});
    const auto network = given.network<F>(false);
    const auto shares = given.shares<F>(false);
    const warping::Warp<F> warp = {given.settings, network, shares.empty() ? nullptr : &shares[0]};
    fn(Bend<F>{&warp, codes});
}

}  // namespace

// The march's arguments, the hash grid's, and the density network's. numbers: the march's (`make_call`), then the
// density's bias and scale, the light at which rays end, the limit of faint samples, and what raises a cell.
#define FRAME_ARGUMENTS                                                                                               \
    int threads, int64_t rays, const float *origins, const float *directions, const float *start, const float *count, \
        const uint8_t *occupied, const uint8_t *dilated, int resolution, int contract, const double *numbers,         \
        int levels, int features, const int32_t *resolutions, const uint8_t *dense, const int64_t *first_rows,        \
        const float *table, int format, int depth, const int32_t *widths, const void *const *weights,                 \
        const void *const *biases
#define FRAME_PARTS                                                                                                   \
    const auto call = marching::make_call(origins, directions, start, count, occupied, dilated, resolution, contract, \
                                          numbers);                                                                   \
    const auto number = [&](int i) { return static_cast<float>(numbers[i]); };                                        \
    Field field = {                                                                                                   \
        {1, 0, levels, features, resolutions, dense, first_rows, nullptr}, table, number(6), number(7), {}};          \
    const Limits limits = {number(8), number(9)};                                                                     \
    const Layers layers = {depth, widths, weights, biases};

// The warp is `nerf_warp`'s, with a row of `codes` a ray; depth 0: none. values: cells that lit samples raise, where they
// are before the warp, or null. offsets: rays + 1. lit: how many samples light reached. `found` is for `nerf_look_take`.
EXPORT const char* nerf_look(FRAME_ARGUMENTS, WARP_ARGUMENTS, const float* codes, float* values, int64_t* offsets,
                             int64_t* lit, void** found) {
    FRAME_PARTS WARP_PARTS
    return mlp::with_format(format, [&](auto f) {
        using F = decltype(f);
        if constexpr (std::is_same_v<typename F::real, float>) {
            auto looked = std::make_unique<Looked>();
            const auto network = layers.network<F>(activation::none);
            with_bend<F>(warp_given, codes, [&](const Bend<F>& by) {
                look(threads, rays, call, field, network, by, limits, values, number(10), offsets, lit, *looked);
            });
            *found = looked.release();
        }
    });
}

// Copies the samples that a look kept and the rays that they are of, and frees them; t null: only frees them.
EXPORT const char* nerf_look_take(int threads, void* found, float* t, float* dt, int64_t* ray) {
    return guarded([&] {
        const std::unique_ptr<Looked> looked(static_cast<Looked*>(found));
        if (!t) return;
        std::vector<int64_t> first(looked->tasks.size());
        for (size_t k = 1; k < first.size(); ++k)
            first[k] = first[k - 1] + static_cast<int64_t>(looked->tasks[k - 1].t.size());
        threads::parallel_for(threads, static_cast<int64_t>(first.size()), [&](int64_t k) {
            const Kept& from = looked->tasks[k];
            std::copy(from.t.begin(), from.t.end(), t + first[k]);
            std::copy(from.dt.begin(), from.dt.end(), dt + first[k]);
            for (size_t i = 0; i < from.ray.size(); ++i) ray[first[k] + i] = k * looked->per_task + from.ray[i];
        });
    });
}

// lattice: size^3 displacements, size at least 2; or null, as it is where there is a warp. The colour network's inputs are
// the density network's outputs and then the ray's row of `view`.
EXPORT const char* nerf_frame(FRAME_ARGUMENTS, WARP_ARGUMENTS, const float* codes, const float* lattice, int size,
                              int colour_depth, const int32_t* colour_widths, const void* const* colour_weights,
                              const void* const* colour_biases, const float* view, float* rgb, float* ray_depth,
                              float* opacity) {
    FRAME_PARTS WARP_PARTS
    field.motion = {lattice, size};
    return mlp::with_format(format, [&](auto f) {
        using F = decltype(f);
        if constexpr (std::is_same_v<typename F::real, float>) {
            const auto network = layers.network<F>(activation::none);
            const Layers given = {colour_depth, colour_widths, colour_weights, colour_biases};
            const auto colour = given.network<F>(activation::sigmoid);
            with_bend<F>(warp_given, codes, [&](const Bend<F>& by) {
                picture(threads, rays, call, field, network, colour, by, view, limits, rgb, ray_depth, opacity);
            });
        }
    });
}
