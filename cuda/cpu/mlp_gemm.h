// Number formats of the fused network, and the one matrix product that all its passes are made of.
//
// An operand is held in groups along the summed axis: two bfloat16 numbers that one instruction multiplies and adds, or
// a single float. The left operand's groups are broadcast, the right one's are vectors:
//     c[m][n] += sum over groups q of dot(a[m][q], b[q][n])
#pragma once

#include <algorithm>
#include <type_traits>

#include "simd.h"
#include "tiles.h"

namespace mlp {

using simd::lanes;
using simd::load;
using simd::store;
using simd::vec;

template <class T>
struct Plain {  // float32 and float64: a group is one number
    using real = T;
    using element = T;
    using operand = vec<T>;
    static constexpr int group = 1, group_unit = 1, row_unit = 4;
    SHARED_FN element narrow(real x) { return x; }
    SHARED_FN void store_narrow(element* to, vec<real> v) { store(to, v); }
    SHARED_FN vec<real> widen(const element* from) { return load<vec<real>>(from); }
    SHARED_FN operand broadcast(const element* from) { return simd::splat<operand>(*from); }
    SHARED_FN vec<real> madd(operand a, operand b, vec<real> c) { return simd::fma(a, b, c); }
};

#if defined(__AVX512BF16__)
struct BFloat16 {  // products of pairs, sums in float32
    using real = float;
    using element = uint16_t;
    using operand = vec<int32_t>;
    static constexpr int group = 2;
#if defined(SIMD_AMX)
    static constexpr int group_unit = 8, row_unit = 32;  // half a tile of pairs; a tile's worth of a sum over rows
#else
    static constexpr int group_unit = 1, row_unit = 4;
#endif
    SHARED_FN element narrow(real x) {
        return static_cast<element>(_mm_extract_epi16((__m128i)_mm_cvtneps_pbh(_mm_set_ss(x)), 0));
    }
    SHARED_FN void store_narrow(element* to, vec<real> v) { store(to, (__m256i)_mm512_cvtneps_pbh(v)); }
    SHARED_FN vec<real> widen(const element* from) {
        using wide = simd::vector<uint32_t, lanes<real>>;
        return (vec<real>)(__builtin_convertvector(load<simd::vector<uint16_t, lanes<real>>>(from), wide) << 16);
    }
    SHARED_FN operand broadcast(const element* from) { return simd::splat<operand>(load<int32_t>(from)); }
    SHARED_FN vec<real> madd(operand a, operand b, vec<real> c) {
        return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
    }
};
#endif

// Columns are padded to whole vectors, and to 4 at least; rows and groups to the format's units: what the tiles below
// cover exactly.
template <class T>
constexpr int unit = lanes<T> > 4 ? lanes<T> : 4;
template <class T>
constexpr int padded(int n) {
    return (n + unit<T> - 1) / unit<T> * unit<T>;
}

enum class Finish { store, add, narrow, narrow_relu, narrow_masked };

template <Finish how, class P>
void multiply_tiles(const P& product);

// c[m][n] = finish(sum over groups of a b + bias[n]); `more`, where it has groups, adds a second product to that sum.
template <class F>
struct Product {
    using real = typename F::real;
    using element = typename F::element;
    using operand = typename F::operand;

    int rows, vectors, groups;
    const element* a = nullptr;  // groups of row m: a + m * a_row + q * a_group
    int64_t a_row = 0, a_group = 0;
    // Vector v of group q: b + q * b_group + v, or, if packed, in panels of `widest` vectors.
    const typename F::operand* b = nullptr;
    int64_t b_group = 0;
    bool packed = true;
    struct More {
        int groups = 0;
        const element* a = nullptr;  // groups of row m: a + m * a_row + q * group
        int64_t a_row = 0;
        const typename F::operand* b = nullptr;  // packed
    } more = {};
    Finish finish = Finish::store;
    real* c = nullptr;          // store, add
    element* narrow = nullptr;  // the others: rounded to the format, in the same layout
    int64_t c_row = 0;
    const real* bias = nullptr;
    const element* mask = nullptr;  // narrow_masked: as `narrow`; the result is 0 wherever this is

    // Vectors of a panel: as many as the accumulators leave room for.
    static constexpr int widest = SIMD_REGISTERS == 32 ? 4 : 2;

