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

}  // namespace activation
