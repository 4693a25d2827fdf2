// The fused network's entry points: blocks of rows over threads, and a reduction of weight gradients that does not
// depend on how many threads there are. See nerf/kernels/mlp.py for the definition.
#include "abi.h"
#include "mlp_passes.h"
#include "threads.h"

namespace {

using namespace mlp;

enum Format { float32, bfloat16, float64 };  // nerf.kernels.cpu passes these

// Rows of a block: as many as keep its buffers within about a quarter of a megabyte of L2, but enough to pay for
// reading the weights.
template <class F>
int block_rows(const Network<F>& net) {
    constexpr int64_t budget = 256 * 1024;
    int rows = 32;
    while (rows < 128 && Block<F>::bytes(net, rows * 2) <= budget) rows *= 2;
    return rows;
}

template <class F>
void forward(int threads, const Network<F>& net, int64_t points, const typename F::real* x, typename F::real* out) {
    const int rows = block_rows(net);
    const int64_t per_task = rows * 4;
    const int in = net.layers.front().in, width = net.layers.back().out;
    threads::parallel_for(threads, (points + per_task - 1) / per_task, [&](int64_t task) {
        Block<F> block(net, rows, threads::scratch(Block<F>::bytes(net, rows)));
        const int64_t end = std::min(points, (task + 1) * per_task);
        for (int64_t p = task * per_task; p < end; p += rows) {
            block.set_rows(static_cast<int>(std::min<int64_t>(rows, end - p)));
            forward_block(net, block, x + p * in, out + p * width);
        }
    });
}

// Blocks are dealt to a number of accumulators that follows from the call alone, each filled in order by one thread,
// and the accumulators are added in order: the same bits for any number of threads.
template <class F>
void backward(int threads, const Network<F>& net, int64_t points, const typename F::real* x,
              const typename F::real* grad_out, typename F::real* grad_x, typename F::real* const* grad_weights,
              typename F::real* const* grad_biases) {
    using real = typename F::real;
    const int rows = block_rows(net);
    const int64_t blocks = (points + rows - 1) / rows;
    const int64_t accumulators = std::max<int64_t>(1, std::min<int64_t>(64, blocks / 8));
    const int64_t size = grad_weights ? net.gradients + static_cast<int64_t>(net.biases.size()) : 0;
    std::vector<real> sums(accumulators * size, real(0));
    const int in = net.layers.front().in, width = net.layers.back().out;
    threads::parallel_for(threads, accumulators, [&](int64_t task) {
        Block<F> block(net, rows, threads::scratch(Block<F>::bytes(net, rows)));
        for (int64_t b = blocks * task / accumulators; b < blocks * (task + 1) / accumulators; ++b) {
            const int64_t p = b * rows;
            block.set_rows(static_cast<int>(std::min<int64_t>(rows, points - p)));
            backward_block(net, block, x + p * in, grad_out + p * width, size ? sums.data() + task * size : nullptr,
                           grad_x ? grad_x + p * in : nullptr);
        }
    });
    if (!size) return;
    for (int l = 0; l < net.depth; ++l) {
        const auto& y = net.layers[l];
        for (int n = 0; n < y.out; ++n)
            for (int k = 0; k < y.in; ++k) {
                real total = 0;
                for (int64_t s = 0; s < accumulators; ++s) total += sums[s * size + y.gradient + n * y.in_pad + k];
                grad_weights[l][n * y.in + k] = total;
            }
        for (int n = 0; n < y.out && net.biased; ++n) {
            real total = 0;
            for (int64_t s = 0; s < accumulators; ++s) total += sums[s * size + net.gradients + y.bias + n];
            grad_biases[l][n] = total;
        }
    }
}

struct Shape {
    int depth;
    const int32_t* widths;
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
    return Network<F>(s.depth, s.widths, reinterpret_cast<P>(weights), reinterpret_cast<P>(biases), s.activation,
                      s.output_activation, s.omega, for_backward);
}

}  // namespace

EXPORT int nerf_mlp_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// weights: depth matrices, outputs by inputs. biases: null, or depth vectors.
EXPORT const char* nerf_mlp(int threads, int format, int64_t points, int depth, const int32_t* widths, int activation,
                            int output_activation, double omega, const void* const* weights, const void* const* biases,
                            const void* x, void* out) {
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net = network<F>({depth, widths, activation, output_activation, omega}, weights, biases, false);
        forward(threads, net, points, static_cast<const real*>(x), static_cast<real*>(out));
    });
}

// grad_x, grad_weights: null where not wanted. grad_biases: as biases.
EXPORT const char* nerf_mlp_backward(int threads, int format, int64_t points, int depth, const int32_t* widths,
                                     int activation, int output_activation, double omega, const void* const* weights,
                                     const void* const* biases, const void* x, const void* grad_out, void* grad_x,
                                     void* const* grad_weights, void* const* grad_biases) {
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net = network<F>({depth, widths, activation, output_activation, omega}, weights, biases, true);
        backward(threads, net, points, static_cast<const real*>(x), static_cast<const real*>(grad_out),
                 static_cast<real*>(grad_x), reinterpret_cast<real* const*>(grad_weights),
                 reinterpret_cast<real* const*>(grad_biases));
    });
}
