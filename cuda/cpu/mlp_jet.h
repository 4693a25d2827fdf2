// The fused network with its derivatives by d coordinates: a block of points goes through the layers as 1 + d + m
// streams, value, gradient and quadratic forms of second derivatives, which share the products and meet in the
// activations. See nerf/kernels/mlp_jet.py for the definition.
//
// A network of ReLUs, or of no activations, is linear between its kinks: it has no second derivatives, and a unit that is
// off stops all streams alike, which the products see to themselves.
#pragma once

#include "mlp_passes.h"

namespace mlp {

constexpr int max_dims = 8, max_forms = 36;  // 36: every second derivative by 8 coordinates

template <class F>
struct Forms {
    using real = typename F::real;

    int dims, count;       // count: of those that the network carries along, 0 where it is linear
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

// The caller's points and how they move with the coordinates.
template <class F>
struct Points {
    const typename F::real *x, *tangents;  // [.][in] and [dims][total][in]; no tangents: the points are the coordinates
    int64_t total;

    Points from(const Network<F>& net, int64_t first) const {
        const int64_t skipped = first * net.layers[0].in;
        return {x + skipped, tangents ? tangents + skipped : nullptr, total};
    }
};

// Where their gradients go; null: not wanted.
template <class F>
struct PointGradients {
    typename F::real *x, *tangents;
    int64_t total;

