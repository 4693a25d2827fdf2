// What the passes of the hash grid share: a call's arguments, a chunk of its points, the cells of a group of points on
// one level, a row of the table as a register, and one level's features.
#pragma once

#include <algorithm>
#include <type_traits>

#include "abi.h"
#include "simd.h"
#include "threads.h"

#include "../shared/grid.h"

namespace hash {

template <class T>
struct Call {
    int threads;
    int64_t points;
    int levels, features;
    const int32_t* resolutions;
    const uint8_t* dense;
    const int64_t* first_rows;  // levels + 1
    const T* x;                 // points x 3

    static constexpr int64_t chunk = 2048;  // points that a task takes through one level
    int64_t chunks() const { return (points + chunk - 1) / chunk; }
    int64_t width() const { return static_cast<int64_t>(levels) * features; }
    grid::Level level(int l) const {
        return {resolutions[l], dense[l] != 0, static_cast<uint32_t>(first_rows[l + 1] - first_rows[l]), first_rows[l]};
    }
};

#define HASH_ARGUMENTS(T)                                                                                    \
    int threads, int64_t points, int levels, int features, const int32_t *resolutions, const uint8_t *dense, \
        const int64_t *first_rows, const T *x
#define HASH_CALL(T) \
    Call<T> { threads, points, levels, features, resolutions, dense, first_rows, x }

// The coordinates of consecutive points, axis by axis, padded to whole vectors.
template <class T>
struct Chunk {
    int64_t first;
    int count;
    alignas(64) T axis[3][Call<T>::chunk + simd::lanes<T>];

    Chunk(const Call<T>& call, int64_t index) {
        first = index * Call<T>::chunk;
        count = static_cast<int>(std::min(Call<T>::chunk, call.points - first));
        const T* from = call.x + first * 3;
        for (int i = 0; i < count; ++i)
            for (int a = 0; a < 3; ++a) axis[a][i] = from[i * 3 + a];
        for (int i = count; i % simd::lanes<T> != 0; ++i)
            for (int a = 0; a < 3; ++a) axis[a][i] = 0;
    }
};

// The cells of one vector of points on one level. Corner k is offset by (k & 1, k >> 1 & 1, k >> 2) in x, y, z.
template <class T>
struct Cells {
    using V = simd::vec<T>;
    using U = simd::uvec<T>;
    static constexpr int lanes = simd::lanes<T>;

    alignas(64) uint32_t row[8][lanes];  // first element of each corner's row
    alignas(64) T lower[3][lanes], upper[3][lanes];
    alignas(64) T weight_yz[4][lanes];  // of the corners' y and z, index k / 2

    SHARED_FN void along(const grid::Level& level, int axis, V x, U sides[2], V& low, V& high) {
        const T cells = static_cast<T>(level.resolution);
        const V position = x * cells;
        const simd::ivec<T> cell =
            __builtin_convertvector(grid::clamp_to_cells(position, simd::splat<V>(cells - 1)), simd::ivec<T>);
        high = position - __builtin_convertvector(cell, V);
        low = T(1) - high;
        const uint32_t factor = grid::factor(level, axis);
        sides[0] = (U)cell * factor;
        sides[1] = sides[0] + factor;
    }

    inline __attribute__((always_inline)) void find(const grid::Level& level, const Chunk<T>& chunk, int first,
                                                    int features) {
        U side[3][2];
        V low[3], high[3];
        for (int a = 0; a < 3; ++a) {
            along(level, a, simd::load<V>(chunk.axis[a] + first), side[a], low[a], high[a]);
            simd::store(lower[a], low[a]);
            simd::store(upper[a], high[a]);
        }
        for (int k = 0; k < 8; ++k) {
            const U x = side[0][k & 1], y = side[1][k >> 1 & 1], z = side[2][k >> 2];
            const U found = level.dense ? grid::dense_row(x, y, z) : grid::hashed_row(x, y, z, level.rows - 1);
            simd::store(row[k], found * static_cast<uint32_t>(features));
        }
        for (int k = 0; k < 4; ++k) simd::store(weight_yz[k], (k & 1 ? high[1] : low[1]) * (k >> 1 ? high[2] : low[2]));
    }
};

// The cells of a chunk, one vector of points after another; those of a vector ahead are found early and their rows
// fetched towards the cache, where the level is too large to lie in it.
template <class T>
class CellsInOrder {
public:
    CellsInOrder(const grid::Level& level, const Chunk<T>& chunk, const T* rows, int features)
        : level_(level),
          chunk_(chunk),
          rows_(rows),
          features_(features),
          large_(static_cast<int64_t>(level.rows) * features * static_cast<int64_t>(sizeof(T)) > (1 << 18)) {
        find(0);
    }
    // The cells of the points from `first` on.
    const Cells<T>& at(int first) {
        const int next = first + Cells<T>::lanes;
        if (next < chunk_.count) find(next);
        return cells_[first / Cells<T>::lanes & 1];
    }

private:
    inline __attribute__((always_inline)) void find(int first) {
        Cells<T>& cells = cells_[first / Cells<T>::lanes & 1];
        cells.find(level_, chunk_, first, features_);
        if (!large_) return;
        for (int k = 0; k < 8; ++k)
            for (int j = 0; j < Cells<T>::lanes; ++j) __builtin_prefetch(rows_ + cells.row[k][j]);
    }

