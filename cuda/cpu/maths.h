// exp, expm1, log1p, sine and cosine of whole vectors, to about one unit in the last place of float32. Vectors of
// float64 call the C library lane by lane: they exist for gradient checks.
#pragma once

#include "simd.h"

namespace simd {

// e^r - 1 for |r| <= ln(2) / 2, Taylor's series to r^7: error below 2^-26.
template <class V>
SHARED_FN V expm1_near_zero(V r) {
    V p = fma(r, V{} + 1.f / 5040, V{} + 1.f / 720);
    p = fma(p, r, V{} + 1.f / 120);
    p = fma(p, r, V{} + 1.f / 24);
    p = fma(p, r, V{} + 1.f / 6);
    p = fma(p, r, V{} + 1.f / 2);
    return fma(p * r, r, r);
}

template <class V>
struct Reduced {
    V remainder, lower_scale, upper_scale;  // e^x = e^remainder * lower_scale * upper_scale
};

// x = n ln 2 + r. The power 2^n is split into two, since n reaches 128 and -150, whose exponents don't exist.
template <class V>
SHARED_FN Reduced<V> reduce_exponent(V x) {
    constexpr int count = sizeof(V) / sizeof(float);
    using I = vector<int32_t, count>;
    x = x > 89.f ? V{} + 89.f : x;  // a NaN passes both
    x = x < -104.f ? V{} - 104.f : x;
    const V magic = V{} + 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
    const V n = fma(x, V{} + 1.44269504f, magic) - magic;
    V r = fma(n, V{} - 0.693145751953125f, x);  // short enough for exact products
    r = fma(n, V{} - 1.42860677e-6f, r);
    const I whole = __builtin_convertvector(n, I);
    const I half = whole >> 1;
    return {r, (V)((half + 127) << 23), (V)((whole - half + 127) << 23)};
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
    return fma(expm1_near_zero(e.remainder), scale, scale - 1.f);
}

// log(1 + y) for y in [0, 1]: 2 artanh(s), s = y / (2 + y) <= 1/3.
template <class V>
SHARED_FN V log1p_float(V y) {
    const V s = y / (y + 2.f), q = s * s;
    V p = fma(q, V{} + 1.f / 13, V{} + 1.f / 11);
    p = fma(p, q, V{} + 1.f / 9);
    p = fma(p, q, V{} + 1.f / 7);
    p = fma(p, q, V{} + 1.f / 5);
    p = fma(p, q, V{} + 1.f / 3);
    return fma(p * q, s + s, s + s);
}

// x = n pi + r with |r| <= pi / 2: pi in three parts, the first two short enough for exact products with n < 2^13.
template <class V>
SHARED_FN void sincos_float(V x, V& sine, V& cosine) {
    constexpr int count = sizeof(V) / sizeof(float);
    using I = vector<int32_t, count>;
    const V magic = V{} + 12582912.f;
    const V n = fma(x, V{} + 0.318309886f, magic) - magic;
    V r = fma(n, V{} - 3.140625f, x);
    r = fma(n, V{} - 9.67502593994140625e-4f, r);
    r = fma(n, V{} - 1.509957990978376432e-7f, r);
    const V q = r * r;
    V s = fma(q, V{} - 2.50521084e-8f, V{} + 2.75573192e-6f);
    s = fma(s, q, V{} - 1.98412698e-4f);
    s = fma(s, q, V{} + 8.33333333e-3f);
    s = fma(s, q, V{} - 1.66666667e-1f);
    s = fma(s * q, r, r);
    V c = fma(q, V{} + 2.08767570e-9f, V{} - 2.75573192e-7f);
    c = fma(c, q, V{} + 2.48015873e-5f);
    c = fma(c, q, V{} - 1.38888889e-3f);
    c = fma(c, q, V{} + 4.16666667e-2f);
    c = fma(c, q, V{} - 0.5f);
    c = fma(c, q, V{} + 1.f);
    const I sign = __builtin_convertvector(n, I) << 31;  // odd multiples of pi turn both around
    sine = (V)((I)s ^ sign);
    cosine = (V)((I)c ^ sign);
}

SHARED_FN vec<float> exp_(vec<float> x) { return exp_float(x); }
SHARED_FN vec<float> expm1_(vec<float> x) { return expm1_float(x); }
SHARED_FN vec<float> log1p_(vec<float> x) { return log1p_float(x); }
SHARED_FN void sincos_(vec<float> x, vec<float>& s, vec<float>& c) { sincos_float(x, s, c); }

template <class Fn>
SHARED_FN vec<double> each(vec<double> x, Fn fn) {
    for (int i = 0; i < lanes<double>; ++i) x[i] = fn(x[i]);
    return x;
}
SHARED_FN vec<double> exp_(vec<double> x) {
    return each(x, [](double v) { return std::exp(v); });
}
SHARED_FN vec<double> expm1_(vec<double> x) {
    return each(x, [](double v) { return std::expm1(v); });
}
SHARED_FN vec<double> log1p_(vec<double> x) {
    return each(x, [](double v) { return std::log1p(v); });
}
SHARED_FN void sincos_(vec<double> x, vec<double>& s, vec<double>& c) {
    s = each(x, [](double v) { return std::sin(v); });
    c = each(x, [](double v) { return std::cos(v); });
}

}  // namespace simd
