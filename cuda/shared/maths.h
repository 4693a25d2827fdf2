// exp, expm1, log1p, sine and cosine to about one unit in the last place of float32, once for scalars and SIMD vectors.
//
// The includer defines SHARED_FN and declares in namespace maths, before this header and for every `V` that it uses:
// fma_(V, V, V), truncated(V) to integers, bits(V) and number(integers) as which bits are read.
#pragma once

namespace maths {

// e^r - 1 for |r| <= ln(2) / 2, Taylor's series to r^7: error below 2^-26.
template <class V>
SHARED_FN V expm1_near_zero(V r) {
    V p = fma_(r, V{} + 1.f / 5040, V{} + 1.f / 720);
    p = fma_(p, r, V{} + 1.f / 120);
    p = fma_(p, r, V{} + 1.f / 24);
    p = fma_(p, r, V{} + 1.f / 6);
    p = fma_(p, r, V{} + 1.f / 2);
    return fma_(p * r, r, r);
}

template <class V>
struct Reduced {
    V remainder, lower_scale, upper_scale;  // e^x = e^remainder * lower_scale * upper_scale
};

// x = n ln 2 + r. The power 2^n is split into two, since n reaches 128 and -150, whose exponents don't exist.
template <class V>
SHARED_FN Reduced<V> reduce_exponent(V x) {
    x = x > 89.f ? V{} + 89.f : x;  // a NaN passes both
    x = x < -104.f ? V{} - 104.f : x;
    const V magic = V{} + 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
    const V n = fma_(x, V{} + 1.44269504f, magic) - magic;
    V r = fma_(n, V{} - 0.693145751953125f, x);  // short enough for exact products
    r = fma_(n, V{} - 1.42860677e-6f, r);
    const auto whole = truncated(n);
    const auto half = whole >> 1;
    return {r, number((half + 127) << 23), number((whole - half + 127) << 23)};
}

template <class V>
SHARED_FN V exp_float(V x) {
    const Reduced<V> e = reduce_exponent(x);
    return (expm1_near_zero(e.remainder) + 1.f) * e.lower_scale * e.upper_scale;
}

// e^x - 1 = 2^n (e^r - 1) + (2^n - 1), without cancellation near zero. For x <= 88.
template <class V>
SHARED_FN V expm1_float(V x) {
    const Reduced<V> e = reduce_exponent(x);
    const V scale = e.lower_scale * e.upper_scale;
    return fma_(expm1_near_zero(e.remainder), scale, scale - 1.f);
}

// log(1 + y) for y in [0, 1]: 2 artanh(s), s = y / (2 + y) <= 1/3.
template <class V>
SHARED_FN V log1p_float(V y) {
    const V s = y / (y + 2.f), q = s * s;
    V p = fma_(q, V{} + 1.f / 13, V{} + 1.f / 11);
    p = fma_(p, q, V{} + 1.f / 9);
    p = fma_(p, q, V{} + 1.f / 7);
    p = fma_(p, q, V{} + 1.f / 5);
    p = fma_(p, q, V{} + 1.f / 3);
    return fma_(p * q, s + s, s + s);
}

// x = n pi + r with |r| <= pi / 2: pi in three parts, the first two short enough for exact products with n < 2^13.
template <class V>
SHARED_FN void sincos_float(V x, V& sine, V& cosine) {
    const V magic = V{} + 12582912.f;
    const V n = fma_(x, V{} + 0.318309886f, magic) - magic;
    V r = fma_(n, V{} - 3.140625f, x);
    r = fma_(n, V{} - 9.67502593994140625e-4f, r);
    r = fma_(n, V{} - 1.509957990978376432e-7f, r);
    const V q = r * r;
    V s = fma_(q, V{} - 2.50521084e-8f, V{} + 2.75573192e-6f);
    s = fma_(s, q, V{} - 1.98412698e-4f);
    s = fma_(s, q, V{} + 8.33333333e-3f);
    s = fma_(s, q, V{} - 1.66666667e-1f);
    s = fma_(s * q, r, r);
    V c = fma_(q, V{} + 2.08767570e-9f, V{} - 2.75573192e-7f);
    c = fma_(c, q, V{} + 2.48015873e-5f);
    c = fma_(c, q, V{} - 1.38888889e-3f);
    c = fma_(c, q, V{} + 4.16666667e-2f);
    c = fma_(c, q, V{} - 0.5f);
    c = fma_(c, q, V{} + 1.f);
    const auto sign = truncated(n) << 31;  // odd multiples of pi turn both around
    sine = number(bits(s) ^ sign);
    cosine = number(bits(c) ^ sign);
}

}  // namespace maths
