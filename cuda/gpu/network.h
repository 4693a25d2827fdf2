// A perceptron with rectified hidden layers, asked by one warp at a time: 16 rows go through all layers in shared memory.
//
// For kernels that come by their rows themselves and do other work between networks. Shapes are numbers, not macros: one
// compiled kernel serves every field. What is rounded is what the fused network rounds (mlp.h): weights, and what enters
// each layer; sums are float32.
#pragma once

#include "device.h"

namespace network {

constexpr int most_layers = 8;
constexpr int skew = 8;  // numbers between rows, so that eight rows' sixteen bytes lie in different banks

struct Layer {
    const float *weight, *bias;  // out x in, and out
    int32_t in, out;
    int32_t weights_at, biases_at;  // bytes of shared memory before them
};
struct Network {
    Layer layer[most_layers];
    int32_t depth;
};

DEVICE_FN float rectified(float x) { return x <= 0 ? 0.f : x; }  // a NaN stays one
DEVICE_FN int padded(int n) { return (n + 15) / 16 * 16; }

// The block's threads put a network's parameters into shared memory, rounded, zero beyond the edges.
template <class T>
DEVICE_FN void stage(const Network& network) {
    for (int l = 0; l < network.depth; ++l) {
        const Layer layer = network.layer[l];
        const int in = padded(layer.in), out = padded(layer.out), pairs = in / 2;
        uint32_t* const to = shared_memory<uint32_t>(layer.weights_at);
        for (int i = thread_index(); i < out * pairs; i += block_threads()) {
            const int row = i / pairs, column = i % pairs * 2;
            const float* const from = layer.weight + row * layer.in + column;
            const float low = row < layer.out && column < layer.in ? from[0] : 0.f;
            const float high = row < layer.out && column + 1 < layer.in ? from[1] : 0.f;
            to[row * ((in + skew) / 2) + column / 2] = pack<T>(low, high);
        }
        float* const biases = shared_memory<float>(layer.biases_at);
        for (int i = thread_index(); i < out; i += block_threads()) biases[i] = i < layer.out ? layer.bias[i] : 0.f;
    }
}

// One layer of 16 rows, `stride` numbers apart. Calls store(row, column, its number, that of the next column) for the
// lane's share of the padded sums, biases added; columns are even.
template <class T, class Store>
DEVICE_FN void ask(const Layer& layer, const uint16_t* rows, int stride, Store&& store) {
    const int lane = lane_index(), in = padded(layer.in), out = padded(layer.out);
    const uint16_t* const left = rows + (lane & 15) * stride + (lane >> 4) * 8;
    const uint16_t* const right = shared_memory<uint16_t>(layer.weights_at) +
                                  ((lane & 7) + (lane >> 4) * 8) * (in + skew) + (lane >> 3 & 1) * 8;
    const float* const biases = shared_memory<float>(layer.biases_at);
    for (int n = 0; n < out; n += 16) {
        float sums[2][4] = {};
        for (int k = 0; k < in; k += 16) {
            uint32_t a[4], b[4];
            load_matrices<false>(a, left + k);
            load_matrices<false>(b, right + n * (in + skew) + k);
            mma<T>(sums[0], a, b[0], b[1]);
            mma<T>(sums[1], a, b[2], b[3]);
        }
        UNROLL
        for (int half = 0; half < 2; ++half) {
            const int row = lane >> 2, column = n + 8 * half + 2 * (lane & 3);
            const float low = biases[column], high = biases[column + 1];
            store(row, column, sums[half][0] + low, sums[half][1] + high);
            store(row + 8, column, sums[half][2] + low, sums[half][3] + high);
        }
    }
}

// The rows of a warp: three slots of 16 rows, two of which hold 32 rows at any time. A layer's results go to the slot that
// is free, which frees the one that they are made from.
struct Rows {
    uint16_t* slots;
    int stride;
    int first = 0;  // slot of rows 0 to 15; the next one has the others

    DEVICE_FN uint16_t* slot(int half) const { return slots + (first + half) % 3 * 16 * stride; }
    DEVICE_FN uint16_t* row(int r) const { return slot(r >> 4) + (r & 15) * stride; }
};

// Takes 32 rows through a network. The last layer's numbers go to last(row, column, number, that of the next column, the
// slot that a row is to be kept in). Halves of the rows that `wanted` has no bit of are left out.
template <class T, class Last>
DEVICE_FN void forward(const Network& network, Rows& rows, uint32_t wanted, Last&& last) {
    warp_barrier();
    for (int l = 0; l < network.depth; ++l) {
        const bool ends = l == network.depth - 1;
        for (int half = 0; half < 2; ++half) {
            if ((wanted >> 16 * half & 0xffff) == 0) continue;
            uint16_t* const to = rows.slot(half == 0 ? 2 : 0);
            ask<T>(network.layer[l], rows.slot(half), rows.stride, [&](int row, int column, float low, float high) {
                if (ends)
                    last(16 * half + row, column, low, high, to);
                else
                    *reinterpret_cast<uint32_t*>(to + row * rows.stride + column) =
                        pack<T>(rectified(low), rectified(high));
            });
            warp_barrier();
        }
        rows.first = (rows.first + 2) % 3;
    }
}

}  // namespace network
