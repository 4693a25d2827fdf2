// Rays through an occupancy grid and a hash grid's field without gradients: what `look` and `frame` share. See
// nerf/kernels/frame.py for the definitions.
//
// A task takes some rays. They advance in waves, a few samples of each ray under way at a time, marched no farther than
// that: all of a wave's samples go through the grid level by level and through the network together, and rays that no
// light goes on along drop out. What a ray gets does not depend on the others, nor on the number of threads.
#pragma once

#include "hash_cells.h"
#include "march.h"
#include "mlp_driver.h"
#include "warp.h"

namespace frame {

using V = simd::vec<float>;

struct Motion {  // nerf.kernels.frame.Motion
    const float* lattice;  // size^3 points x 3; null: nothing moves
    int size;
};

struct Field {
    hash::Call<float> grid;  // of no points
    const float* table;
    float density_bias, density_scale;
    Motion motion;  // of points, before they are taken to the grid's cube
};

struct Limits {
    float stop, faint;
};

constexpr float highest_raw = 60, steepest_raw = 15;  // HIGHEST_RAW, STEEPEST_RAW in nerf/kernels

SHARED_FN V density_of(V raw, float bias, float scale) {
    raw = raw + bias;
    return simd::exp_(raw > highest_raw ? V{} + highest_raw : raw) * scale;  // a NaN stays one
}

// What a wave knows of its samples.
struct Wave {
    static constexpr int capacity = 2048, least = 8, most = 64;  // samples; of one ray

    std::vector<int> ray;                 // of the task
    std::vector<float> t, dt;
    std::vector<float> x;                 // unit cube, [sample][3]
    std::vector<float> place, moved;      // behind a warp: the unit cube before it, and how far points move, [sample][3]
    std::vector<float> encoded, features; // [sample][width]
    std::vector<float> density, absorbs, passes;
    int width = 0;  // features of the density network