    void run() const {
#if defined(SIMD_AMX)
        if constexpr (F::group > 1) return with_finish([&](auto how) { multiply_tiles<how()>(*this); });
#endif
        for (int v = 0; v < vectors; v += widest) {
            const int count = std::min(widest, vectors - v);
            const auto* panel = packed ? b + static_cast<int64_t>(v) * groups : b + v;
            const int64_t stride = packed ? count : b_group;
            if constexpr (widest == 4) {
                switch (count) {
                    case 4: column<6, 4>(v, panel, stride); break;
                    case 3: column<8, 3>(v, panel, stride); break;
                    case 2: column<8, 2>(v, panel, stride); break;
                    default: column<16, 1>(v, panel, stride); break;
                }
            } else {
                if (count == 2)
                    column<6, 2>(v, panel, stride);
                else
                    column<8, 1>(v, panel, stride);
            }
        }
    }

    // One vector of sums, rounded to the format at `at` of `narrow`.
    template <Finish how>
    inline __attribute__((always_inline)) void finish_narrow(int64_t at, vec<real> sum) const {
        const vec<real> zero = {};
        if constexpr (how == Finish::narrow_relu) sum = sum <= zero ? zero : sum;
        if constexpr (how == Finish::narrow_masked) sum = F::widen(mask + at) == zero ? zero : sum;
        F::store_narrow(narrow + at, sum);
    }

private:
    template <class Fn>
    inline __attribute__((always_inline)) void with_finish(Fn&& fn) const {
        switch (finish) {
            case Finish::store: return fn(std::integral_constant<Finish, Finish::store>());
            case Finish::add: return fn(std::integral_constant<Finish, Finish::add>());
            case Finish::narrow: return fn(std::integral_constant<Finish, Finish::narrow>());
            case Finish::narrow_relu: return fn(std::integral_constant<Finish, Finish::narrow_relu>());
            case Finish::narrow_masked: return fn(std::integral_constant<Finish, Finish::narrow_masked>());
        }
    }

    // All rows of `count` vectors of columns: tiles of `height` rows, and of 4 at the end.
    template <int height, int count>
    void column(int v, const typename F::operand* panel, int64_t stride) const {
        int m = 0;
        for (; rows - m >= height && (height != 6 || rows - m != 8); m += height)
            tile<height, count>(m, v, panel, stride);
        for (; m < rows; m += 4) tile<4, count>(m, v, panel, stride);
    }

    template <int height, int count>
    void tile(int m0, int v0, const typename F::operand* panel, int64_t stride) const {
        vec<real> sum[height][count];
#pragma GCC unroll 4
        for (int v = 0; v < count; ++v) {
            const vec<real> start = bias ? load<vec<real>>(bias + (v0 + v) * lanes<real>) : vec<real>{};
#pragma GCC unroll 16
            for (int m = 0; m < height; ++m) sum[m][v] = start;
        }
        const element* left = a + m0 * a_row;
        const typename F::operand* right = panel;
        int64_t row_step = a_row, left_step = a_group, right_step = stride;
        for (int todo = groups, part = 0;;) {
            for (; todo > 0; --todo, left += left_step, right += right_step) {
                typename F::operand columns[count];
#pragma GCC unroll 4
                for (int v = 0; v < count; ++v) columns[v] = load<typename F::operand>(right + v);
#pragma GCC unroll 16
                for (int m = 0; m < height; ++m) {
                    const auto row = F::broadcast(left + m * row_step);
#pragma GCC unroll 4
                    for (int v = 0; v < count; ++v) sum[m][v] = F::madd(row, columns[v], sum[m][v]);
                }
            }
            if (part++ > 0 || more.groups == 0) break;
            left = more.a + m0 * more.a_row, right = more.b + static_cast<int64_t>(v0) * more.groups;
            row_step = more.a_row, left_step = F::group, right_step = count, todo = more.groups;
        }
        with_finish([&](auto how) { end<how()>(m0, v0, sum); });  // once a tile, not once a vector
    }

    template <Finish how, int height, int count>
    inline __attribute__((always_inline)) void end(int m0, int v0, const vec<real> (&sums)[height][count]) const {
#pragma GCC unroll 16
        for (int m = 0; m < height; ++m) {
            const int64_t row = (m0 + m) * c_row + v0 * lanes<real>;
#pragma GCC unroll 4
            for (int v = 0; v < count; ++v) {
                const vec<real> sum = sums[m][v];
                const int64_t at = row + v * lanes<real>;
                if constexpr (how == Finish::store) store(c + at, sum);
                if constexpr (how == Finish::add) store(c + at, load<vec<real>>(c + at) + sum);
                if constexpr (how != Finish::store && how != Finish::add) finish_narrow<how>(at, sum);
            }
        }
    }
};

}  // namespace mlp

#include "mlp_tiles.h"
