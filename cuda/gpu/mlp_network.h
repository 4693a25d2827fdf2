// One network as its kernels see it: its padded shape, known when they are compiled, and where its layers lie in shared
// memory. See nerf/kernels/mlp.py for the definition, and nerf/kernels/cuda_mlp.py for who chooses these options.
#pragma once

#include "mlp.h"

#if !defined(MLP_FORMAT)
#define MLP_FORMAT Float16  // or Bfloat16: what the products' operands are rounded to
#endif
#if !defined(MLP_WIDTH)
#define MLP_INPUT 32             // columns of x, padded to a multiple of 16
#define MLP_WIDTH 64             // columns between layers, padded: 16, 32, 64 or 128
#define MLP_OUTPUT 16            // columns of the result, padded likewise
#define MLP_LAYERS 3
#define MLP_SKIPS 0              // bit l: x enters layer l again
#define MLP_ACTIVATION 1         // an activation::Kind
#define MLP_OUTPUT_ACTIVATION 0
#define MLP_EXACT 0              // whether the first layer's operands are rounded to twice the bits, see `split`
#endif

namespace mlp {

using Format = MLP_FORMAT;
constexpr int input = MLP_INPUT, width = MLP_WIDTH, output = MLP_OUTPUT, layers = MLP_LAYERS;
constexpr int hidden_kind = MLP_ACTIVATION, output_kind = MLP_OUTPUT_ACTIVATION;
constexpr unsigned skips = MLP_SKIPS;
constexpr bool exact = MLP_EXACT;
constexpr int most_layers = 16;
static_assert(layers >= 1 && layers <= most_layers, "as many layers as Network has places for");

struct Network {
    const float* weight[most_layers];  // [rows][columns], of the layer before and then of x where that enters again
    const float* bias[most_layers];    // null: none
    const float* x;                    // [count][inputs]
    int64_t count;
    int32_t rows[most_layers];         // of each layer's matrix
    int32_t inputs;
    float omega;
};

DEVICE_FN constexpr bool enters_again(int layer) { return skips >> layer & 1; }
DEVICE_FN int columns_of(const Network& net, int layer) { return layer ? net.rows[layer - 1] : net.inputs; }

// A coordinate that is rounded to 11 bits turns a sine of many periods into noise. So the first layer of a sine network
// takes x = x1 + x2 and W = W1 + W2, each part rounded, and the products x1 W1 + x2 W1 + x1 W2: to 22 bits, by
// three times the columns, of which there are few. Column c of either operand is of part c / inputs.
template <bool weight>
DEVICE_FN float split(const float* row, int column, int inputs) {
    const int part = column / inputs;
    if (part > 2) return 0.f;
    const float whole = row[column - part * inputs];
    const float rounded = widen<Format>(static_cast<uint16_t>(pack<Format>(whole, 0.f)));
    return part == (weight ? 2 : 1) ? whole - rounded : rounded;
}

template <bool weight>
DEVICE_FN uint32_t split_pair(const float* row, int column, int inputs, bool there) {
    return there ? pack<Format>(split<weight>(row, column, inputs), split<weight>(row, column + 1, inputs)) : 0u;
}

DEVICE_FN Rows<input> load_input(const Network& net, int64_t first) {
    Rows<input> rows;
    if constexpr (exact) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const int64_t row = first + row_of(i);
            UNROLL
            for (int k = 0; k < input / 16; ++k)
                rows.part[k][i] = split_pair<false>(net.x + row * net.inputs, 16 * k + column_of(i), net.inputs,
                                                    row < net.count);
        }
    } else {
        rows = load_rows<Format, input>(net.x, first, net.count, net.inputs);
    }
    return rows;
}

// --- shared memory: matrices, then biases. All of them where they fit, otherwise one layer's at a time.

// Numbers of a layer's matrix, with what it has for x where that enters again.
DEVICE_FN constexpr int layer_size(int layer) {
    const int rows = layer == layers - 1 ? output : width;
    return matrix_size(rows, layer ? width : input) + (enters_again(layer) ? matrix_size(rows, input) : 0);
}
DEVICE_FN constexpr int sizes(bool every) {
    int sum = 0, largest = 0;
    for (int layer = 0; layer < layers; ++layer) {
        sum += layer_size(layer);
        if (layer_size(layer) > largest) largest = layer_size(layer);
    }
    return every ? sum : largest;
}
constexpr int bias_count = width * (layers - 1) + output;  // also where they come by layers: they are few
constexpr int resident_bytes = 96 * 1024;

// The block's copy of the network. `resident`: all layers are staged once; otherwise each when it is asked for.
template <bool resident>
struct Staged {
    uint16_t* matrices;
    float* biases;