    void grow(size_t samples, int64_t encoded_width) {
        const size_t n = samples + simd::lanes<float>;
        const auto fit = [](auto& array, size_t size) {
            if (array.size() < size) array.resize(size);
        };
        fit(ray, n);
        for (auto* array : {&t, &dt, &density, &absorbs, &passes}) fit(*array, n);
        fit(x, 3 * n), fit(place, 3 * n), fit(moved, 3 * n);
        fit(encoded, n * encoded_width), fit(features, n * width);
    }
};

// Moves a point whose cube is [-1, 1]^3.
inline void move(const Motion& motion, float* y) {
    using Four = simd::vector<float, 4>;
    const int cells = motion.size - 1;
    int cell[3];
    float low[3], high[3];
    for (int a = 0; a < 3; ++a) {
        if (!(std::abs(y[a]) < 1)) return;  // a NaN stays where it is
        const float place = (y[a] + 1) * (0.5f * static_cast<float>(cells));
        cell[a] = std::min(static_cast<int>(place), cells - 1);
        high[a] = place - static_cast<float>(cell[a]), low[a] = 1 - high[a];
    }
    const int64_t row = motion.size * int64_t{3}, slice = row * motion.size;
    const float* from = motion.lattice + cell[2] * slice + cell[1] * row + cell[0] * int64_t{3};
    // A cell's two corners along x are six numbers in a row: two registers hold them, and neither reads past them.
    Four left{}, right{};
    for (int k = 0; k < 4; ++k) {
        const float* six = from + (k & 1) * row + (k >> 1) * slice;
        const Four weight = simd::splat<Four>((k & 1 ? high[1] : low[1]) * (k >> 1 ? high[2] : low[2]));
        left = simd::fma(simd::load<Four>(six), weight, left);
        right = simd::fma(simd::load<Four>(six + 2), weight, right);
    }
    for (int a = 0; a < 3; ++a) y[a] += left[a] * low[0] + right[a + 1] * high[0];
}

// The point at t of a ray in units of the space's cube, which is [-1, 1]^3.
inline void in_cube(const marching::Space& space, const float* origin, const float* direction, float t, float* y) {
    const float scale = 1 / space.half;
    for (int a = 0; a < 3; ++a) y[a] = (origin[a] + direction[a] * t - space.center[a]) * scale;
}

inline void unit_of(const marching::Space& space, const float* y, float* unit) {
    float norm = 1;
    if (!space.contract) {
        for (int a = 0; a < 3; ++a) unit[a] = y[a] * 0.5f + 0.5f;
        return;
    }
    for (int a = 0; a < 3; ++a) norm = std::max(norm, std::abs(y[a]));
    const float inverse = 1 / norm, shrink = (2 - inverse) * inverse * 0.25f;
    for (int a = 0; a < 3; ++a) unit[a] = y[a] * shrink + 0.5f;
}

inline void to_unit(const marching::Space& space, const float* origin, const float* direction, float t, float* unit,
                    const Motion& motion = {}) {
    float y[3];
    in_cube(space, origin, direction, t, y);
    if (motion.lattice) move(motion, y);
    unit_of(space, y, unit);
}

// A deformation before the field, and each ray's code; warp null: none.
template <class F>
struct Bend {
    const warping::Warp<F>* warp;
    const float* codes;
};

// Density and the other features of a wave's samples, and what they absorb and let pass.
template <class F>
void ask(const Field& field, const mlp::Network<F>& network, Wave& wave, int samples) {
    hash::Call<float> grid = field.grid;
    grid.points = samples, grid.x = wave.x.data();
    const int64_t width = grid.width();
    hash::with_features(grid.features, [&](auto f) {
        for (int64_t c = 0; c < grid.chunks(); ++c) {
            const hash::Chunk<float> chunk(grid, c);
            for (int l = 0; l < grid.levels; ++l) {
                const grid::Level level = grid.level(l);
                hash::encode_level<float, f()>(level, chunk, field.table + level.first * grid.features, grid.features,
                                               wave.encoded.data() + chunk.first * width + l * grid.features, width);
            }
        }
    });
    mlp::forward_rows(network, samples, wave.encoded.data(), wave.features.data());
    for (int i = 0; i < samples; ++i) wave.density[i] = wave.features[static_cast<int64_t>(i) * wave.width];
    for (int i = 0; i < samples; i += simd::lanes<float>) {
        const V density = density_of(simd::load<V>(&wave.density[i]), field.density_bias, field.density_scale);
        const V thickness = density * simd::load<V>(&wave.dt[i]);
        simd::store(&wave.density[i], density);
        simd::store(&wave.absorbs[i], -simd::expm1_(-thickness));
        simd::store(&wave.passes[i], simd::exp_(-thickness));
    }
}

// One ray of a task under way.
struct Going {
    int ray;                    // of the task
    float marched = 0;          // steps
    int64_t next = 0, end = 0;  // samples of the task's march
    double light = 1;
};

// Takes a wave's points, in cube units in wave.x, through the deformation and on to the unit cube.
template <class F>
void bend(const marching::Space& space, const Bend<F>& by, int64_t first, Wave& wave, int count) {
    const int width = by.warp->settings.code;
    const auto code_of = [&](int64_t i) { return by.codes + (first + wave.ray[i]) * width; };
    warping::displace(*by.warp, count, wave.x.data(), code_of, wave.moved.data());
    for (int i = 0; i < count; ++i) {
        float y[3];
        for (int a = 0; a < 3; ++a) y[a] = wave.x[3 * i + a] + wave.moved[3 * i + a];
        unit_of(space, &wave.x[3 * i], &wave.place[3 * i]);
        unit_of(space, y, &wave.x[3 * i]);
    }
}

// Marches rays [first, end) and calls see(index in the wave, light before it) for every sample that light reaches, ray by
// ray within a wave, then after() once a wave.
template <class F, class See, class After>
void walk(const marching::Call& rays, const Field& field, const mlp::Network<F>& network, const Bend<F>& by, float stop,
          int64_t first, int64_t end, Wave& wave, See&& see, After&& after) {
    marching::Samples marched;
    std::vector<Going> going;
    for (int64_t r = first; r < end; ++r)
        if (rays.count[r] > 0) going.push_back({static_cast<int>(r - first)});
    wave.width = network.layers.back().out;
    while (!going.empty()) {
        // Few rays left: more of each, so that the field is still asked for many samples at once.
        const int share = Wave::capacity / static_cast<int>(going.size());
        const int each = std::min(Wave::most, std::max(Wave::least, share));
        wave.grow(each * going.size(), field.grid.width());
        int count = 0;
        for (Going& ray : going) {
            const int64_t index = first + ray.ray;
            for (; ray.next == ray.end && ray.marched < rays.count[index]; ray.marched += marching::stretch) {
                ray.next = marched.kept;
                marching::march_stretch(rays, index, ray.marched, marched);
                ray.end = marched.kept;
            }
            const float *origin = rays.origins + index * 3, *direction = rays.directions + index * 3;
            for (int64_t i = ray.next; i < std::min(ray.end, ray.next + each); ++i, ++count) {
                wave.ray[count] = ray.ray, wave.t[count] = marched.t[i], wave.dt[count] = marched.dt[i];
                if (by.warp)
                    in_cube(rays.space, origin, direction, marched.t[i], &wave.x[3 * count]);
                else
                    to_unit(rays.space, origin, direction, marched.t[i], &wave.x[3 * count], field.motion);
            }
        }
        if (by.warp) bend(rays.space, by, first, wave, count);
        ask(field, network, wave, count);
        int at = 0;
        size_t left = 0;
        for (Going ray : going) {
            const int64_t until = std::min(ray.end, ray.next + each);
            bool lit = true;
            for (; ray.next < until; ++ray.next, ++at) {
                lit = lit && static_cast<float>(ray.light) > stop;
                if (!lit) continue;
                see(at, ray.light);
                ray.light *= wave.passes[at];
            }
            const bool more = ray.next < ray.end || ray.marched < rays.count[first + ray.ray];
            if (lit && more && static_cast<float>(ray.light) > stop) going[left++] = ray;
        }
        going.resize(left);
        after();
    }
}

// Rays of a task: enough for whole waves, few enough to keep threads at work.
inline int64_t rays_of_task(int64_t rays) { return std::min<int64_t>(512, std::max<int64_t>(64, rays / 16)); }

}  // namespace frame
