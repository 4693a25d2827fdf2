// The layers of small networks on tensor cores, for a warp and 16 rows at a time.
//
// Weights lie in shared memory, rounded to T (Float16 or Bfloat16); activations stay in registers from layer to layer,
// since the sums of one product, packed, are the operand of the next (device.h, `mma`). A network of one hidden layer:
//
//     uint16_t* weights = shared_memory<uint16_t>();              // matrix_size(64, 32) numbers,
//     uint16_t* last = weights + matrix_size(64, 32);             // matrix_size(16, 64),
//     float* bias = reinterpret_cast<float*>(last + matrix_size(16, 64));  // and 64 + 16
//     stage<T, 64, 32>(weights, args.weight[0], 32, 64, 32);      // by the whole block
//     stage<T, 16, 64>(last, args.weight[1], 64, 16, 64);
//     stage_bias<64>(bias, args.bias[0], 64), stage_bias<16>(bias + 64, args.bias[1], 16);
//     barrier();
//     const Rows<32> x = load_rows<T, 32>(args.x, first, args.count, 32);  // or take_rows, from shared memory
//     Sums<64> sums = start<64>(bias);
//     multiply<T>(sums, x, weights);
//     const Rows<64> hidden = activate<T>(sums, activation::relu, 0.f);
//     Sums<16> out = start<16>(bias + 64);
//     multiply<T>(out, hidden, last);
//     apply(out, activation::sigmoid, 0.f);
//     store_rows(args.out, out, first, args.count, 16);
//
// Numbers of columns and rows are padded to multiples of 16, with weights of zero.
#pragma once

#include "maths.h"

