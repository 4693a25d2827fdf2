// The forward and the backward pass of the fused network over one block of rows.
#pragma once

#include "mlp_network.h"

namespace mlp {

// Whether a caller's rows of this width lie as the block's do, so that products may write them directly.
template <class F>
bool fits(const Block<F>& block, int width) {
    return width == padded<typename F::real>(width) && block.rows == block.live;
}

// Rows of `from` into the format, padded with zeros to `padded_width`. Rows beyond the caller's, which are `live`, repeat
// the last one, so that they are as finite as it is; their gradients are zero.
template <class F, class real = typename F::real>
void narrow_rows(int rows, int live, const real* from, int width, int padded_width, typename F::element* to) {
    if (width == padded_width && rows == live) {
        for (int64_t i = 0; i < static_cast<int64_t>(rows) * width; i += lanes<real>)
            F::store_narrow(to + i, load<vec<real>>(from + i));
        return;
    }
    for (int m = 0; m < rows; ++m, to += padded_width) {
        const real* row = from + static_cast<int64_t>(std::min(m, live - 1)) * width;
        int n = 0;
        for (; n + lanes<real> <= width; n += lanes<real>) F::store_narrow(to + n, load<vec<real>>(row + n));
        if (n == padded_width) continue;
        vec<real> rest = {};
        std::memcpy(&rest, row + n, (width - n) * sizeof(real));
        for (; n < padded_width; n += lanes<real>, rest = vec<real>{}) F::store_narrow(to + n, rest);
    }
}

// `count` numbers through the activation, into the format or back in place, and their slopes where wanted.
template <class F>
void activate(int kind, typename F::real omega, const typename F::real* from, int64_t count,
              typename F::element* narrow, typename F::real* wide, typename F::real* slopes) {
    using real = typename F::real;
    with_activation(kind, [&](auto constant) {
        for (int64_t i = 0; i < count; i += lanes<real>) {
            const auto r = activation::apply<constant()>(load<vec<real>>(from + i), omega);
            if (narrow) F::store_narrow(narrow + i, r.value);
            if (wide) store(wide + i, r.value);
            if (slopes) store(slopes + i, r.slope);
        }
    });
}

template <class F>
Product<F> layer_product(const Network<F>& net, const Block<F>& block, int l) {
    const auto& y = net.layers[l];
    Product<F> product{block.rows, y.out_pad / lanes<typename F::real>, net.groups(y.in)};
    product.a = block.input(net, l), product.a_row = y.in_pad, product.a_group = F::group;
    product.b = net.packed.data() + y.forward, product.packed = true;
    if (y.more) {
        product.more.groups = net.groups(y.more);
        product.more.a = block.input(net, 0), product.more.a_row = net.layers[0].in_pad;
        product.more.b = net.packed.data() + y.more_forward;
    }
    product.c_row = y.out_pad;
    product.bias = net.biased ? net.biases.data() + y.bias : nullptr;
    return product;
}

// x W^T + bias of the first layer for `rows` rows of which the caller gave `live`, in the precision of x.
template <class F, class real = typename F::real>
void exact_first(const Network<F>& net, int rows, int live, const real* x, const real* bias, real* to) {
    const auto& y = net.layers[0];
    for (int m = 0; m < rows; ++m, to += y.out_pad) {
        const real* row = x + static_cast<int64_t>(std::min(m, live - 1)) * y.in;
        for (int n = 0; n < y.out_pad; n += lanes<real>) {
            vec<real> sum = bias ? load<vec<real>>(bias + n) : vec<real>{};
            for (int k = 0; k < y.in; ++k)
                sum = simd::fma(simd::splat<vec<real>>(row[k]), load<vec<real>>(&net.first[k * y.out_pad + n]), sum);
            store(to + n, sum);
        }
    }
}

// All hidden layers: leaves what enters each layer in the block.
template <class F>
void forward_hidden(const Network<F>& net, const Block<F>& block, const typename F::real* x, bool keep_slopes) {
    narrow_rows<F>(block.rows, block.live, x, net.layers[0].in, net.layers[0].in_pad, block.input(net, 0));
    for (int l = 0; l + 1 < net.depth; ++l) {
        Product<F> product = layer_product(net, block, l);
        product.narrow = block.input(net, l + 1);
        if (!net.needs_slopes()) {
            product.finish = net.activation == Kind::relu ? Finish::narrow_relu : Finish::narrow;
            product.run();
        } else {
            product.finish = Finish::store, product.c = block.wide;
            if (l == 0 && net.exact_first())
                exact_first(net, block.rows, block.live, x, product.bias, block.wide);
            else
                product.run();
            activate<F>(net.activation, net.omega, block.wide, static_cast<int64_t>(block.rows) * product.c_row,
                        product.narrow, nullptr, keep_slopes ? block.slope(net, l + 1) : nullptr);
        }
    }
}

// The last layer before its activation.
template <class F>
void forward_last(const Network<F>& net, const Block<F>& block, typename F::real* to) {
    Product<F> product = layer_product(net, block, net.depth - 1);
    product.finish = Finish::store, product.c = to;
    product.run();
}

template <class real>
void copy_rows(const real* from, int64_t from_row, real* to, int width, int rows) {
    for (int m = 0; m < rows; ++m)
        std::memcpy(to + static_cast<int64_t>(m) * width, from + m * from_row, width * sizeof(real));
}

template <class F>
void forward_block(const Network<F>& net, const Block<F>& block, const typename F::real* x, typename F::real* out) {
    const auto& last = net.layers[net.depth - 1];
    typename F::real* to = fits(block, last.out) ? out : block.wide;
    forward_hidden(net, block, x, false);
    forward_last(net, block, to);
    if (net.output_activation != Kind::none)
        activate<F>(net.output_activation, net.omega, to, static_cast<int64_t>(block.rows) * last.out_pad, nullptr, to,
                    nullptr);
    if (to != out) copy_rows(block.wide, last.out_pad, out, last.out, block.live);
}

// The gradient of what the last layer's product gave, in block.grad.
template <class F>
void output_gradient(const Network<F>& net, const Block<F>& block, const typename F::real* grad_out) {
    using real = typename F::real;
    const auto& last = net.layers[net.depth - 1];
    const bool sloped = net.output_activation != Kind::none;
    if (sloped) {
        forward_last(net, block, block.wide);
        activate<F>(net.output_activation, net.omega, block.wide, static_cast<int64_t>(block.rows) * last.out_pad,
                    nullptr, nullptr, block.wide);
    }
    if (!sloped && fits(block, last.out))
        return narrow_rows<F>(block.rows, block.live, grad_out, last.out, last.out_pad, block.grad);
    for (int m = 0; m < block.rows; ++m)
        for (int n = 0; n < last.out_pad; n += lanes<real>) {
            vec<real> g = {};
            const int left = m < block.live ? std::min(lanes<real>, last.out - n) : 0;
            if (left > 0) std::memcpy(&g, grad_out + static_cast<int64_t>(m) * last.out + n, left * sizeof(real));
            // Only where there is a gradient: a slope beyond the caller's rows and columns may be infinite.
            if (sloped) g = g == vec<real>{} ? g : g * load<vec<real>>(block.wide + m * last.out_pad + n);
            F::store_narrow(block.grad + m * last.out_pad + n, g);
        }
}

// Rows of a group side by side: the layout of both operands of a product that sums over rows.
template <class F>
const typename F::element* pair_rows(const typename F::element* from, int rows, int width, typename F::element* to) {
    if constexpr (F::group == 1) return from;
#if defined(__AVX512BF16__)
    else {
        const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                             37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
        for (int m = 0; m < rows; m += 2)
            for (int n = 0; n < width; n += 16) {
                const __m512i a = _mm512_castsi256_si512(load<__m256i>(from + m * width + n));
                const __m512i b = _mm512_castsi256_si512(load<__m256i>(from + (m + 1) * width + n));
                store(to + m * width + 2 * n, _mm512_permutex2var_epi16(a, low, b));
            }
        return to;
    }
#else
    (void)rows, (void)width;
    return to;
#endif
}

// gradient[n][k] += sum over rows of grad[m][n] * input[m][k], in all of the layer's columns. Returns the gradients with
// rows of a group side by side.
template <class F>
const typename F::element* weight_gradient(const Network<F>& net, const Block<F>& block, int l,
                                           typename F::real* gradients) {
    const auto& y = net.layers[l];
    const auto* left = pair_rows<F>(block.grad, block.rows, y.out_pad, block.left);
    Product<F> product{y.out_pad, 0, block.rows / F::group};
    product.a = left, product.a_row = F::group, product.a_group = static_cast<int64_t>(y.out_pad) * F::group;
#if defined(SIMD_AMX)
    if constexpr (F::group > 1) {
        // A tile's rows are the gradient's columns, pairs of its rows side by side. block.wide is free between layers.
        auto* turned = reinterpret_cast<int32_t*>(block.wide);
        transpose(reinterpret_cast<const int32_t*>(left), block.rows / F::group, y.out_pad, turned);
        product.a = reinterpret_cast<const typename F::element*>(turned);
        product.a_row = block.rows, product.a_group = F::group;
    }
#endif
    product.packed = false, product.finish = Finish::add;
    const auto columns = [&](const typename F::element* input, int in_pad, typename F::real* gradient) {
        const auto* right = pair_rows<F>(input, block.rows, in_pad, block.right);
        product.vectors = in_pad / lanes<typename F::real>;
        product.b = reinterpret_cast<const typename F::operand*>(right), product.b_group = product.vectors;
        product.c = gradient, product.c_row = in_pad;
        product.run();
    };
    columns(block.input(net, l), y.in_pad, gradients + y.gradient);
    if (y.more) columns(block.input(net, 0), net.layers[0].in_pad, gradients + y.more_gradient);
    return left;
}

// gradient[n] += sum over the first `rows` of grad[m][n], given with rows of a group side by side.
template <class F>
void bias_gradient(const typename F::element* grad, int rows, int width, typename F::real* gradient) {
    using real = typename F::real;
    alignas(64) typename F::element ones[2] = {F::narrow(1), F::narrow(1)};
    const auto one = F::broadcast(ones);
    const auto* columns = reinterpret_cast<const typename F::operand*>(grad);
    const int vectors = width / lanes<real>;
    for (int v = 0; v < vectors; ++v) {
        vec<real> sum = load<vec<real>>(gradient + v * lanes<real>);
        for (int q = 0; q < rows / F::group; ++q)
            sum = F::madd(one, load<typename F::operand>(columns + q * vectors + v), sum);
        store(gradient + v * lanes<real>, sum);
    }
}

// The product that leads from the gradient of what layer l's product gave (block.grad) to that of what entered it.
template <class F>
Product<F> back_product(const Network<F>& net, const Block<F>& block, int l, int rows) {
    const auto& y = net.layers[l];
    Product<F> product{rows, y.in_pad / lanes<typename F::real>, net.groups(y.out)};
    product.a = block.grad, product.a_row = y.out_pad, product.a_group = F::group;
    product.b = net.packed.data() + y.back, product.packed = true;
    product.c_row = y.in_pad;
    return product;
}

// The gradients of the inputs from layer l, which they enter again: into block.again, where those of later layers are.
template <class F>
void again_gradient(const Network<F>& net, const Block<F>& block, int l, int rows) {
    bool first = true;
    for (int later = l + 1; later < net.depth; ++later) first = first && net.layers[later].more == 0;
    Product<F> product = back_product(net, block, l, rows);
    product.vectors = net.layers[0].in_pad / lanes<typename F::real>, product.c_row = net.layers[0].in_pad;
    product.b = net.packed.data() + net.layers[l].more_back;
    product.finish = first ? Finish::store : Finish::add, product.c = block.again;
    product.run();
}

// block.grad becomes the gradient of what layer l - 1's product gave; for l = 0, grad_x is written.
template <class F>
void input_gradient(const Network<F>& net, Block<F>& block, int l, typename F::real* grad_x) {
    using real = typename F::real;
    const auto& y = net.layers[l];
    if (y.more && grad_x) again_gradient(net, block, l, block.rows);
    Product<F> product = back_product(net, block, l, block.rows);
    if (l == 0 && net.row_again) {
        product.finish = Finish::add, product.c = block.again;
        product.run();
        return copy_rows(block.again, y.in_pad, grad_x, y.in, block.live);
    }
    const bool direct = l == 0 && fits(block, y.in);
    product.c = direct ? grad_x : block.wide, product.narrow = block.spare;
    product.mask = block.input(net, l);
    const bool wide = l == 0 || net.needs_slopes();
    product.finish = wide ? Finish::store : net.activation == Kind::relu ? Finish::narrow_masked : Finish::narrow;
    product.run();
    if (direct) return;
    if (l == 0) return copy_rows(block.wide, y.in_pad, grad_x, y.in, block.live);
    if (wide) {
        const real* slopes = block.slope(net, l);
        for (int64_t i = 0; i < static_cast<int64_t>(block.rows) * y.in_pad; i += lanes<real>) {
            const vec<real> g = load<vec<real>>(block.wide + i);
            F::store_narrow(block.spare + i, g == vec<real>{} ? g : g * load<vec<real>>(slopes + i));
        }
    }
    std::swap(block.grad, block.spare);
}

// From the gradient of the last product (block.grad) to those of all weights (`gradients`; null: not wanted) and of x
// (grad_x; null: not wanted).
template <class F>
void backward_layers(const Network<F>& net, Block<F>& block, typename F::real* gradients, typename F::real* grad_x) {
    for (int l = net.depth - 1; l >= 0; --l) {
        const auto& y = net.layers[l];
        if (gradients) {
            const auto* grad = weight_gradient(net, block, l, gradients);
            if (net.biased) bias_gradient<F>(grad, block.rows, y.out_pad, gradients + net.gradients + y.bias);
        }
        if (l > 0 || grad_x) input_gradient(net, block, l, grad_x);
    }
}

template <class F>
void backward_block(const Network<F>& net, Block<F>& block, const typename F::real* x, const typename F::real* grad_out,
                    typename F::real* gradients, typename F::real* grad_x) {
    forward_hidden(net, block, x, true);
    output_gradient(net, block, grad_out);
    backward_layers(net, block, gradients, grad_x);
}

// Returns the block's share of the mean squared error and adds its weight gradients (null: not wanted). `share` is one
// over the count of all numbers.
template <class F>
typename F::real squared_error_block(const Network<F>& net, Block<F>& block, const typename F::real* x,
                                     const typename F::real* target, typename F::real share,
                                     typename F::real* gradients) {
    using real = typename F::real;
    const auto& last = net.layers[net.depth - 1];
    forward_hidden(net, block, x, gradients != nullptr);
    forward_last(net, block, block.wide);
    real sum = 0;
    for (int m = 0; m < block.rows; ++m)
        for (int n = 0; n < last.out_pad; ++n) {
            const bool given = m < block.live && n < last.out;
            const int64_t at = static_cast<int64_t>(m) * last.out_pad + n;
            const real difference = given ? block.wide[at] - target[static_cast<int64_t>(m) * last.out + n] : real(0);
            sum += difference * difference;
            block.grad[at] = F::narrow(2 * share * difference);
        }
    if (gradients) backward_layers<F>(net, block, gradients, nullptr);
    return sum * share;
}

}  // namespace mlp
