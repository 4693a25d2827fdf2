// Hash grid encoding, forward and backward. See nerf/kernels/hash_encode.py for the definition.
//
// A thread takes one point through one level; blocks of one level run beside each other, so that its table stays in the
// L2 cache. Gradients of the table are added by atomics: the order of the sums, and so their last bits, vary from run to
// run. Everything else is the same in every run.
#include "hash_cell.h"

namespace hash {

struct HashArgs {
    const float* x;      // points x 3
    const float* table;  // rows of all levels
    const float* grad;   // points x width; of the result
    float* out;          // forward: points x width; backward: like table, zeroed by the caller; or like x
    int64_t points;
    int32_t levels, features;
    Levels grid;
};

// Calls fn(cell, first number of the level's table, first of its columns among the point's); `lanes` threads have a point.
template <int lanes, class Fn>
DEVICE_FN void at_point_and_level(const HashArgs& args, Fn&& fn) {
    const int64_t point = global_thread() / lanes;
    if (point >= args.points) return;
    const int l = block_index_y();
    const grid::Level level = args.grid.level[l];
    const int64_t column = point * args.levels * args.features + l * args.features;
    fn(find_cell(level, args.x + 3 * point), level.first * args.features, column);
}

// F features at a time; F is 1 where the grid's number of features is none of 1, 2, 4, 8.
template <int F>
DEVICE_FN void forward(const HashArgs& args) {
    at_point_and_level<1>(args, [&](const Cell& cell, int64_t first, int64_t column) {
        for (int f = 0; f < args.features; f += F)
            *reinterpret_cast<Row<F>*>(args.out + column + f) =
                encode_cell<F>(cell, args.table + first + f, args.features);
    });
}

// With one lane a point, a row's features are added at once. Where a GPU has no such instruction, as many lanes as there
// are features have a point, so that those of a row are still added by one transaction.
template <int F, int lanes>
DEVICE_FN void backward_table(const HashArgs& args) {
    constexpr int own = F / lanes;
    at_point_and_level<lanes>(args, [&](const Cell& cell, int64_t first, int64_t column) {
        for (int f = own * (thread_index() % lanes); f < args.features; f += F) {
            const Row<own> grad = load_row<own>(args.grad + column + f);
            bool any = false;
            for (int i = 0; i < own; ++i) any |= grad.f[i] != 0;
            if (!any) continue;  // as where samples of no length fill a look's room
            float* const rows = args.out + first + f;
            for (int k = 0; k < 8; ++k) {
                const float weight = (k & 1 ? cell.upper[0] : cell.lower[0]) * cell.weight_yz(k >> 1);
                Row<own> share;
                for (int i = 0; i < own; ++i) share.f[i] = grad.f[i] * weight;
                add_row(rows + static_cast<int64_t>(cell.row[k]) * args.features, share);
            }
        }
    });
}

// A point's gradient gathers all levels, in order.
template <int F>
DEVICE_FN void backward_x(const HashArgs& args) {
    const int64_t point = global_thread();
    if (point >= args.points) return;
    const float *x = args.x + 3 * point, *grad = args.grad + point * args.levels * args.features;
    float sum[3] = {};
    for (int l = 0; l < args.levels; ++l) {
        const grid::Level level = args.grid.level[l];
        const Cell cell = find_cell(level, x);
        float slope[3] = {};
        for (int f = 0; f < args.features; f += F)
            add_slope<F>(cell, args.table + level.first * args.features + f, args.features,
                         load_row<F>(grad + l * args.features + f), slope);
        for (int a = 0; a < 3; ++a) sum[a] = fma_(slope[a], static_cast<float>(level.resolution), sum[a]);
    }
    for (int a = 0; a < 3; ++a) args.out[3 * point + a] = sum[a];
}

#define HASH_KERNELS(F) \
    KERNEL(hash_encode_##F, HashArgs, 128) { forward<F>(args); } \
    KERNEL(hash_encode_table_##F, HashArgs, 128) { backward_table<F, 1>(args); } \
    KERNEL(hash_encode_table_lanes_##F, HashArgs, 128) { backward_table<F, F>(args); } \
    KERNEL_OF_BLOCKS(hash_encode_x_##F, HashArgs, 128, 4) { backward_x<F>(args); }

HASH_KERNELS(1)
HASH_KERNELS(2)
HASH_KERNELS(4)
HASH_KERNELS(8)

}  // namespace hash