namespace mlp {

// 16 rows of a warp, rounded: what enters a layer. A lane holds what `mma` takes as its `a`, for every 16 columns.
template <int columns>
struct Rows {
    static_assert(columns % 16 == 0, "columns come by 16");
    uint32_t part[columns / 16][4];
};
// 16 rows of a warp in float32: what leaves a layer. A lane holds what `mma` takes as its `sums`, for every 8 columns.
template <int columns>
struct Sums {
    static_assert(columns % 16 == 0, "columns come by 16");
    float tile[columns / 8][4];
};

// Where a lane's numbers are within 16 rows and 16 columns: row(i), row(i) for part[][i]'s two numbers at column(i) and
// the one after it; of tile[][2h], tile[][2h + 1] at row(h), within 8 columns at column(0).
DEVICE_FN int row_of(int i) { return (lane_index() >> 2) + 8 * (i & 1); }
DEVICE_FN int column_of(int i) { return 2 * (lane_index() & 3) + 8 * (i >> 1); }

// --- shared memory: matrices of 16-bit numbers, by rows that are an odd number of 16-byte pieces apart, so that the eight
// rows which an instruction reads are in different banks.

constexpr DEVICE_FN int stride(int columns) { return columns + 8; }
constexpr DEVICE_FN int matrix_size(int rows, int columns) { return rows * stride(columns); }  // in numbers

// A part of a float32 matrix whose rows are `apart`, rounded; zero where it has fewer than the padded rows and columns.
template <class T, int padded_rows, int padded_columns>
DEVICE_FN void stage(uint16_t* to, const float* from, int apart, int rows, int columns) {
    constexpr int pairs = padded_columns / 2;
    for (int i = thread_index(); i < padded_rows * pairs; i += block_threads()) {
        const int row = i / pairs, column = i % pairs * 2;
        const float* place = from + static_cast<int64_t>(row) * apart + column;
        const float low = row < rows && column < columns ? place[0] : 0.f;
        const float high = row < rows && column + 1 < columns ? place[1] : 0.f;
        *reinterpret_cast<uint32_t*>(to + row * stride(padded_columns) + column) = pack<T>(low, high);
    }
}

// As many float32 numbers as there are padded rows; zero beyond `count`, and all of them without a bias.
template <int padded>
DEVICE_FN void stage_bias(float* to, const float* bias, int count) {
    for (int i = thread_index(); i < padded; i += block_threads()) to[i] = bias && i < count ? bias[i] : 0.f;
}

// A warp's rows, from and to shared memory.
template <int columns>
DEVICE_FN void put_rows(uint16_t* to, const Rows<columns>& rows) {
    UNROLL
    for (int k = 0; k < columns / 16; ++k) {
        UNROLL
        for (int i = 0; i < 4; ++i)
            *reinterpret_cast<uint32_t*>(to + row_of(i) * stride(columns) + 16 * k + column_of(i)) = rows.part[k][i];
    }
}
template <int columns>
DEVICE_FN Rows<columns> take_rows(const uint16_t* from) {
    Rows<columns> rows;
    UNROLL
    for (int k = 0; k < columns / 16; ++k)
        load_matrices<false>(rows.part[k],
                             from + (lane_index() & 15) * stride(columns) + 16 * k + (lane_index() >> 4) * 8);
    return rows;
}

// --- products

// Sums to add to: a staged bias in every row, or zero.
template <int columns>
DEVICE_FN Sums<columns> start(const float* bias) {
    Sums<columns> sums;
    UNROLL
    for (int n = 0; n < columns / 8; ++n) {
        const float2 pair = *reinterpret_cast<const float2*>(bias + 8 * n + column_of(0));
        sums.tile[n][0] = sums.tile[n][2] = pair.x, sums.tile[n][1] = sums.tile[n][3] = pair.y;
    }
    return sums;
}
template <int columns>
DEVICE_FN Sums<columns> zero() {
    Sums<columns> sums;
    UNROLL
    for (int n = 0; n < columns / 8; ++n) sums.tile[n][0] = sums.tile[n][1] = sums.tile[n][2] = sums.tile[n][3] = 0.f;
    return sums;
}

// sums += rows W^T of a matrix W[out][in] in shared memory.
template <class T, int in, int out>
DEVICE_FN void multiply(Sums<out>& sums, const Rows<in>& rows, const uint16_t* matrix) {
    const int lane = lane_index();
    const uint16_t* place = matrix + ((lane & 7) + (lane >> 4) * 8) * stride(in) + (lane >> 3 & 1) * 8;
    UNROLL
    for (int n = 0; n < out / 16; ++n) {
        UNROLL
        for (int k = 0; k < in / 16; ++k) {
            uint32_t b[4];
            load_matrices<false>(b, place + n * 16 * stride(in) + k * 16);
            mma<T>(sums.tile[2 * n], rows.part[k], b[0], b[1]);
            mma<T>(sums.tile[2 * n + 1], rows.part[k], b[2], b[3]);
        }
    }
}

// sums += rows W of a matrix W[out][in] in shared memory: the gradient by what entered a layer, from that by its sums.
template <class T, int out, int in>
DEVICE_FN void multiply_back(Sums<in>& sums, const Rows<out>& rows, const uint16_t* matrix) {
    const int lane = lane_index();
    const uint16_t* place = matrix + (lane & 15) * stride(in) + (lane >> 4) * 8;
    UNROLL
    for (int n = 0; n < in / 16; ++n) {
        UNROLL
        for (int k = 0; k < out / 16; ++k) {
            uint32_t b[4];
            load_matrices<true>(b, place + k * 16 * stride(in) + n * 16);
            mma<T>(sums.tile[2 * n], rows.part[k], b[0], b[1]);
            mma<T>(sums.tile[2 * n + 1], rows.part[k], b[2], b[3]);
        }
    }
}

// --- activations; `kind` is an activation::Kind, and a constant wherever speed matters

DEVICE_FN activation::Result<float> value_and_slope(int kind, float z, float omega) {
    switch (kind) {
        case activation::relu: return activation::apply<activation::relu>(z, omega);
        case activation::sine: return activation::apply<activation::sine>(z, omega);
        case activation::softplus: return activation::apply<activation::softplus>(z, omega);
        case activation::sigmoid: return activation::apply<activation::sigmoid>(z, omega);
        case activation::exponential: return activation::apply<activation::exponential>(z, omega);
        default: return activation::apply<activation::none>(z, omega);
    }
}

template <int columns>
DEVICE_FN void apply(Sums<columns>& sums, int kind, float omega) {
    UNROLL
    for (int n = 0; n < columns / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) sums.tile[n][i] = value_and_slope(kind, sums.tile[n][i], omega).value;
    }
}

