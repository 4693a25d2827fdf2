// One ray's march through an occupancy grid. See nerf/kernels/march.py for the definition, whose rounding this follows
// operation by operation, so that both keep the same samples.
//
// Eight steps of a ray lie in one vector. A block of eight is passed over where the dilated grid says that its middle
// is far from anything.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "maths.h"

namespace marching {

constexpr int block = 8;  // nerf.kernels.march.BLOCK
using V = simd::vector<float, block>;
using I = simd::vector<int32_t, block>;

struct Space {  // nerf.kernels.space.Space
    float center[3], half;
    bool contract;
};

struct Call {
    const float *origins, *directions;  // rays x 3
    const float *start, *count;         // first step of each ray, and how many it takes; in steps
    const uint8_t *occupied, *dilated;  // dilated: may be null
    int resolution;
    Space space;
    float step, cone;
    float turn, turn_distance;  // where steps begin to grow, in steps and in scene units
};

inline V maximum(V a, V b) { return a > b ? a : b; }

inline bool any(I lanes) {
    uint64_t pairs[block / 2];
    static_assert(sizeof(pairs) == sizeof(lanes));
    std::memcpy(pairs, &lanes, sizeof(lanes));
    return ((pairs[0] | pairs[1]) | (pairs[2] | pairs[3])) != 0;
}

inline V steps_to_distance(const Call& call, V u) {
    if (call.cone <= 0) return u * call.step;
    const V late = maximum(u, V{} + call.turn);
    return u < call.turn ? u * call.step : call.turn_distance * simd::exp_float((late - call.turn) * call.cone);
}

// Rows of the occupancy grid in which the points at the distances t lie.
inline I cells(const Call& call, const float* origin, const float* direction, V t) {
    V y[3], norm = V{} + 1.f;
    for (int a = 0; a < 3; ++a) {
        const V x = origin[a] + direction[a] * t;
        y[a] = (x - call.space.center[a]) / call.space.half;
        norm = maximum(norm, y[a] > V{} ? y[a] : -y[a]);
    }
    // Where all of them lie in the cube, the divisions by a norm of 1 would change nothing, to the bit.
    const bool contract = call.space.contract && any(norm != 1.f), wide = call.space.contract;
    I cell[3];
    for (int a = 0; a < 3; ++a) {
        V unit = wide ? (y[a] + 2.f) / 4.f : (y[a] + 1.f) / 2.f;
        if (contract) unit = ((2.f - 1.f / norm) * (y[a] / norm) + 2.f) / 4.f;
        const V grid = unit * static_cast<float>(call.resolution);
        const V low = grid > V{} ? grid : V{};  // a NaN goes to cell 0
        const V last = V{} + (static_cast<float>(call.resolution) - 0.5f);
        cell[a] = __builtin_convertvector(low < last ? low : last, I);
    }
    return (cell[2] * call.resolution + cell[1]) * call.resolution + cell[0];
}

struct Samples {
    std::vector<float> t, dt;
    void reserve(size_t more) {  // room for a block beyond the samples kept
        if (t.size() < more) t.resize(more * 2), dt.resize(more * 2);
    }
    int64_t kept = 0;
};

// Keeps the samples of the block of steps that begins at u.
inline void take_block(const Call& call, const float* origin, const float* direction, float u0, float end, Samples& to) {
    const V u = u0 + V{0, 1, 2, 3, 4, 5, 6, 7};
    const V t = steps_to_distance(call, u + 0.5f);
    const I row = cells(call, origin, direction, t);
    const I before = u + 0.5f < end;
    int keep[block], found = 0;
    for (int i = 0; i < block; ++i) found += keep[i] = before[i] != 0 && call.occupied[row[i]] != 0;
    if (!found) return;  // most blocks: spared the lengths of their steps
    const V dt = steps_to_distance(call, u + 1.f) - steps_to_distance(call, u);
    to.reserve(to.kept + block);
    for (int i = 0; i < block; ++i) {  // written always, kept where occupied: no branch to guess
        to.t[to.kept] = t[i];
        to.dt[to.kept] = dt[i];
        to.kept += keep[i];
    }
}

constexpr int stretch = block * block;  // steps: eight blocks' middles lie in one vector

// Keeps the samples of a ray's stretch that begins `first` steps, a multiple of its length, behind the ray's start.
inline void march_stretch(const Call& call, int64_t ray, float first, Samples& to) {
    const float *origin = call.origins + ray * 3, *direction = call.directions + ray * 3;
    const float start = call.start[ray], count = call.count[ray], end = start + count;
    const V every = V{0, 1, 2, 3, 4, 5, 6, 7} * static_cast<float>(block);
    const V begin = start + (first + every);
    I seen = first + every < count;
    if (call.dilated) {
        const V middle = steps_to_distance(call, begin + static_cast<float>(block / 2));
        const I row = cells(call, origin, direction, middle);
        for (int b = 0; b < block; ++b) seen[b] = seen[b] != 0 && call.dilated[row[b]] != 0;
    }
    for (int b = 0; b < block; ++b)
        if (seen[b]) take_block(call, origin, direction, begin[b], end, to);
}

inline void march_ray(const Call& call, int64_t ray, Samples& to) {
    for (float first = 0; first < call.count[ray]; first += stretch) march_stretch(call, ray, first, to);
}

// numbers: centre (3) and half side of the space, step, cone; rounded here as torch rounds a Python number.
inline Call make_call(const float* origins, const float* directions, const float* start, const float* count,
                      const uint8_t* occupied, const uint8_t* dilated, int resolution, int contract,
                      const double* numbers) {
    const auto number = [&](int i) { return static_cast<float>(numbers[i]); };
    const double step = numbers[4], cone = numbers[5];
    return {origins, directions, start, count, occupied, dilated, resolution,
            {{number(0), number(1), number(2)}, number(3), contract != 0},
            number(4), number(5), static_cast<float>(1 / cone), static_cast<float>(step / cone)};
}

}  // namespace marching
