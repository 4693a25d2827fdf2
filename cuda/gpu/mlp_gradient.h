// Gradients of weights on tensor cores: G^T H, of the gradients G by a layer's sums and of the rows H that entered it.
#pragma once

#include "mlp.h"

namespace mlp {

// Each warp of a block sums a part of G^T H over rows of both that lie in shared memory, and keeps it in registers from
// one stretch of rows to the next. Parts are 16 rows by 16 columns; a warp's are in one line of either.
template <int rows, int columns, int warps>
struct WeightGradient {
    static constexpr int lines = rows / 16, pieces = columns / 16;  // of the gradient, in parts
    static constexpr int sharing = lines < warps ? warps / lines : 1;  // warps that share a line
    static constexpr int own_lines = lines < warps ? 1 : lines / warps, own_pieces = (pieces + sharing - 1) / sharing;
    static_assert(lines < warps ? warps % lines == 0 : lines % warps == 0, "lines and warps divide one another");

    float sums[own_lines][own_pieces][2][4] = {};
    float bias[own_lines][4] = {};

    DEVICE_FN static int line(int i) { return lines < warps ? warp_index() % lines : warp_index() * own_lines + i; }
    DEVICE_FN static int piece(int j) { return warp_index() / lines * own_pieces + j; }  // lines < warps; else j

    // `length` rows of G and H, a multiple of 16.
    template <class T, int length>
    DEVICE_FN void add(const uint16_t* g, const uint16_t* h) {
        const int lane = lane_index();
        const uint32_t ones = pack<T>(1.f, 1.f);
        UNROLL
        for (int k = 0; k < length / 16; ++k) {
            uint32_t a[own_lines][4];
            UNROLL
            for (int i = 0; i < own_lines; ++i) {
                const int row = 16 * k + (lane & 7) + (lane >> 4) * 8, column = 16 * line(i) + (lane >> 3 & 1) * 8;
                load_matrices<true>(a[i], g + row * stride(rows) + column);
                mma<T>(bias[i], a[i], ones, ones);  // every column of it: the sum of G's rows
            }
            UNROLL
            for (int j = 0; j < own_pieces; ++j) {
                if (piece(j) >= pieces) continue;
                uint32_t b[4];
                load_matrices<true>(b, h + (16 * k + (lane & 15)) * stride(columns) + 16 * piece(j) + (lane >> 4) * 8);
                UNROLL
                for (int i = 0; i < own_lines; ++i)
                    mma<T>(sums[i][j][0], a[i], b[0], b[1]), mma<T>(sums[i][j][1], a[i], b[2], b[3]);
            }
        }
    }

    // Calls fn(row, column, sum, sum of the next column) for what a lane holds.
    template <class Fn>
    DEVICE_FN void each(Fn fn) const {
        UNROLL
        for (int i = 0; i < own_lines; ++i) {
            UNROLL
            for (int j = 0; j < own_pieces; ++j) {
                if (piece(j) >= pieces) continue;
                UNROLL
                for (int n = 0; n < 2; ++n) {
                    UNROLL
                    for (int h = 0; h < 2; ++h)
                        fn(16 * line(i) + row_of(h), 16 * piece(j) + column_of(2 * n), sums[i][j][n][2 * h],
                           sums[i][j][n][2 * h + 1]);
                }
            }
        }
    }

    DEVICE_FN void add_to_bias(float* vector, int height, float scale) const {
        if (!vector || piece(0) != 0 || lane_index() % 4 != 0) return;  // one of the columns, one of the warps of a line
        UNROLL
        for (int i = 0; i < own_lines; ++i) {
            UNROLL
            for (int h = 0; h < 2; ++h) {
                const int row = 16 * line(i) + row_of(h);
                if (row < height) add_to(vector + row, bias[i][2 * h] * scale);
            }
        }
    }
};

// Adds to a matrix of `height` rows, `apart` numbers apart, of which `width` columns are meant, from a row and a column
// on. `parts`: it is of a split first layer (mlp_network.h), whose columns of x1 and x2 both are of x.
template <int rows, int columns, int warps>
DEVICE_FN void add_layer(const WeightGradient<rows, columns, warps>& gradient, float* matrix, int first_row,
                         int first_column, int apart, int height, int width, bool parts, float scale) {
    gradient.each([&](int own_row, int own_column, float low, float high) {
        const int row = first_row + own_row, column = first_column + own_column;
        if (row >= height) return;
        float* to = matrix + static_cast<int64_t>(row) * apart;
        if (parts) {
            if (column < 2 * width) add_to(to + column % width, low * scale);
            if (column + 1 < 2 * width) add_to(to + (column + 1) % width, high * scale);
        } else if (column + 1 < width && reinterpret_cast<uint64_t>(to) % 8 == 0) {
            add_to(to + column, low * scale, high * scale);
        } else {
            if (column < width) add_to(to + column, low * scale);
            if (column + 1 < width) add_to(to + column + 1, high * scale);
        }
    });
}

}  // namespace mlp