    // Takes the first `bytes()` of the block's shared memory.
    static constexpr int matrix_bytes = sizes(resident) * 2;
    static constexpr int bytes = matrix_bytes + bias_count * 4;

    DEVICE_FN explicit Staged(const Network& net)
        : matrices(shared_memory<uint16_t>()), biases(shared_memory<float>(matrix_bytes)) {
        for (int layer = 0; layer < layers - 1; ++layer)
            stage_bias<width>(biases + layer * width, net.bias[layer], net.rows[layer]);
        stage_bias<output>(biases + (layers - 1) * width, net.bias[layers - 1], net.rows[layers - 1]);
        if constexpr (resident) {
            int before = 0;
            for (int layer = 0; layer < layers; ++layer) {
                copy(net, layer, matrices + before);
                before += layer_size(layer);
            }
        }
        barrier();
    }

    // A layer's matrix; every thread of the block asks for the same one.
    DEVICE_FN const uint16_t* layer(const Network& net, int layer) const {
        if constexpr (resident) {
            int before = 0;
            UNROLL
            for (int l = 0; l < layers; ++l) before += l < layer ? layer_size(l) : 0;
            return matrices + before;
        }
        barrier();  // others may still read the one before
        copy(net, layer, matrices);
        barrier();
        return matrices;
    }
    DEVICE_FN const float* bias(int layer) const { return biases + layer * width; }

private:
    DEVICE_FN static void copy(const Network& net, int layer, uint16_t* to) {
        if (layer == 0)
            copy_rows<layers == 1 ? output : width, input>(net, layer, to);
        else if (layer == layers - 1)
            copy_rows<output, width>(net, layer, to);
        else
            copy_rows<width, width>(net, layer, to);
    }
    template <int rows, int columns>
    DEVICE_FN static void copy_rows(const Network& net, int layer, uint16_t* to) {
        const int own = columns_of(net, layer), apart = own + (enters_again(layer) ? net.inputs : 0);
        if (exact && layer == 0) {
            for (int i = thread_index(); i < rows * columns / 2; i += block_threads()) {
                const int row = i / (columns / 2), column = i % (columns / 2) * 2;
                *reinterpret_cast<uint32_t*>(to + row * stride(columns) + column) =
                    split_pair<true>(net.weight[0] + row * own, column, own, row < net.rows[0]);
            }
        } else {
            stage<Format, rows, columns>(to, net.weight[layer], apart, net.rows[layer], own);
        }
        if (enters_again(layer))
            stage<Format, rows, input>(to + matrix_size(rows, columns), net.weight[layer] + own, apart,
                                       net.rows[layer], net.inputs);
    }
};

// A layer but the first: its sums for what came from the layer before, and for x where that enters again.
template <int out, bool resident>
DEVICE_FN Sums<out> next_layer(const Network& net, const Staged<resident>& staged, int layer, const Rows<width>& rows,
                               int64_t first) {
    const uint16_t* matrix = staged.layer(net, layer);
    Sums<out> sums = start<out>(staged.bias(layer));
    multiply<Format>(sums, rows, matrix);
    if (enters_again(layer)) multiply<Format>(sums, load_input(net, first), matrix + matrix_size(out, width));
    return sums;
}

// --- the way back

// Gradients may be far below the smallest number of float16, or above the largest, whatever the loss was divided by. So
// they are multiplied by a power of two that brings the largest to [1, 2), and what comes out is divided by it.
struct Scale {
    float up, down;
};
// largest: of the gradients' magnitudes; null: they stay as they are.
DEVICE_FN Scale scale_of(const float* largest) {
    if (!largest) return {1.f, 1.f};
    const int exponent = static_cast<int>(float_bits(*largest) >> 23);  // of a number at least 0
    const int up = exponent < 2 ? 252 : exponent > 252 ? 2 : 254 - exponent;
    return {bits_float(static_cast<uint32_t>(up) << 23), bits_float(static_cast<uint32_t>(254 - up) << 23)};
}

// The gradient by the last layer's sums, rounded.
DEVICE_FN Rows<output> last_gradient(const float* grad, Scale scale, const Network& net, const Sums<output>& sums,
                                     int64_t first) {
    Sums<output> above = load_sums<output>(grad, first, net.count, net.rows[layers - 1]);
    UNROLL
    for (int n = 0; n < output / 8; ++n) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            const float slope = value_and_slope(output_kind, sums.tile[n][i], net.omega).slope;
            // A slope may be infinite where biases alone make it so: in rows that there are none of.
            above.tile[n][i] = first + row_of(i >> 1) < net.count ? above.tile[n][i] * (scale.up * slope) : 0.f;
        }
    }
    return round<Format>(above);
}

}  // namespace mlp