    PointGradients from(const Network<F>& net, int64_t first) const {
        const int64_t skipped = first * net.layers[0].in;
        return {x ? x + skipped : nullptr, tangents ? tangents + skipped : nullptr, total};
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
        const int64_t kept = net.needs_slopes() ? net.row_hidden : 0;
        return Block<F>::bytes(net, rows) + rows * kept * sizeof(real) + 64;
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

// The inputs' streams: x, its tangents or unit gradients, and no curvature. Points beyond the caller's repeat the last one.
template <class F>
void jet_inputs(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, const Points<F>& given) {
    using real = typename F::real;
    const auto& y = net.layers[0];
    const int64_t stream = static_cast<int64_t>(block.points) * y.in_pad;
    auto* to = block.input(net, 0);
    narrow_rows<F>(block.points, block.inside, given.x, y.in, y.in_pad, to);
    to += stream;
    for (int k = 0; k < forms.dims; ++k, to += stream) {
        if (given.tangents)
            narrow_rows<F>(block.points, block.inside, given.tangents + k * given.total * y.in, y.in, y.in_pad, to);
        else
            for (int64_t at = 0; at < stream; ++at) to[at] = F::narrow(at % y.in_pad == k ? real(1) : real(0));
    }
    std::fill_n(to, forms.count * stream, typename F::element(0));
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

// A hidden layer of a network that is linear but for ReLUs, stream by stream: where the value's is 0, all are.
template <class F>
void linear_layer(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, int l) {
    Product<F> product = layer_product<F>(net, block, l);
    product.rows = block.points;
    product.narrow = block.input(net, l + 1), product.mask = product.narrow;
    const bool relu = net.activation == Kind::relu;
    for (int s = 0; s < forms.streams(); ++s) {
        product.finish = !relu ? Finish::narrow : s == 0 ? Finish::narrow_relu : Finish::narrow_masked;
        product.run();
        product.bias = nullptr;  // of the value's stream alone
        product.a += block.points * product.a_row, product.more.a += block.points * product.more.a_row;
        product.narrow += block.points * product.c_row;
    }
}

// The same backwards: block.grad becomes the gradient of what layer l - 1's product gave.
template <class F>
void linear_gradient(const Network<F>& net, JetBlock<F>& block, const Forms<F>& forms, int l) {
    Product<F> product = back_product<F>(net, block, l, block.points);
    product.narrow = block.spare, product.mask = block.input(net, l);
    product.finish = net.activation == Kind::relu ? Finish::narrow_masked : Finish::narrow;
    for (int s = 0; s < forms.streams(); ++s) {
        product.run();
        product.a += block.points * product.a_row, product.narrow += block.points * product.c_row;
    }
    std::swap(block.grad, block.spare);
}

// All layers; what enters the layers, and what their products gave, stay in the block. The last product is in block.wide.
template <class F>
void jet_forward(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, const Points<F>& given) {
    constexpr const typename F::real* unbiased = nullptr;
    jet_inputs(net, block, forms, given);
    for (int l = 0; l < net.depth; ++l) {
        const bool last = l + 1 == net.depth;
        if (!last && !net.needs_slopes()) {
            linear_layer(net, block, forms, l);
            continue;
        }
        Product<F> product = layer_product<F>(net, block, l);
        product.bias = nullptr;  // of the value's stream alone
        product.finish = Finish::store, product.c = last ? block.wide : block.product(net, l);
        product.run();
        if (l == 0 && net.exact_first()) exact_first<F>(net, block.points, block.inside, given.x, unbiased, product.c);
        if (!last)
            with_activation(net.activation, [&](auto kind) { jet_activate<F, kind()>(net, block, forms, l); });
    }
}

template <class F>
void jet_forward_block(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, const Points<F>& given,
                       typename F::real* out) {
    using real = typename F::real;
    const int64_t total = given.total;
    jet_forward(net, block, forms, given);
    const auto& last = net.layers[net.depth - 1];
    const real* bias = net.biased ? net.biases.data() + last.bias : nullptr;
    for (int s = 0; s < forms.streams(); ++s)
        for (int i = 0; i < block.inside; ++i)
            for (int n = 0; n < last.out; ++n)
                out[(s * total + i) * last.out + n] =
                    block.wide[(s * block.points + i) * last.out_pad + n] + (s == 0 && bias ? bias[n] : real(0));
}

// The gradients of the first `rows` rows of the inputs' streams, from that of what the first product gave.
template <class F>
void jet_input_gradient(const Network<F>& net, const JetBlock<F>& block, const Forms<F>& forms, int rows,
                        const PointGradients<F>& to) {
    const auto& y = net.layers[0];
    Product<F> product = back_product<F>(net, block, 0, rows);
    product.finish = net.row_again ? Finish::add : Finish::store, product.c = net.row_again ? block.again : block.wide;
    product.run();
    if (to.x) copy_rows(product.c, y.in_pad, to.x, y.in, block.inside);
    for (int k = 0; to.tangents && k < forms.dims; ++k)
        copy_rows(product.c + static_cast<int64_t>(1 + k) * block.points * y.in_pad, y.in_pad,
                  to.tangents + k * to.total * y.in, y.in, block.inside);
}

// Adds the block's weight gradients to `gradients` (null: not wanted) and writes those of the points.
template <class F>
void jet_backward_block(const Network<F>& net, JetBlock<F>& block, const Forms<F>& forms, const Points<F>& given,
                        const typename F::real* grad_out, typename F::real* gradients, const PointGradients<F>& to) {
    using real = typename F::real;
    const int64_t total = given.total;
    // Of the inputs' streams these are the caller's: the value, and the tangents where they were given.
    const int asked = to.tangents ? (1 + forms.dims) * block.points : to.x ? block.points : 0;
    jet_forward(net, block, forms, given);
    const auto& last = net.layers[net.depth - 1];
    for (int s = 0; s < forms.streams(); ++s)
        for (int i = 0; i < block.points; ++i)
            for (int n = 0; n < last.out_pad; ++n) {
                const bool inside = i < block.inside && n < last.out;
                block.grad[(s * block.points + i) * last.out_pad + n] =
                    F::narrow(inside ? grad_out[(s * total + i) * last.out + n] : real(0));
            }
    for (int l = net.depth - 1; l >= 0; --l) {
        const auto& y = net.layers[l];
        if (gradients) {
            const auto* grad = weight_gradient<F>(net, block, l, gradients);
            if (net.biased) bias_gradient<F>(grad, block.points, y.out_pad, gradients + net.gradients + y.bias);
        }
        if (asked && y.more) again_gradient<F>(net, block, l, asked);
        if (l == 0) break;
        if (!net.needs_slopes()) {
            linear_gradient(net, block, forms, l);
            continue;
        }
        Product<F> product = back_product<F>(net, block, l, block.rows);
        product.finish = Finish::store, product.c = block.wide;
        product.run();
        with_activation(net.activation,
                        [&](auto kind) { jet_activate_backward<F, kind()>(net, block, forms, l - 1); });
    }
    if (asked) jet_input_gradient(net, block, forms, asked, to);
}

}  // namespace mlp
