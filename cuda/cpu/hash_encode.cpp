// Hash grid encoding, forward and backward. See nerf/kernels/hash_encode.py for the definition.
//
// Levels are walked one at a time, so that one level's table stays in cache. For a group of points, vector instructions
// find the eight rows of each cell and the weights along the axes; then each point sums its rows, feature by feature in
// one register.
#include <algorithm>

#include "hash_cells.h"

namespace {

using namespace hash;

// grad_table[row] += weight * grad, for one level and the points of one chunk; only rows in [begin, end) (in elements).
template <class T, int F, bool ranged>
void scatter_level(const grid::Level& level, const Chunk<T>& chunk, const T* grad, int features, int64_t stride,
                   uint32_t begin, uint32_t end, T* grad_table) {
    features = Row<T, F>::columns(features);
    CellsInOrder<T> order(level, chunk, grad_table, features);
    for (int first = 0; first < chunk.count; first += simd::lanes<T>) {
        const Cells<T>& cells = order.at(first);
        const int live = std::min(simd::lanes<T>, chunk.count - first);
        for (int j = 0; j < live; ++j) {
            for (int f = 0; f < features; f += Row<T, F>::width) {
                const auto g = Row<T, F>::load(grad + (first + j) * stride + f);
                const auto upper = g * cells.upper[0][j], lower = g * cells.lower[0][j];
                for (int k = 0; k < 8; ++k) {
                    const uint32_t row = cells.row[k][j];
                    if (ranged && (row < begin || row >= end)) continue;
                    T* to = grad_table + row + f;
                    Row<T, F>::store(
                        to, Row<T, F>::madd(k & 1 ? upper : lower, cells.weight_yz[k / 2][j], Row<T, F>::load(to)));
                }
            }
        }
    }
}

// d(loss)/dx of one level. Rows are mixed along x, then y, then z; each axis's slope is the difference that the mix
// along it leaves out.
template <class T, int F>
void slope_level(const grid::Level& level, const Chunk<T>& chunk, const T* grad, const T* table, int features,
                 int64_t stride, T* grad_x) {
    using R = Row<T, F>;
    features = Row<T, F>::columns(features);
    CellsInOrder<T> order(level, chunk, table, features);
    const T resolution = static_cast<T>(level.resolution);
    for (int first = 0; first < chunk.count; first += simd::lanes<T>) {
        const Cells<T>& cells = order.at(first);
        const int live = std::min(simd::lanes<T>, chunk.count - first);
        for (int j = 0; j < live; ++j) {
            const T lx = cells.lower[0][j], ux = cells.upper[0][j], ly = cells.lower[1][j], uy = cells.upper[1][j];
            const T lz = cells.lower[2][j], uz = cells.upper[2][j];
            T slope[3] = {};
            for (int f = 0; f < features; f += R::width) {
                typename R::type mixed[4], along_x = {};
                for (int k = 0; k < 4; ++k) {
                    const auto low = R::load(table + cells.row[2 * k][j] + f),
                               high = R::load(table + cells.row[2 * k + 1][j] + f);
                    mixed[k] = R::madd(high, ux, low * lx);
                    along_x = R::madd(high - low, cells.weight_yz[k][j], along_x);
                }
                const auto along_y = R::madd(mixed[3] - mixed[2], uz, (mixed[1] - mixed[0]) * lz);
                const auto along_z = R::madd(mixed[3], uy, mixed[2] * ly) - R::madd(mixed[1], uy, mixed[0] * ly);
                const auto g = R::load(grad + (first + j) * stride + f);
                slope[0] += R::sum(along_x * g);
                slope[1] += R::sum(along_y * g);
                slope[2] += R::sum(along_z * g);
            }
            for (int axis = 0; axis < 3; ++axis) grad_x[(first + j) * 3 + axis] += slope[axis] * resolution;
        }
    }
}

// All chunks of one level, then all of the next: every thread reads the same table for as long as it can.
template <class T, int F>
void forward(const Call<T>& call, const T* table, T* out) {
    const int64_t width = call.width(), chunks = call.chunks();
    threads::parallel_for(call.threads, chunks * call.levels, [&](int64_t task) {
        const int l = static_cast<int>(task / chunks);
        const grid::Level level = call.level(l);
        const Chunk<T> chunk(call, task % chunks);
        encode_level<T, F>(level, chunk, table + level.first * call.features, call.features,
                           out + chunk.first * width + l * call.features, width);
    });
}

// Each task owns a range of one level's rows and goes through all points in order: nothing races, and every sum has the
// same order whatever the number of threads.
template <class T, int F>
void backward_table(const Call<T>& call, const T* grad, T* grad_table) {
    const int64_t width = call.width();
    const int pieces = (call.threads + call.levels - 1) / call.levels;
    threads::parallel_for(call.threads, static_cast<int64_t>(call.levels) * pieces, [&](int64_t task) {
        // Fine levels first: they take longest.
        const int l = call.levels - 1 - static_cast<int>(task / pieces);
        const int64_t piece = task % pieces;
        const grid::Level level = call.level(l);
        const uint32_t begin = static_cast<uint32_t>(level.rows * piece / pieces * call.features);
        const uint32_t end = static_cast<uint32_t>(level.rows * (piece + 1) / pieces * call.features);
        T* to = grad_table + level.first * call.features;
        std::fill(to + begin, to + end, T(0));
        for (int64_t c = 0; c < call.chunks(); ++c) {
            const Chunk<T> chunk(call, c);
            const T* from = grad + chunk.first * width + l * call.features;
            if (pieces == 1)
                scatter_level<T, F, false>(level, chunk, from, call.features, width, begin, end, to);
            else
                scatter_level<T, F, true>(level, chunk, from, call.features, width, begin, end, to);
        }
    });
}

// A point's gradient gathers all levels, so one task takes a span of points through all of them: long enough to read
// each table but a few times, short enough to keep all threads at work.
template <class T, int F>
void backward_x(const Call<T>& call, const T* table, const T* grad, T* grad_x) {
    const int64_t width = call.width(), chunks = call.chunks();
    const int64_t span = std::max<int64_t>(1, std::min<int64_t>(32, chunks / (2 * call.threads)));
    threads::parallel_for(call.threads, (chunks + span - 1) / span, [&](int64_t task) {
        for (int l = 0; l < call.levels; ++l) {
            const grid::Level level = call.level(l);
            for (int64_t c = task * span; c < std::min(chunks, (task + 1) * span); ++c) {
                const Chunk<T> chunk(call, c);
                T* to = grad_x + chunk.first * 3;
                if (l == 0) std::fill(to, to + chunk.count * 3, T(0));
                slope_level<T, F>(level, chunk, grad + chunk.first * width + l * call.features,
                                  table + level.first * call.features, call.features, width, to);
            }
        }
    });
}

}  // namespace

#define HASH_ENCODE(T, suffix)                                                                                         \
    EXPORT const char* nerf_hash_encode_##suffix(HASH_ARGUMENTS(T), const T* table, T* out) {                          \
        return guarded([&] { with_features(features, [&](auto f) { forward<T, f()>(HASH_CALL(T), table, out); }); });  \
    }                                                                                                                  \
    EXPORT const char* nerf_hash_encode_table_##suffix(HASH_ARGUMENTS(T), const T* grad, T* grad_table) {              \
        return guarded([&] {                                                                                           \
            with_features(features, [&](auto f) { backward_table<T, f()>(HASH_CALL(T), grad, grad_table); });          \
        });                                                                                                            \
    }                                                                                                                  \
    EXPORT const char* nerf_hash_encode_x_##suffix(HASH_ARGUMENTS(T), const T* table, const T* grad, T* grad_x) {      \
        return guarded(                                                                                                \
            [&] { with_features(features, [&](auto f) { backward_x<T, f()>(HASH_CALL(T), table, grad, grad_x); }); }); \
    }

HASH_ENCODE(float, f32)
HASH_ENCODE(double, f64)
