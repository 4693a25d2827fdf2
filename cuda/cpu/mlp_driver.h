// What the entry points of the fused network share: number formats, blocks of rows, and a reduction of weight gradients
// that does not depend on how many threads there are.
#pragma once

#include "abi.h"
#include "mlp_passes.h"
#include "threads.h"

namespace mlp {

enum Format { float32, bfloat16, float64 };  // nerf.kernels.cpu passes these

// Hands the network's gradients, number `at` of which is total(at), to the arrays of the caller's shapes.
template <class F, class Total>
void give_gradients(int threads, const Network<F>& net, typename F::real* const* grad_weights,
                    typename F::real* const* grad_biases, Total&& total) {
    using real = typename F::real;
    threads::parallel_for(threads, net.depth, [&](int64_t l) {
        const auto& y = net.layers[l];
        const int64_t again_pad = net.layers[0].in_pad;
        for (int n = 0; n < y.out; ++n) {
            real* row = grad_weights[l] + n * (y.in + y.more);
            for (int k = 0; k < y.in; ++k) row[k] = total(y.gradient + static_cast<int64_t>(n) * y.in_pad + k);
            for (int k = 0; k < y.more; ++k) row[y.in + k] = total(y.more_gradient + n * again_pad + k);
            if (net.biased) grad_biases[l][n] = total(net.gradients + y.bias + n);
        }
    });
}

// Calls task(accumulator, first block, end of blocks, sums) for accumulators that follow from the call alone, each filled
// in order by one thread, and adds them in order: the same bits for any number of threads. `sums` holds `extra` numbers
// of the caller's after the network's gradients; their totals go to `extras`.
template <class F, class Fn>
void reduce_gradients(int threads, const Network<F>& net, int64_t blocks, typename F::real* const* grad_weights,
                      typename F::real* const* grad_biases, int extra, typename F::real* extras, Fn&& task) {
    using real = typename F::real;
    const int64_t accumulators = std::max<int64_t>(1, std::min<int64_t>(64, blocks / 8));
    const int64_t numbers = grad_weights ? net.gradients + static_cast<int64_t>(net.biases.size()) : 0;
    const int64_t size = (numbers + extra + 15) / 16 * 16;  // whole cache lines
    std::vector<real> sums(accumulators * size, real(0));
    threads::parallel_for(threads, accumulators, [&](int64_t a) {
        real* own = sums.data() + a * size;
        task(blocks * a / accumulators, blocks * (a + 1) / accumulators, numbers ? own : nullptr, own + numbers);
    });
    const auto total = [&](int64_t at) {
        real sum = 0;
        for (int64_t a = 0; a < accumulators; ++a) sum += sums[a * size + at];
        return sum;
    };
    for (int i = 0; i < extra; ++i) extras[i] = total(numbers + i);
    if (numbers) give_gradients(threads, net, grad_weights, grad_biases, total);
}

// Rows of a block: as many as keep its buffers within a part of L2, but enough to pay for reading the weights. Products of
// bfloat16 are so fast that a wide layer's weight gradient, read and written once a block, wants longer blocks than that.
template <class F>
int block_rows(const Network<F>& net) {
    const bool fast_and_wide = F::group > 1 && net.widest > 64;
    const int most = fast_and_wide ? 256 : 128;
    const int64_t budget = fast_and_wide ? 1024 * 1024 : 256 * 1024;
    int rows = 32;
    while (rows < most && Block<F>::bytes(net, rows * 2) <= budget) rows *= 2;
    return rows;
}

// All rows of a call, or a task's share of them, block by block on this thread.
template <class F>
void forward_rows(const Network<F>& net, int64_t points, const typename F::real* x, typename F::real* out) {
    const int rows = block_rows(net), in = net.layers.front().in, width = net.layers.back().out;
    Block<F> block(net, rows, threads::scratch(Block<F>::bytes(net, rows)));
    for (int64_t p = 0; p < points; p += rows) {
        block.set_rows(static_cast<int>(std::min<int64_t>(rows, points - p)));
        forward_block(net, block, x + p * in, out + p * width);
    }
}

struct Shape {  // as the entry points take it
    int depth;
    const int32_t* widths;
    const uint8_t* again;  // a flag a layer, whether the inputs enter it again; null: none
    int activation, output_activation;
    double omega;
};

// Calls fn with the format's type, or returns what is missing.
template <class Fn>
const char* with_format(int format, Fn&& fn) {
    switch (format) {
        case float32: return guarded([&] { fn(Plain<float>()); });
        case float64: return guarded([&] { fn(Plain<double>()); });
#if defined(__AVX512BF16__)
        case bfloat16: return guarded([&] { fn(BFloat16()); });
#endif
        default: return "this build can't multiply bfloat16 numbers";
    }
}

template <class F>
Network<F> network(const Shape& s, const void* const* weights, const void* const* biases, bool for_backward) {
    using P = const typename F::real* const*;
    return Network<F>(s.depth, s.widths, s.again, reinterpret_cast<P>(weights), reinterpret_cast<P>(biases),
                      s.activation, s.output_activation, s.omega, for_backward);
}

}  // namespace mlp
