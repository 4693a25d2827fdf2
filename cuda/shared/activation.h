// Activations and their slopes, once for scalars and SIMD vectors.
//
// The includer defines SHARED_FN and declares, before this header, for every `V` that it uses: exp_(V), log1p_(V) on
// [0, 1], and sincos_(V, V& sine, V& cosine).
#pragma once

namespace activation {

enum Kind { none, relu, sine, softplus, sigmoid, exponential };  // the order of nerf.kernels.mlp.ACTIVATIONS

template <class V>
struct Result {
    V value, slope;  // slope: d value / d input
};

template <Kind kind, class V, class T>
SHARED_FN Result<V> apply(V z, T omega) {
    const V zero = V{};
    const V one = zero + T(1);
    if constexpr (kind == relu) {
        return {z > zero ? z : (z <= zero ? zero : z), z > zero ? one : zero};  // a NaN stays one
    } else if constexpr (kind == sine) {
        V s, c;
        sincos_(z * omega, s, c);
        return {s, c * omega};
    } else if constexpr (kind == softplus) {
        // log(1 + e^z) = max(z, 0) + log(1 + e^-|z|), which neither overflows nor cancels.
        const V fading = exp_(z > zero ? -z : z);
        const V share = one / (one + fading);
        return {(z > zero ? z : zero) + log1p_(fading), z > zero ? share : one - share};
    } else if constexpr (kind == sigmoid) {
        const V share = one / (one + exp_(-z));
        return {share, share * (one - share)};
    } else if constexpr (kind == exponential) {
        const V value = exp_(z);
        return {value, value};
    } else {
        return {z, one};
    }
}

template <class V>
struct Derivatives {
    V value, first, second, third;
};

// The activation and its derivatives up to the third: what second derivatives of a network, and their gradients, need.
template <Kind kind, class V, class T>
SHARED_FN Derivatives<V> derivatives(V z, T omega) {
    const V zero = V{};
    const V one = zero + T(1);
    if constexpr (kind == relu) {
        return {z > zero ? z : (z <= zero ? zero : z), z > zero ? one : zero, zero, zero};
    } else if constexpr (kind == sine) {
        V s, c;
        sincos_(z * omega, s, c);
        const V square = zero + omega * omega;
        return {s, c * omega, -(s * square), -(c * (square * omega))};
    } else if constexpr (kind == softplus || kind == sigmoid) {
        const auto r = apply<kind>(z, omega);
        const V share = kind == sigmoid ? r.value : r.slope;
        const V slope = share * (one - share), curve = slope * (one - share - share);
        if constexpr (kind == softplus) return {r.value, share, slope, curve};
        return {share, slope, curve, slope * (one - slope * T(6))};
    } else if constexpr (kind == exponential) {
        const V value = exp_(z);
        return {value, value, value, value};
    } else {
        return {z, one, zero, zero};
    }
}

}  // namespace activation
