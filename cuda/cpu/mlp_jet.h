// The fused network with its derivatives by its inputs: a block of points goes through the layers as 1 + d + m streams,
// value, gradient and quadratic forms of second derivatives, which share the products and meet in the activations.
// See nerf/kernels/mlp_jet.py for the definition.
#pragma once

#include "mlp_passes.h"

namespace mlp {

constexpr int max_dims = 8, max_forms = 36;  // 36: every second derivative by 8 coordinates

template <class F>
struct Forms {
    using real = typename F::real;

    int dims, count;
    const real* matrices;  // [count][dims][dims], symmetric

    int streams() const { return 1 + dims + count; }

    // sum over i, j of Q_ij dz_i dz_j, and in `doubled` its derivatives by dz_i.
    SHARED_FN vec<real> apply(const real* q, int dims, const vec<real>* dz, vec<real>* doubled) {
        vec<real> total = {};
        for (int i = 0; i < dims; ++i) {
            vec<real> row = {};
            for (int j = 0; j < dims; ++j) row = simd::fma(simd::splat<vec<real>>(q[i * dims + j]), dz[j], row);
            total = simd::fma(dz[i], row, total);
            doubled[i] = row + row;
        }
        return total;
    }
};

// A block of `points` points: row s * points + i is stream s of point i.
template <class F>
struct JetBlock : Block<F> {
    using real = typename F::real;

    int points, inside;  // padded to whole tiles; those that are the caller's
    real* before;        // what each hidden layer's product gave, layer after layer, [rows][out_pad]

