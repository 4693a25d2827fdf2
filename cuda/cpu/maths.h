// exp, expm1, log1p, sine and cosine of whole vectors. Vectors of float64 call the C library lane by lane: they exist for
// gradient checks.
#pragma once

#include "simd.h"

namespace maths {

template <class V>
using Integers = simd::vector<int32_t, sizeof(V) / sizeof(float)>;
template <class V>
SHARED_FN V fma_(V a, V b, V c) {
    return simd::fma(a, b, c);
}
template <class V>
SHARED_FN Integers<V> truncated(V x) {
    return __builtin_convertvector(x, Integers<V>);
}
template <class V>
SHARED_FN Integers<V> bits(V x) {
    return (Integers<V>)x;
}
template <class I>
SHARED_FN auto number(I bits) {
    return (simd::vector<float, sizeof(I) / sizeof(float)>)bits;
}

}  // namespace maths
#include "../shared/maths.h"

namespace simd {

using maths::exp_float, maths::expm1_float, maths::log1p_float, maths::sincos_float;

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
