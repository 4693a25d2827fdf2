// The cell of one level of a hash grid that a point lies in, and what its eight corners' rows give and get.
#pragma once

#include "device.h"

#include "../shared/grid.h"

namespace hash {

constexpr int most_levels = 32;

// Levels of one grid; nerf.kernels.cuda_grid.Levels has the same layout.
struct Levels {
    grid::Level level[most_levels];
};

// F consecutive features, loaded and stored up to sixteen bytes at a time.
template <int F>
struct alignas(F < 4 ? 4 * F : 16) Row {
    float f[F];
};

template <int F>
DEVICE_FN Row<F> load_row(const float* from) {
    return *reinterpret_cast<const Row<F>*>(from);
}
template <int F>
DEVICE_FN void add_row(float* to, const Row<F>& row) {  // atomic
    if constexpr (F == 1) {
        add_to(to, row.f[0]);
    } else if constexpr (F == 2) {
        add_to(to, row.f[0], row.f[1]);
    } else {
        UNROLL
        for (int i = 0; i < F; i += 4) add_to(to + i, row.f[i], row.f[i + 1], row.f[i + 2], row.f[i + 3]);
    }
}

// Corner k is offset by (k & 1, k >> 1 & 1, k >> 2) in x, y, z.
struct Cell {
    uint32_t row[8];           // of the level's table
    float lower[3], upper[3];  // weights of the two sides on each axis; they add to 1

    DEVICE_FN float weight_yz(int pair) const {
        return (pair & 1 ? upper[1] : lower[1]) * (pair >> 1 ? upper[2] : lower[2]);
    }
};

DEVICE_FN Cell find_cell(const grid::Level& level, const float* x) {
    Cell cell;
    uint32_t side[3][2];
    const float cells = static_cast<float>(level.resolution);
    UNROLL
    for (int a = 0; a < 3; ++a) {
        const float position = x[a] * cells;
        const int32_t whole = static_cast<int32_t>(grid::clamp_to_cells(position, cells - 1));
        cell.upper[a] = position - static_cast<float>(whole);
        cell.lower[a] = 1.f - cell.upper[a];
        const uint32_t factor = grid::factor(level, a);
        side[a][0] = static_cast<uint32_t>(whole) * factor;
        side[a][1] = side[a][0] + factor;
    }
    UNROLL
    for (int k = 0; k < 8; ++k) {
        const uint32_t u = side[0][k & 1], v = side[1][k >> 1 & 1], w = side[2][k >> 2];
        cell.row[k] = level.dense ? grid::dense_row(u, v, w) : grid::hashed_row(u, v, w, level.rows - 1);
    }
    return cell;
}

// sum over corners of weight * row: pairs in x first, as the CPU's kernel does. `table` begins at the level's first row
// and, where `features` is more than F, at the first of the F that are wanted.
template <int F>
DEVICE_FN Row<F> encode_cell(const Cell& cell, const float* table, int features) {
    Row<F> low = {}, high = {};
    UNROLL
    for (int pair = 0; pair < 4; ++pair) {
        const float weight = cell.weight_yz(pair);
        const Row<F> a = load_row<F>(table + static_cast<int64_t>(cell.row[2 * pair]) * features);
        const Row<F> b = load_row<F>(table + static_cast<int64_t>(cell.row[2 * pair + 1]) * features);
        UNROLL
        for (int f = 0; f < F; ++f) {
            low.f[f] = fma_(a.f[f], weight, low.f[f]);
            high.f[f] = fma_(b.f[f], weight, high.f[f]);
        }
    }
    Row<F> mixed;
    UNROLL
    for (int f = 0; f < F; ++f) mixed.f[f] = fma_(high.f[f], cell.upper[0], low.f[f] * cell.lower[0]);
    return mixed;
}

// Adds d(features . gradient)/dx to slope, in cells: the caller multiplies by the resolution. Each axis's slope is the
// difference that the mix along it leaves out.
template <int F>
DEVICE_FN void add_slope(const Cell& cell, const float* table, int features, const Row<F>& gradient, float* slope) {
    const float *low = cell.lower, *high = cell.upper;
    Row<F> mixed[4], along_x = {};
    UNROLL
    for (int pair = 0; pair < 4; ++pair) {
        const Row<F> a = load_row<F>(table + static_cast<int64_t>(cell.row[2 * pair]) * features);
        const Row<F> b = load_row<F>(table + static_cast<int64_t>(cell.row[2 * pair + 1]) * features);
        const float weight = cell.weight_yz(pair);
        UNROLL
        for (int f = 0; f < F; ++f) {
            mixed[pair].f[f] = fma_(b.f[f], high[0], a.f[f] * low[0]);
            along_x.f[f] = fma_(b.f[f] - a.f[f], weight, along_x.f[f]);
        }
    }
    UNROLL
    for (int f = 0; f < F; ++f) {
        const float g = gradient.f[f];
        const float m0 = mixed[0].f[f], m1 = mixed[1].f[f], m2 = mixed[2].f[f], m3 = mixed[3].f[f];
        slope[0] = fma_(along_x.f[f], g, slope[0]);
        slope[1] = fma_(fma_(m3 - m2, high[2], (m1 - m0) * low[2]), g, slope[1]);
        slope[2] = fma_(fma_(m3, high[1], m2 * low[1]) - fma_(m1, high[1], m0 * low[1]), g, slope[2]);
    }
}

}  // namespace hash
