// The fused network's matrix product on AMX's tile registers. Included by mlp_gemm.h; only where there are tiles.
#pragma once

#include "tiles.h"

#if defined(SIMD_AMX)
namespace mlp {

// Adds a's 16 `high` rows times b's 16 `wide` columns to the tiles of sums.
template <int high, int wide, class element, class operand>
void multiply_groups(const element* a, int64_t a_row, const operand* b, int64_t b_group, int groups, int pairs) {
    const int64_t a_stride = a_row * sizeof(element), b_stride = b_group * sizeof(*b);
    for (int q = 0; q < groups; q += pairs, a += 2 * pairs, b += pairs * b_group) {
        tiles::load<4>(a, a_stride);
        tiles::load<6>(b, b_stride);
        tiles::multiply<0, 4, 6>();
        if constexpr (wide > 1) {
            tiles::load<7>(b + 1, b_stride);
            tiles::multiply<1, 4, 7>();
        }
        if constexpr (high > 1) {
            tiles::load<5>(a + 16 * a_row, a_stride);
            tiles::multiply<2, 5, 6>();
            if constexpr (wide > 1) tiles::multiply<3, 5, 7>();
        }
    }
}

// Four tiles of sums at most: `high` tiles of 16 rows by `wide` tiles of 16 columns, from vector v on of the panel of
// `count` vectors that begins with v0.
template <Finish how, int high, int wide, class P>
void multiply_block(const P& p, int m0, int v0, int v, int count, int pairs) {
    constexpr int side = 16;
    const int64_t c_stride = p.c_row * sizeof(float);
    constexpr bool adds = how == Finish::add, stores = adds || how == Finish::store;
    const auto place = [&](int m, int n) { return p.c + (m0 + m * side) * p.c_row + (v0 + v + n) * side; };
    const auto begin = [&](auto t, int m, int n) {
        if constexpr (adds)
            tiles::load<t()>(place(m, n), c_stride);
        else if (p.bias)
            tiles::load<t()>(p.bias + (v0 + v + n) * side, 0);  // one row, sixteen times
        else
            tiles::zero<t()>();
    };
    using std::integral_constant;
    begin(integral_constant<int, 0>(), 0, 0);
    if constexpr (wide > 1) begin(integral_constant<int, 1>(), 0, 1);
    if constexpr (high > 1) begin(integral_constant<int, 2>(), 1, 0);
    if constexpr (high > 1 && wide > 1) begin(integral_constant<int, 3>(), 1, 1);
    const auto* panel = (p.packed ? p.b + static_cast<int64_t>(v0) * p.groups : p.b + v0) + v;
    multiply_groups<high, wide>(p.a + m0 * p.a_row, p.a_row, panel, p.packed ? count : p.b_group, p.groups, pairs);
    if (p.more.groups > 0) {
        const auto* other = p.more.b + static_cast<int64_t>(v0) * p.more.groups + v;
        multiply_groups<high, wide>(p.more.a + m0 * p.more.a_row, p.more.a_row, other, count, p.more.groups, pairs);
    }
    alignas(64) float sums[stores ? 1 : high * side][wide * side];
    const auto end = [&](auto t, int m, int n) {
        if constexpr (stores)
            tiles::store<t()>(place(m, n), c_stride);
        else
            tiles::store<t()>(&sums[stores ? 0 : m * side][n * side], sizeof(sums[0]));
    };
    end(integral_constant<int, 0>(), 0, 0);
    if constexpr (wide > 1) end(integral_constant<int, 1>(), 0, 1);
    if constexpr (high > 1) end(integral_constant<int, 2>(), 1, 0);
    if constexpr (high > 1 && wide > 1) end(integral_constant<int, 3>(), 1, 1);
    if constexpr (!stores)
        for (int m = 0; m < high * side; ++m)
            for (int n = 0; n < wide; ++n)
                p.template finish_narrow<how>((m0 + m) * p.c_row + (v0 + v + n) * side,
                                              load<vec<float>>(&sums[m][n * side]));
}

// Rows must be whole tiles, and the left operand's groups side by side.
template <Finish how, class P>
void multiply_tiles(const P& p) {
    static constexpr tiles::Shape whole = tiles::product_shape(16), half = tiles::product_shape(8);
    const int pairs = p.groups % 16 == 0 && p.more.groups % 16 == 0 ? 16 : 8;
    tiles::configure(pairs == 16 ? whole : half);
    for (int v0 = 0; v0 < p.vectors; v0 += P::widest) {
        const int count = std::min(P::widest, p.vectors - v0);
        for (int v = 0; v < count; v += 2) {
            const bool two = count - v > 1;
            int m = 0;
            for (; m + 32 <= p.rows; m += 32)
                two ? multiply_block<how, 2, 2>(p, m, v0, v, count, pairs)
                    : multiply_block<how, 2, 1>(p, m, v0, v, count, pairs);
            if (m < p.rows)
                two ? multiply_block<how, 1, 2>(p, m, v0, v, count, pairs)
                    : multiply_block<how, 1, 1>(p, m, v0, v, count, pairs);
        }
    }
}

// to[n][q] = from[q][n], blocks of 16 x 16 numbers of 32 bits; both sides are whole blocks.
inline void transpose(const int32_t* from, int rows, int columns, int32_t* to) {
    for (int q = 0; q < rows; q += 16)
        for (int n = 0; n < columns; n += 16) {
            __m512i a[16], b[16];
            for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + static_cast<int64_t>(q + i) * columns + n);
            for (int i = 0; i < 16; i += 2) {
                b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
                b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
            }
            for (int i = 0; i < 16; i += 4)
                for (int j = 0; j < 2; ++j) {
                    a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + 2 + j]);
                    a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + 2 + j]);
                }
            // a[4 i + j] holds column j + 4 k of rows 4 i to 4 i + 3 in its quarter k.
            for (int j = 0; j < 4; ++j) {
                const __m512i even = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
                const __m512i odd = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
                const __m512i late = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
                const __m512i last = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
                const auto put = [&](int column, __m512i v) {
                    _mm512_storeu_si512(to + static_cast<int64_t>(n + column) * rows + q, v);
                };
                put(j, _mm512_shuffle_i32x4(even, late, 0x88));
                put(8 + j, _mm512_shuffle_i32x4(even, late, 0xdd));
                put(4 + j, _mm512_shuffle_i32x4(odd, last, 0x88));
                put(12 + j, _mm512_shuffle_i32x4(odd, last, 0xdd));
            }
        }
}

}  // namespace mlp
#endif
