// Where a point lies in one level of the hash grid, and which rows of the table the corners of its cell read.
//
// Written once for scalars (CUDA) and for SIMD vectors (CPU): `V` is a real or a vector of reals, `I` the integer or
// the vector of integers that goes with it. The includer defines SHARED_FN (the qualifiers of a small inline function).
#pragma once

#if !defined(__CUDACC_RTC__)  // gpu/device.h declares the same names there
#include <cstdint>
#endif

namespace grid {

// Mueller et al. 2022, equation 4. The first prime is 1, so that neighbours in x stay close in memory.
constexpr uint32_t prime_y = 2654435761u;
constexpr uint32_t prime_z = 805459861u;

struct Level {
    int32_t resolution;  // cells per side
    bool dense;          // every corner has a row of its own
    uint32_t rows;       // rows of this level; a power of two where it is hashed
    int64_t first;       // its first row in the table of all levels
};

// What one axis adds to a corner's row: for a dense level a stride, for a hashed one a prime (products wrap).
SHARED_FN uint32_t factor(const Level& level, int axis) {
    const uint32_t side = static_cast<uint32_t>(level.resolution) + 1;
    if (axis == 0) return 1;
    if (level.dense) return axis == 1 ? side : side * side;
    return axis == 1 ? prime_y : prime_z;
}

// Row of a corner from its three axes' integer coordinates, each times `factor`.
template <class I>
SHARED_FN I dense_row(I x, I y, I z) {
    return x + y + z;
}
template <class I>
SHARED_FN I hashed_row(I x, I y, I z, uint32_t mask) {
    return (x ^ y ^ z) & mask;
}

// Lower corner of the cell on one axis, as a real; the caller truncates it. Points outside the cube go to the border
// cells, whose linear pieces go on; a NaN goes to cell 0, so that no address is out of range.
template <class V>
SHARED_FN V clamp_to_cells(V position, V last) {
    const V above = position > V{} ? position : V{};
    return above < last ? above : last;
}

}  // namespace grid