    static int64_t bytes(const Network<F>& net, int points, int streams) {
        const int rows = points * streams;
        return Block<F>::bytes(net, rows) + rows * net.row_hidden * sizeof(real) + 64;
    }
    JetBlock(const Network<F>& net, int capacity, int streams, void* memory)
        : Block<F>(net, capacity * streams, memory) {
        before = reinterpret_cast<real*>(static_cast<char*>(memory) + Block<F>::bytes(net, capacity * streams));
    }
    void set_points(int count, int streams) {
        inside = count, points = whole_rows<F>(count);
        this->rows = this->live = points * streams;
    }
    real* product(const Network<F>& net, int l) const { return before + net.layers[l].hidden * this->rows; }
};

// The inputs' streams: x, its unit gradients, and no curvature. Points beyond the caller's repeat the last one.
template <class F>
void jet_inputs(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, const typename F::real* x) {
    using real = typename F::real;
    const auto& y = net.layers[0];
    auto* to = block.input(net, 0);
    for (int s = 0; s < forms.streams(); ++s)
        for (int i = 0; i < block.points; ++i)
            for (int n = 0; n < y.in_pad; ++n) {
                real value = s == n + 1 && n < y.in ? real(1) : real(0);
                if (s == 0 && n < y.in) value = x[static_cast<int64_t>(std::min(i, block.inside - 1)) * y.in + n];
                *to++ = F::narrow(value);
            }
}

// One hidden layer's activation: its products' streams into what enters the next layer.
template <class F, activation::Kind kind>
void jet_activate(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, int l) {
    using real = typename F::real;
    using V = vec<real>;
    const int width = net.layers[l].out_pad, dims = forms.dims;
    const int64_t stream = static_cast<int64_t>(block.points) * width;
    const real *z = block.product(net, l), *bias = net.biased ? net.biases.data() + net.layers[l].bias : nullptr;
    auto* to = block.input(net, l + 1);
    V dz[max_dims], doubled[max_dims];
    for (int i = 0; i < block.points; ++i)
        for (int n = 0; n < width; n += lanes<real>) {
            const int64_t at = static_cast<int64_t>(i) * width + n;
            const V z0 = load<V>(z + at) + (bias ? load<V>(bias + n) : V{});
            const auto a = activation::derivatives<kind>(z0, net.omega);
            F::store_narrow(to + at, a.value);
            for (int k = 0; k < dims; ++k) {
                dz[k] = load<V>(z + at + (1 + k) * stream);
                F::store_narrow(to + at + (1 + k) * stream, a.first * dz[k]);
            }
            for (int k = 0; k < forms.count; ++k) {
                const int64_t here = at + (1 + dims + k) * stream;
                const V square = Forms<F>::apply(forms.matrices + k * dims * dims, dims, dz, doubled);
                F::store_narrow(to + here, simd::fma(a.second, square, a.first * load<V>(z + here)));
            }
        }
}

// The gradients of a hidden layer's activations (block.wide) into those of its products, in block.grad.
template <class F, activation::Kind kind>
void jet_activate_backward(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, int l) {
    using real = typename F::real;
    using V = vec<real>;
    const int width = net.layers[l].out_pad, dims = forms.dims;
    const int64_t stream = static_cast<int64_t>(block.points) * width;
    const real *z = block.product(net, l), *bias = net.biased ? net.biases.data() + net.layers[l].bias : nullptr;
    const real* g = block.wide;
    V dz[max_dims], doubled[max_dims], grad[max_dims];
    for (int i = 0; i < block.points; ++i)
        for (int n = 0; n < width; n += lanes<real>) {
            const int64_t at = static_cast<int64_t>(i) * width + n;
            const V z0 = load<V>(z + at) + (bias ? load<V>(bias + n) : V{});
            const auto a = activation::derivatives<kind>(z0, net.omega);
            V by_first = {}, by_second = {};  // the gradients of a' and of a''
            for (int k = 0; k < dims; ++k) {
                dz[k] = load<V>(z + at + (1 + k) * stream);
                const V incoming = load<V>(g + at + (1 + k) * stream);
                by_first = simd::fma(incoming, dz[k], by_first);
                grad[k] = incoming * a.first;
            }
            for (int k = 0; k < forms.count; ++k) {
                const int64_t here = at + (1 + dims + k) * stream;
                const V incoming = load<V>(g + here);
                const V square = Forms<F>::apply(forms.matrices + k * dims * dims, dims, dz, doubled);
                by_first = simd::fma(incoming, load<V>(z + here), by_first);
                by_second = simd::fma(incoming, square, by_second);
                const V scaled = incoming * a.second;
                for (int j = 0; j < dims; ++j) grad[j] = simd::fma(scaled, doubled[j], grad[j]);
                F::store_narrow(block.grad + here, incoming * a.first);
            }
            for (int k = 0; k < dims; ++k) F::store_narrow(block.grad + at + (1 + k) * stream, grad[k]);
            V value = load<V>(g + at) * a.first;
            value = simd::fma(by_first, a.second, value);
            F::store_narrow(block.grad + at, simd::fma(by_second, a.third, value));
        }
}

// All layers; what enters the layers, and what their products gave, stay in the block. The last product is in block.wide.
template <class F>
void jet_forward(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, const typename F::real* x) {
    constexpr const typename F::real* unbiased = nullptr;
    jet_inputs(net, block, forms, x);
    for (int l = 0; l < net.depth; ++l) {
        Product<F> product = layer_product<F>(net, block, l);
        const bool last = l + 1 == net.depth;
        product.bias = nullptr;  // of the value's stream alone
        product.finish = Finish::store, product.c = last ? block.wide : block.product(net, l);
        product.run();
        if (l == 0 && net.exact_first()) exact_first<F>(net, block.points, block.inside, x, unbiased, product.c);
        if (!last)
            with_activation(net.activation, [&](auto kind) { jet_activate<F, kind()>(net, block, forms, l); });
    }
}

template <class F>
void jet_forward_block(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms,
                       const typename F::real* x, typename F::real* out, int64_t total) {
    using real = typename F::real;
    jet_forward(net, block, forms, x);
    const auto& last = net.layers[net.depth - 1];
    const real* bias = net.biased ? net.biases.data() + last.bias : nullptr;
    for (int s = 0; s < forms.streams(); ++s)
        for (int i = 0; i < block.inside; ++i)
            for (int n = 0; n < last.out; ++n)
                out[(s * total + i) * last.out + n] =
                    block.wide[(s * block.points + i) * last.out_pad + n] + (s == 0 && bias ? bias[n] : real(0));
}

// Adds the block's weight gradients to `gradients` (null: not wanted) and writes grad_x (null: not wanted).
template <class F>
void jet_backward_block(const Network<F>& net, JetBlock<F>& block, const Forms<F>& forms, const typename F::real* x,
                        const typename F::real* grad_out, int64_t total, typename F::real* gradients,
                        typename F::real* grad_x) {
    using real = typename F::real;
    jet_forward(net, block, forms, x);
    const auto& last = net.layers[net.depth - 1];
    for (int s = 0; s < forms.streams(); ++s)
        for (int i = 0; i < block.points; ++i)
            for (int n = 0; n < last.out_pad; ++n) {
                const bool given = i < block.inside && n < last.out;
                block.grad[(s * block.points + i) * last.out_pad + n] =
                    F::narrow(given ? grad_out[(s * total + i) * last.out + n] : real(0));
            }
    for (int l = net.depth - 1; l >= 0; --l) {
        const auto& y = net.layers[l];
        if (gradients) {
            const auto* grad = weight_gradient<F>(net, block, l, gradients + y.gradient);
            if (net.biased) bias_gradient<F>(grad, block.points, y.out_pad, gradients + net.gradients + y.bias);
        }
        if (l == 0 && !grad_x) return;
        // Of the inputs' streams only the value is the caller's.
        Product<F> product{l > 0 ? block.rows : block.points, y.in_pad / lanes<real>, net.groups(y.out)};
        product.a = block.grad, product.a_row = y.out_pad, product.a_group = F::group;
        product.b = net.packed.data() + y.back, product.packed = true;
        product.finish = Finish::store, product.c = block.wide, product.c_row = y.in_pad;
        product.run();
        if (l == 0) return copy_rows(block.wide, y.in_pad, grad_x, y.in, block.inside);
        with_activation(net.activation,
                        [&](auto kind) { jet_activate_backward<F, kind()>(net, block, forms, l - 1); });
    }
}

}  // namespace mlp