    const grid::Level& level_;
    const Chunk<T>& chunk_;
    const T* rows_;
    const int features_;
    const bool large_;
    Cells<T> cells_[2];
};

// A row of F features in one register, and a pair of rows: the lower and the upper corner in x.
template <class T, int F>
struct Row {
    using type = std::conditional_t<F == 1, T, simd::vector<T, F == 1 ? 2 : F>>;
    static constexpr int width = F;
    static int columns(int features) { return F > 1 ? F : features; }  // a constant where it can be
    struct Pair {
        type low, high;
        inline __attribute__((always_inline)) Pair operator*(T s) const { return {low * s, high * s}; }
    };
    SHARED_FN type load(const T* from) { return simd::load<type>(from); }
    SHARED_FN void store(T* to, type v) { simd::store(to, v); }
    SHARED_FN type madd(type v, T weight, type sum) { return simd::fma(v, simd::splat<type>(weight), sum); }
    SHARED_FN Pair pair(const T* low, const T* high) { return {load(low), load(high)}; }
    SHARED_FN Pair madd(Pair v, T weight, Pair sum) {
        return {madd(v.low, weight, sum.low), madd(v.high, weight, sum.high)};
    }
    SHARED_FN type mix(Pair sum, T lower, T upper) { return madd(sum.high, upper, sum.low * lower); }
    SHARED_FN T sum(type v) {
        if constexpr (F == 1) {
            return v;
        } else {
            T total = v[0];
            for (int f = 1; f < F; ++f) total += v[f];
            return total;
        }
    }
};

#if defined(__SSE2__)
// Two floats are half a register: a row leaves the upper half zero, a pair fills it. (Compilers send vectors of two
// floats through the general registers.)
template <>
struct Row<float, 2> {
    using type = simd::vector<float, 4>;
    using Pair = type;
    static constexpr int width = 2;
    static int columns(int) { return 2; }
    SHARED_FN type load(const float* from) { return (type)_mm_loadl_pi(_mm_setzero_ps(), (const __m64*)from); }
    SHARED_FN void store(float* to, type v) { _mm_storel_pi((__m64*)to, v); }
    SHARED_FN type madd(type v, float weight, type sum) { return simd::fma(v, simd::splat<type>(weight), sum); }
    SHARED_FN type pair(const float* low, const float* high) {
        return (type)_mm_loadh_pi(load(low), (const __m64*)high);
    }
    SHARED_FN type mix(type sum, float lower, float upper) {
        sum = sum * (type)_mm_shuffle_ps(_mm_set1_ps(lower), _mm_set1_ps(upper), 0);
        return sum + (type)_mm_movehl_ps(sum, sum);
    }
    SHARED_FN float sum(type v) { return v[0] + v[1]; }
};
#endif

// features[p] = sum over corners of weight * row, for one level and the points of one chunk.
template <class T, int F>
void encode_level(const grid::Level& level, const Chunk<T>& chunk, const T* table, int features, T* out,
                  int64_t out_stride) {
    features = Row<T, F>::columns(features);
    CellsInOrder<T> order(level, chunk, table, features);
    for (int first = 0; first < chunk.count; first += simd::lanes<T>) {
        const Cells<T>& cells = order.at(first);
        const int live = std::min(simd::lanes<T>, chunk.count - first);
        for (int j = 0; j < live; ++j) {
            T* to = out + (first + j) * out_stride;
            for (int f = 0; f < features; f += Row<T, F>::width) {
                const T* rows = table + f;
                auto sum = Row<T, F>::pair(rows + cells.row[0][j], rows + cells.row[1][j]) * cells.weight_yz[0][j];
                for (int k = 1; k < 4; ++k) {
                    const auto pair = Row<T, F>::pair(rows + cells.row[2 * k][j], rows + cells.row[2 * k + 1][j]);
                    sum = Row<T, F>::madd(pair, cells.weight_yz[k][j], sum);
                }
                Row<T, F>::store(to + f, Row<T, F>::mix(sum, cells.lower[0][j], cells.upper[0][j]));
            }
        }
    }
}

// Calls fn with the number of features as a constant, where it has a register of its own.
template <class Fn>
void with_features(int features, Fn&& fn) {
    switch (features) {
        case 2: return fn(std::integral_constant<int, 2>());
        case 4: return fn(std::integral_constant<int, 4>());
        case 8: return fn(std::integral_constant<int, 8>());
        default: return fn(std::integral_constant<int, 1>());  // any other number, one feature at a time
    }
}

}  // namespace hash
