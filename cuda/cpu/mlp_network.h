// One call of the fused network: its shape, its weights packed for the products, and the passes over a block of rows.
//
// A block of rows goes through all layers while it lies in cache. The backward pass keeps no activations from the
// forward one: it computes a block's again, in less time than reading them back would take.
#pragma once

#include <cstring>
#include <vector>

#include "maths.h"
#include "mlp_gemm.h"

namespace activation {
using simd::exp_, simd::log1p_, simd::sincos_;
}
#include "../shared/activation.h"

namespace mlp {

using activation::Kind;

// Calls fn with the activation as a constant.
template <class Fn>
void with_activation(int kind, Fn&& fn) {
    switch (kind) {
        case Kind::relu: return fn(std::integral_constant<Kind, Kind::relu>());
        case Kind::sine: return fn(std::integral_constant<Kind, Kind::sine>());
        case Kind::softplus: return fn(std::integral_constant<Kind, Kind::softplus>());
        case Kind::sigmoid: return fn(std::integral_constant<Kind, Kind::sigmoid>());
        case Kind::exponential: return fn(std::integral_constant<Kind, Kind::exponential>());
        default: return fn(std::integral_constant<Kind, Kind::none>());
    }
}

template <class F>
struct Network {
    using real = typename F::real;
    using element = typename F::element;
    using operand = typename F::operand;

    struct Layer {
        int in, out;            // as the caller gave them
        int more;               // the network's inputs, where they enter again beside `in`; 0 elsewhere
        int in_pad, out_pad;    // whole vectors
        int64_t forward, back;  // where its packed weights begin, in vectors
        int64_t bias;           // where its padded bias begins
        int64_t gradient;       // where its weight gradient [out_pad][in_pad] begins
        int64_t more_forward, more_back, more_gradient;  // the same of the columns of the inputs that enter again
        int64_t input;          // where the elements that enter it begin within a block, per row
        int64_t slope;          // where the slopes of those begin
        int64_t hidden;         // where what its product gave begins, if it is hidden
    };

    int depth, activation, output_activation;
    bool biased;
    real omega;
    std::vector<Layer> layers;
    std::vector<operand, std::allocator<operand>> packed;
    std::vector<real> biases;
    std::vector<real> first;  // the first layer's weights unrounded, [in][out_pad], where `exact_first`
    int64_t gradients = 0;  // weights' and then biases' gradients of one task, in numbers
    int widest = 0;
    int64_t row_elements = 0, row_slopes = 0, row_hidden = 0, row_again = 0;

    // again: a flag a layer, whether the inputs enter it again; null: none.
    Network(int depth, const int32_t* widths, const uint8_t* again, const real* const* weights, const real* const* bias,
            int activation, int output_activation, double omega, bool for_backward);

