// The entry points of the fused network with derivatives. See nerf/kernels/mlp_jet.py for the definition.
#include "mlp_jet.h"

#include "mlp_driver.h"

namespace {

using namespace mlp;

// Points of a block: as for a plain network, but each has a row a stream.
template <class F>
int block_points(const Network<F>& net, int streams) {
    constexpr int64_t budget = 384 * 1024;
    int points = F::row_unit;
    while (points < 64 && JetBlock<F>::bytes(net, points * 2, streams) <= budget) points *= 2;
    return points;
}

// out: [streams][points][outputs], of as many streams as the forms have.
template <class F>
void forward(int threads, const Network<F>& net, const Forms<F>& forms, const Points<F>& given,
             typename F::real* out) {
    const int rows = block_points(net, forms.streams()), width = net.layers.back().out;
    const int64_t points = given.total;
    const int64_t per_task = rows * 8;
    threads::parallel_for(threads, (points + per_task - 1) / per_task, [&](int64_t task) {
        JetBlock<F> block(net, rows, forms.streams(), threads::scratch(JetBlock<F>::bytes(net, rows, forms.streams())));
        const int64_t end = std::min(points, (task + 1) * per_task);
        for (int64_t p = task * per_task; p < end; p += rows) {
            block.set_points(static_cast<int>(std::min<int64_t>(rows, end - p)), forms.streams());
            jet_forward_block(net, block, forms, given.from(net, p), out + p * width);
        }
    });
}

template <class F>
void backward(int threads, const Network<F>& net, const Forms<F>& forms, const Points<F>& given,
              const typename F::real* grad_out, const PointGradients<F>& to, typename F::real* const* grad_weights,
              typename F::real* const* grad_biases) {
    const int rows = block_points(net, forms.streams()), width = net.layers.back().out;
    const int64_t points = given.total;
    const auto task = [&](int64_t first, int64_t end, typename F::real* gradients, typename F::real*) {
        JetBlock<F> block(net, rows, forms.streams(), threads::scratch(JetBlock<F>::bytes(net, rows, forms.streams())));
        for (int64_t p = first * rows; p < std::min(points, end * rows); p += rows) {
            block.set_points(static_cast<int>(std::min<int64_t>(rows, points - p)), forms.streams());
            jet_backward_block(net, block, forms, given.from(net, p), grad_out + p * width, gradients,
                               to.from(net, p));
        }
    };
    reduce_gradients(threads, net, (points + rows - 1) / rows, grad_weights, grad_biases, 0, nullptr, task);
}

// The forms that this network carries along.
template <class F>
Forms<F> carried(const Network<F>& net, int dims, int count, const void* forms) {
    return {dims, net.needs_slopes() ? count : 0, static_cast<const typename F::real*>(forms)};
}

}  // namespace

constexpr const char* too_many = "takes up to 8 coordinates and 36 forms; use backend reference";
static_assert(max_dims == 8 && max_forms == 36, "the sentence above");

// again: as nerf_mlp takes it. tangents: [dims][points][widths[0]], or null where x is the coordinates and dims is
// widths[0]. forms: count symmetric matrices of dims x dims. out: 1 + dims + count streams of points x outputs.
EXPORT const char* nerf_mlp_jet(int threads, int format, int64_t points, int depth, const int32_t* widths,
                                const uint8_t* again, int activation, int output_activation, double omega,
                                const void* const* weights, const void* const* biases, const void* x, int dims,
                                const void* tangents, int count, const void* forms, void* out) {
    if (dims > max_dims || count > max_forms) return too_many;
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net =
            network<F>({depth, widths, again, activation, output_activation, omega}, weights, biases, false);
        const auto own = carried(net, dims, count, forms);
        const Points<F> given{static_cast<const real*>(x), static_cast<const real*>(tangents), points};
        forward(threads, net, own, given, static_cast<real*>(out));
        const int64_t stream = points * widths[depth];
        std::fill_n(static_cast<real*>(out) + own.streams() * stream, (count - own.count) * stream, real(0));
    });
}

// grad_out: as `out` of nerf_mlp_jet. grad_x, grad_tangents, grad_weights: null where not wanted.
EXPORT const char* nerf_mlp_jet_backward(int threads, int format, int64_t points, int depth, const int32_t* widths,
                                         const uint8_t* again, int activation, int output_activation, double omega,
                                         const void* const* weights, const void* const* biases, const void* x, int dims,
                                         const void* tangents, int count, const void* forms, const void* grad_out,
                                         void* grad_x, void* grad_tangents, void* const* grad_weights,
                                         void* const* grad_biases) {
    if (dims > max_dims || count > max_forms) return too_many;
    return with_format(format, [&](auto f) {
        using F = decltype(f);
        using real = typename F::real;
        const auto net =
            network<F>({depth, widths, again, activation, output_activation, omega}, weights, biases, true);
        const Points<F> given{static_cast<const real*>(x), static_cast<const real*>(tangents), points};
        backward(threads, net, carried(net, dims, count, forms), given, static_cast<const real*>(grad_out),
                 PointGradients<F>{static_cast<real*>(grad_x), static_cast<real*>(grad_tangents), points},
                 reinterpret_cast<real* const*>(grad_weights), reinterpret_cast<real* const*>(grad_biases));
    });
}
