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
template <int c, int a, int b>
void multiply() {
    const auto number = [](const uint8_t* at) {
        uint16_t half;
        std::memcpy(&half, at, 2);
        const uint32_t bits = static_cast<uint32_t>(half) << 16;
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    };
    State& s = state();
    for (int m = 0; m < s.shape.rows[c]; ++m)
        for (int n = 0; n < s.shape.bytes[c] / 4; ++n) {
            float sum;
            std::memcpy(&sum, &s.bytes[c][m][4 * n], 4);
            for (int k = 0; k < s.shape.rows[b]; ++k)
                for (int i = 0; i < 4; i += 2)
                    sum += number(&s.bytes[a][m][4 * k + i]) * number(&s.bytes[b][k][4 * n + i]);
            std::memcpy(&s.bytes[c][m][4 * n], &sum, 4);
        }
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