    static int groups(int n) {
        constexpr int unit = F::group * F::group_unit;
        return (n + unit - 1) / unit * F::group_unit;
    }
    bool needs_slopes() const { return activation != Kind::none && activation != Kind::relu; }
    // A sine turns a coordinate that is rounded to bfloat16 into noise (omega 30, 2^-9), so what enters the first one is
    // multiplied in float32: little work, for as few columns as there are coordinates.
    bool exact_first() const { return F::group > 1 && activation == Kind::sine && depth > 1; }

private:
    void pack(const real* weight, int rows, int columns, int64_t row_stride, int64_t column_stride, operand* to);
};

// b[q][n] = weight(k = q * group + i, n) in panels; `rows` is the summed axis k. Zero beyond the edges.
template <class F>
void Network<F>::pack(const real* weight, int rows, int columns, int64_t row_stride, int64_t column_stride,
                      operand* to) {
    constexpr int wide = Product<F>::widest * lanes<real>;
    const int total = padded<real>(columns), count = groups(rows);
    for (int n0 = 0; n0 < total; n0 += wide) {
        const int width = std::min(wide, total - n0);
        element* panel = reinterpret_cast<element*>(to) + static_cast<int64_t>(n0) * count * F::group;
        for (int q = 0; q < count; ++q)
            for (int n = 0; n < width; ++n)
                for (int i = 0; i < F::group; ++i) {
                    const int k = q * F::group + i;
                    const bool inside = k < rows && n0 + n < columns;
                    *panel++ = inside ? F::narrow(weight[k * row_stride + (n0 + n) * column_stride]) : element(0);
                }
    }
}

template <class F>
Network<F>::Network(int depth, const int32_t* widths, const uint8_t* again, const real* const* weights,
                    const real* const* bias, int activation, int output_activation, double omega, bool for_backward)
    : depth(depth),
      activation(activation),
      output_activation(output_activation),
      biased(bias != nullptr),
      omega(static_cast<real>(omega)),
      layers(depth) {
    int64_t vectors = 0, numbers = 0;
    for (int l = 0; l < depth; ++l) {
        Layer& y = layers[l];
        y.in = widths[l], y.out = widths[l + 1];
        y.more = again && again[l] ? widths[0] : 0;
        y.in_pad = padded<real>(y.in), y.out_pad = padded<real>(y.out);
        const auto place = [&](int in, int64_t& forward, int64_t& back, int64_t& gradient) {
            const int64_t in_pad = padded<real>(in);
            forward = vectors, vectors += groups(in) * static_cast<int64_t>(y.out_pad) / lanes<real>;
            back = vectors, vectors += for_backward ? groups(y.out) * in_pad / lanes<real> : 0;
            gradient = gradients, gradients += y.out_pad * in_pad;
        };
        place(y.in, y.forward, y.back, y.gradient);
        place(y.more, y.more_forward, y.more_back, y.more_gradient);
        if (y.more) row_again = padded<real>(y.more);
        y.bias = numbers, numbers += y.out_pad;
        y.input = row_elements, row_elements += y.in_pad;
        y.slope = row_slopes, row_slopes += l > 0 && needs_slopes() ? y.in_pad : 0;
        y.hidden = row_hidden, row_hidden += l + 1 < depth ? y.out_pad : 0;
        widest = std::max(widest, std::max(y.in_pad, y.out_pad));
    }
    packed.resize(vectors);
    biases.assign(numbers, real(0));
    for (int l = 0; l < depth; ++l) {
        const Layer& y = layers[l];
        const int row = y.in + y.more;
        pack(weights[l], y.in, y.out, 1, row, packed.data() + y.forward);
        pack(weights[l] + y.in, y.more, y.out, 1, row, packed.data() + y.more_forward);
        if (for_backward) pack(weights[l], y.out, y.in, row, 1, packed.data() + y.back);
        if (for_backward) pack(weights[l] + y.in, y.out, y.more, row, 1, packed.data() + y.more_back);
        if (biased) std::copy(bias[l], bias[l] + y.out, biases.begin() + y.bias);
    }
    if (!exact_first()) return;
    const Layer& y = layers[0];
    first.assign(static_cast<int64_t>(y.in) * y.out_pad, real(0));
    for (int n = 0; n < y.out; ++n)
        for (int k = 0; k < y.in + y.more; ++k)  // inputs that enter again right here count for both their weights
            first[static_cast<int64_t>(k % y.in) * y.out_pad + n] += weights[0][n * (y.in + y.more) + k];
}

// Rows of a block that holds `count` of the caller's.
template <class F>
constexpr int whole_rows(int count) {
    return (count + F::row_unit - 1) / F::row_unit * F::row_unit;
}

// The buffers of one block, in a thread's scratch memory.
template <class F>
struct Block {
    using real = typename F::real;
    using element = typename F::element;

    int rows, live;         // padded to whole tiles; those that are the caller's
    element* inputs;        // what enters each layer, layer after layer, [rows][in_pad]
    real* slopes;           // of the activations that made them
    real* wide;             // [rows][widest]
    real* again;            // gradients of the inputs from where they enter again
    element *grad, *spare;  // gradients of a layer's outputs, [rows][widest]
    element *left, *right;  // gradients and inputs with the rows of a group side by side

    static int64_t bytes(const Network<F>& net, int rows) {
        return rows * (net.row_elements * sizeof(element) + (net.row_slopes + net.row_again) * sizeof(real) +
                       static_cast<int64_t>(net.widest) * (sizeof(real) + 4 * sizeof(element))) +
               7 * 64;
    }
#if defined(SIMD_AMX)
    Block(const Block&) = delete;
    ~Block() { tiles::release(); }
#endif
    Block(const Network<F>& net, int capacity, void* memory) {
        char* at = static_cast<char*>(memory);
        auto take = [&](auto*& pointer, int64_t count) {
            pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(at);
            at += (count * sizeof(*pointer) + 63) / 64 * 64;
        };
        take(inputs, capacity * net.row_elements);
        take(slopes, capacity * net.row_slopes);
        take(wide, static_cast<int64_t>(capacity) * net.widest);
        take(again, capacity * net.row_again);
        for (element** buffer : {&grad, &spare, &left, &right})
            take(*buffer, static_cast<int64_t>(capacity) * net.widest);
    }
    void set_rows(int count) {
        live = count;
        rows = whole_rows<F>(count);
    }
    element* input(const Network<F>& net, int l) const { return inputs + net.layers[l].input * rows; }
    real* slope(const Network<F>& net, int l) const { return slopes + net.layers[l].slope * rows; }
};

}  // namespace mlp
