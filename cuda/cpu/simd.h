// Vectors of the widest registers that the build allows, on GCC's and Clang's vector types: one source for every
// instruction set. Sums of products go through `fma`, and the build forbids the compiler to contract others, so that
// what must round as torch rounds (the marching of rays) does.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#define SHARED_FN static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define SIMD_AVX512 1
#define SIMD_BYTES 64
#define SIMD_REGISTERS 32
#elif defined(__AVX2__) && defined(__FMA__)
#define SIMD_AVX2 1
#define SIMD_BYTES 32
#define SIMD_REGISTERS 16
#elif defined(__aarch64__)
#define SIMD_BYTES 16
#define SIMD_REGISTERS 32
#else
#define SIMD_BYTES 16
#define SIMD_REGISTERS 16
#endif

namespace simd {

template <class T, int count>
struct VectorOf {
    typedef T type __attribute__((vector_size(sizeof(T) * count)));
};
template <class T, int count>
using vector = typename VectorOf<T, count>::type;

template <class T>
constexpr int lanes = SIMD_BYTES / static_cast<int>(sizeof(T));
template <class T>
using vec = vector<T, lanes<T>>;
template <class T>
using ivec = vector<int32_t, lanes<T>>;  // as many integers as there are reals
template <class T>
using uvec = vector<uint32_t, lanes<T>>;

template <class V, class T>
SHARED_FN V load(const T* from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
}
template <class V, class T>
SHARED_FN void store(T* to, V v) {
    std::memcpy(to, &v, sizeof(V));
}

// `x` in every lane. (x - 0 is x, also for a zero's sign; 0 + x is not, and would cost an addition.)
template <class V, class T>
SHARED_FN V splat(T x) {
    return x - V{};
}

template <class V>
SHARED_FN V fma(V a, V b, V c) {
    return a * b + c;
}
#if defined(SIMD_AVX512)
SHARED_FN vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
SHARED_FN vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }
#endif
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
SHARED_FN vector<float, 8> fma(vector<float, 8> a, vector<float, 8> b, vector<float, 8> c) {
    return _mm256_fmadd_ps(a, b, c);
}
SHARED_FN vector<float, 4> fma(vector<float, 4> a, vector<float, 4> b, vector<float, 4> c) {
    return _mm_fmadd_ps(a, b, c);
}
SHARED_FN vector<double, 4> fma(vector<double, 4> a, vector<double, 4> b, vector<double, 4> c) {
    return _mm256_fmadd_pd(a, b, c);
}
SHARED_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
#elif defined(__aarch64__)
SHARED_FN vector<float, 4> fma(vector<float, 4> a, vector<float, 4> b, vector<float, 4> c) {
    vector<float, 4> r;
    for (int i = 0; i < 4; ++i) r[i] = __builtin_fmaf(a[i], b[i], c[i]);  // one fmla
    return r;
}
#endif

}  // namespace simd
