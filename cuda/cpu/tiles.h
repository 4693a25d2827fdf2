// Tile registers of AMX: eight of 16 rows of 64 bytes, and one instruction that multiplies two of them into a third.
//
// Written as assembly, since compilers' own functions for them let stores to memory pass a tile's load. Where
// NERF_EMULATE_AMX is defined, plain loops stand in for the instructions, so that tests reach what is built on them on
// processors that lack them.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__) && (defined(NERF_EMULATE_AMX) || (defined(__AMX_TILE__) && defined(__AMX_BF16__)))
#define SIMD_AMX 1

namespace tiles {

struct alignas(64) Shape {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0 to 3 hold sums, 16 x 16 floats. 4 and 5 hold 16 rows of `pairs` pairs of bfloat16 numbers, 6 and 7 hold
// `pairs` rows of 16 pairs.
constexpr Shape product_shape(int pairs) {
    Shape s;
    for (int t = 0; t < 8; ++t) {
        s.rows[t] = static_cast<uint8_t>(t < 6 ? 16 : pairs);
        s.bytes[t] = static_cast<uint16_t>(t == 4 || t == 5 ? pairs * 4 : 64);
    }
    return s;
}

#if defined(NERF_EMULATE_AMX)

struct State {
    Shape shape;
    uint8_t bytes[8][16][64];
};
inline State& state() {
    static thread_local State s;
    return s;
}
inline void configure(const Shape& shape) {
    state().shape = shape;
    std::memset(state().bytes, 0, sizeof(State::bytes));
}
inline void release() { std::memset(state().bytes, 0xff, sizeof(State::bytes)); }
template <int t>
void zero() {
    std::memset(state().bytes[t], 0, sizeof(state().bytes[t]));
}
template <int t>
void load(const void* from, int64_t stride) {
    zero<t>();
    for (int r = 0; r < state().shape.rows[t]; ++r)
        std::memcpy(state().bytes[t][r], static_cast<const char*>(from) + r * stride, state().shape.bytes[t]);
}
template <int t>
void store(void* to, int64_t stride) {
    for (int r = 0; r < state().shape.rows[t]; ++r)
        std::memcpy(static_cast<char*>(to) + r * stride, state().bytes[t][r], state().shape.bytes[t]);
}
// sums "m n" += a "m 2k" times b "k n 2", rows of 64 bytes all. Always optimised and never instrumented: it stays within the
// tiles, and a check would spend all its time here.
__attribute__((noinline, optimize("O2"), no_sanitize("address", "thread", "undefined"))) inline void multiply_tiles(
    int rows, int columns, int pairs, uint8_t (*c)[64], uint8_t (*a)[64], uint8_t (*b)[64]) {
    for (int m = 0; m < rows; ++m) {
        float sums[16], x[16];
        __builtin_memcpy(sums, c[m], sizeof(sums));
        for (int k = 0; k < pairs; ++k)
            for (int half = 0; half < 2; ++half) {  // a bfloat16 number is the upper half of a float
                uint16_t bits;
                __builtin_memcpy(&bits, &a[m][4 * k + 2 * half], 2);
                const uint32_t wide = static_cast<uint32_t>(bits) << 16;
                float y;
                __builtin_memcpy(&y, &wide, 4);
                uint32_t pair[16];
                __builtin_memcpy(pair, b[k], sizeof(pair));
                for (int n = 0; n < columns; ++n) pair[n] = half ? pair[n] & 0xffff0000u : pair[n] << 16;
                __builtin_memcpy(x, pair, sizeof(x));
                for (int n = 0; n < columns; ++n) sums[n] += y * x[n];
            }
        __builtin_memcpy(c[m], sums, 4 * columns);
    }
}
template <int c, int a, int b>
void multiply() {
    State& s = state();
    multiply_tiles(s.shape.rows[c], s.shape.bytes[c] / 4, s.shape.rows[b], s.bytes[c], s.bytes[a], s.bytes[b]);
}

#else

inline void configure(const Shape& shape) { __asm__ volatile("ldtilecfg %0" ::"m"(shape)); }
inline void release() { __asm__ volatile("tilerelease"); }
template <int t>
inline __attribute__((always_inline)) void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(t));
}
template <int t>
inline __attribute__((always_inline)) void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(t) : "memory");
}
template <int t>
inline __attribute__((always_inline)) void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(t) : "memory");
}
// c += a b, sums in float32, over all of a's columns.
template <int c, int a, int b>
inline __attribute__((always_inline)) void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

#endif

}  // namespace tiles
#endif
