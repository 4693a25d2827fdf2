// The fused network's entry points: blocks of rows over threads. See nerf/kernels/mlp.py for the definition.
#include "mlp_driver.h"

namespace {

using namespace mlp;

template <class F>
void forward(int threads, const Network<F>& net, int64_t points, const typename F::real* x, typename F::real* out) {
    const int64_t per_task = block_rows(net) * 4;
    const int in = net.layers.front().in, width = net.layers.back().out;
    threads::parallel_for(threads, (points + per_task - 1) / per_task, [&](int64_t task) {
        const int64_t first = task * per_task;
        forward_rows(net, std::min(per_task, points - first), x + first * in, out + first * width);
    });
}

template <class F>
void backward(int threads, const Network<F>& net, int64_t points, const typename F::real* x,
              const typename F::real* grad_out, typename F::real* grad_x, typename F::real* const* grad_weights,
              typename F::real* const* grad_biases) {
    const int rows = block_rows(net), in = net.layers.front().in, width = net.layers.back().out;
    const auto task = [&](int64_t first, int64_t end, typename F::real* gradients, typename F::real*) {
        Block<F> block(net, rows, threads::scratch(Block<F>::bytes(net, rows)));
        for (int64_t p = first * rows; p < std::min(points, end * rows); p += rows) {
            block.set_rows(static_cast<int>(std::min<int64_t>(rows, points - p)));
            backward_block(net, block, x + p * in, grad_out + p * width, gradients, grad_x ? grad_x + p * in : nullptr);
        }
    };
    reduce_gradients(threads, net, (points + rows - 1) / rows, grad_weights, grad_biases, 0, nullptr, task);
}

// The mean squared difference of the outputs from `target`, and its gradients: the forward pass is not computed twice.
template <class F>
void squared_error(int threads, const Network<F>& net, int64_t points, const typename F::real* x,
                   const typename F::real* target, typename F::real* loss, typename F::real* const* grad_weights,
                   typename F::real* const* grad_biases) {
    using real = typename F::real;
    const int rows = block_rows(net), in = net.layers.front().in, width = net.layers.back().out;
    const real share = real(1) / static_cast<real>(std::max<int64_t>(1, points * width));
    const auto task = [&](int64_t first, int64_t end, real* gradients, real* sum) {
        Block<F> block(net, rows, threads::scratch(Block<F>::bytes(net, rows)));
        for (int64_t p = first * rows; p < std::min(points, end * rows); p += rows) {
            block.set_rows(static_cast<int>(std::min<int64_t>(rows, points - p)));
            *sum += squared_error_block(net, block, x + p * in, target + p * width, share, gradients);
        }
    };
    reduce_gradients(threads, net, (points + rows - 1) / rows, grad_weights, grad_biases, 1, loss, task);
}

}  // namespace

EXPORT int nerf_mlp_has_bfloat16() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Whether those products are of AMX's tiles.
EXPORT int nerf_mlp_has_tiles() {
#if defined(SIMD_AMX)
    return 1;
#else
    return 0;
#endif
}

// again: null, or a flag a layer, whether x enters it again beside the layer before. weights: depth matrices, outputs by
// inputs. biases: null, or depth vectors.
EXPORT const char* nerf_mlp(int threads, int format, int64_t points, int depth, const int32_t* widths,
                            const uint8_t* again, int activation, int output_activation, double omega,
                            const void* const* weights, const void* const* biases, const void* x, void* out) {
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net = network<F>({depth, widths, again, activation, output_activation, omega}, weights, biases, false);
        forward(threads, net, points, static_cast<const real*>(x), static_cast<real*>(out));
    });
}

// grad_x, grad_weights: null where not wanted. grad_biases: as biases.
EXPORT const char* nerf_mlp_backward(int threads, int format, int64_t points, int depth, const int32_t* widths,
                                     const uint8_t* again, int activation, int output_activation, double omega,
                                     const void* const* weights, const void* const* biases, const void* x,
                                     const void* grad_out, void* grad_x, void* const* grad_weights,
                                     void* const* grad_biases) {
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net = network<F>({depth, widths, again, activation, output_activation, omega}, weights, biases, true);
        backward(threads, net, points, static_cast<const real*>(x), static_cast<const real*>(grad_out),
                 static_cast<real*>(grad_x), reinterpret_cast<real* const*>(grad_weights),
                 reinterpret_cast<real* const*>(grad_biases));
    });
}

// loss: one number. target: points x outputs. The outputs have no activation. grad_weights: null where not wanted.
EXPORT const char* nerf_mlp_squared_error(int threads, int format, int64_t points, int depth, const int32_t* widths,
                                          const uint8_t* again, int activation, int output_activation, double omega,
                                          const void* const* weights, const void* const* biases, const void* x,
                                          const void* target, void* loss, void* const* grad_weights,
                                          void* const* grad_biases) {
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net = network<F>({depth, widths, again, activation, output_activation, omega}, weights, biases, true);
        squared_error(threads, net, points, static_cast<const real*>(x), static_cast<const real*>(target),
                      static_cast<real*>(loss), reinterpret_cast<real* const*>(grad_weights),
                      reinterpret_cast<real* const*>(grad_biases));
    });
}