template <class T, int columns>
DEVICE_FN Rows<columns> round(const Sums<columns>& sums) {
    Rows<columns> rows;
    UNROLL
    for (int k = 0; k < columns / 16; ++k) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const float* pair = sums.tile[2 * k + (i >> 1)] + 2 * (i & 1);
            rows.part[k][i] = pack<T>(pair[0], pair[1]);
        }
    }
    return rows;
}

template <class T, int columns>
DEVICE_FN Rows<columns> activate(Sums<columns> sums, int kind, float omega) {
    apply(sums, kind, omega);
    return round<T>(sums);
}

// Values, and rounded slopes for the way back.
template <class T, int columns>
DEVICE_FN Rows<columns> activate(Sums<columns> sums, int kind, float omega, Rows<columns>& slopes) {
    Sums<columns> steep;
    UNROLL
    for (int n = 0; n < columns / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const activation::Result<float> both = value_and_slope(kind, sums.tile[n][i], omega);
            sums.tile[n][i] = both.value, steep.tile[n][i] = both.slope;
        }
    }
    slopes = round<T>(steep);
    return round<T>(sums);
}

template <int columns>
DEVICE_FN void scale_by(Sums<columns>& sums, float scale) {
    UNROLL
    for (int n = 0; n < columns / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) sums.tile[n][i] *= scale;
    }
}
template <class T, int columns>
DEVICE_FN void scale_by(Sums<columns>& sums, const Rows<columns>& slopes) {
    UNROLL
    for (int k = 0; k < columns / 16; ++k) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            float* pair = sums.tile[2 * k + (i >> 1)] + 2 * (i & 1);
            pair[0] *= widen<T>(static_cast<uint16_t>(slopes.part[k][i]));
            pair[1] *= widen<T>(static_cast<uint16_t>(slopes.part[k][i] >> 16));
        }
    }
}

// --- global memory: float32 rows, `columns` long, of which there are `count`. Rows beyond are zero, and not written.

DEVICE_FN float2 read_pair(const float* row, int column, int columns) {
    if (columns % 2 == 0 && column + 1 < columns) return *reinterpret_cast<const float2*>(row + column);
    return make_float2(column < columns ? row[column] : 0.f, column + 1 < columns ? row[column + 1] : 0.f);
}
DEVICE_FN void write_pair(float* row, int column, int columns, float low, float high) {
    if (columns % 2 == 0 && column + 1 < columns) {
        *reinterpret_cast<float2*>(row + column) = make_float2(low, high);
    } else {
        if (column < columns) row[column] = low;
        if (column + 1 < columns) row[column + 1] = high;
    }
}

template <class T, int padded>
DEVICE_FN Rows<padded> load_rows(const float* x, int64_t first, int64_t count, int columns) {
    Rows<padded> rows;
    UNROLL
    for (int i = 0; i < 4; ++i) {
        const int64_t row = first + row_of(i);
        UNROLL
        for (int k = 0; k < padded / 16; ++k) {
            float2 pair = make_float2(0.f, 0.f);
            if (row < count) pair = read_pair(x + row * columns, 16 * k + column_of(i), columns);
            rows.part[k][i] = pack<T>(pair.x, pair.y);
        }
    }
    return rows;
}

template <int padded>
DEVICE_FN Sums<padded> load_sums(const float* x, int64_t first, int64_t count, int columns) {
    Sums<padded> sums;
    UNROLL
    for (int h = 0; h < 2; ++h) {
        const int64_t row = first + row_of(h);
        UNROLL
        for (int n = 0; n < padded / 8; ++n) {
            float2 pair = make_float2(0.f, 0.f);
            if (row < count) pair = read_pair(x + row * columns, 8 * n + column_of(0), columns);
            sums.tile[n][2 * h] = pair.x, sums.tile[n][2 * h + 1] = pair.y;
        }
    }
    return sums;
}

template <int padded>
DEVICE_FN void store_rows(float* out, const Sums<padded>& sums, int64_t first, int64_t count, int columns) {
    UNROLL
    for (int h = 0; h < 2; ++h) {
        const int64_t row = first + row_of(h);
        if (row >= count) continue;
        UNROLL
        for (int n = 0; n < padded / 8; ++n)
            write_pair(out + row * columns, 8 * n + column_of(0), columns, sums.tile[n][2 * h], sums.tile[n][2 * h + 1]);
    }
}

}  // namespace mlp
