// A ray's steps and the cells of the occupancy grid that they lie in. See nerf/kernels/march.py for the definition, whose
// rounding this follows operation by operation, so that all backends keep the same samples.
#pragma once

#include "rounded.h"

namespace marching {

constexpr int block = 8;                // nerf.kernels.march.BLOCK
constexpr float most_steps = 16777216;  // 2^24: beyond it, float32 can't count

struct Space {  // nerf.kernels.space.Space
    float center[3], half;
    int32_t contract;
};

// nerf.kernels.cuda_rays.CourseArgs has the same layout.
struct Course {
    const float *origins, *directions;  // rays x 3
    const float *near, *far, *jitter;   // jitter: may be null
    const uint8_t *occupied, *dilated;  // dilated: may be null
    int64_t rays;
    Space space;
    int32_t resolution;
    float step, cone;
    float turn_steps, turn_distance;  // where steps begin to grow: 1 / cone and step / cone
};

DEVICE_FN float larger(float a, float b) { return a > b ? a : b; }

DEVICE_FN Rounded steps_to_distance(const Course& course, Rounded u) {
    if (course.cone <= 0 || u.value < course.turn_steps) return u * course.step;
    const Rounded late = (u - course.turn_steps) * course.cone;
    return Rounded(course.turn_distance) * expf(late.value);
}

DEVICE_FN Rounded distance_to_steps(const Course& course, Rounded t) {
    if (course.cone <= 0 || t.value < course.turn_distance) return t / course.step;
    const Rounded ratio = t / course.turn_distance;
    return Rounded(course.turn_steps) + Rounded(logf(ratio.value)) / course.cone;
}

struct Ray {
    Rounded origin[3], direction[3];
    Rounded start, count, end;  // first step, how many, and where they end; in steps
};

DEVICE_FN Ray ray_at(const Course& course, int64_t r) {
    const float *o = course.origins + 3 * r, *d = course.directions + 3 * r;
    const Rounded start = distance_to_steps(course, course.near[r]) + (course.jitter ? course.jitter[r] : 0.f);
    const Rounded all = distance_to_steps(course, course.far[r]) - start;
    const Rounded count = all.value < 0 ? 0.f : all.value;  // a NaN stays one
    return {{o[0], o[1], o[2]}, {d[0], d[1], d[2]}, start, count, start + count};
}

// Whether a ray's steps can be counted: there are fewer than 2^24.
DEVICE_FN bool countable(const Ray& ray) { return ray.count.value < most_steps; }

// The point at the distance t in the unit cube (nerf.kernels.space.to_unit).
DEVICE_FN void to_unit(const Space& space, const Rounded* origin, const Rounded* direction, float t, float* unit) {
    float norm = 1;
    UNROLL
    for (int a = 0; a < 3; ++a) {
        unit[a] = ((origin[a] + direction[a] * t - space.center[a]) / space.half).value;
        norm = larger(norm, fabsf(unit[a]));
    }
    // Inside the cube, the divisions by a norm of 1 would change nothing, to the bit.
    const bool bent = space.contract && norm != 1;
    const Rounded shrink = bent ? Rounded(2.f) - Rounded(1.f) / norm : Rounded(1.f);
    UNROLL
    for (int a = 0; a < 3; ++a) {
        const Rounded y = bent ? shrink * (Rounded(unit[a]) / norm) : Rounded(unit[a]);
        unit[a] = space.contract ? ((y + 2.f) * 0.25f).value : ((y + 1.f) * 0.5f).value;
    }
}

// Row of the flat occupancy grid, x fastest; points outside the cube go to the border, a NaN to cell 0.
DEVICE_FN int32_t cell_of(const float* unit, int32_t resolution) {
    int32_t cell[3];
    UNROLL
    for (int a = 0; a < 3; ++a) {
        const float grid = unit[a] * static_cast<float>(resolution), last = static_cast<float>(resolution) - 0.5f;
        const float low = grid > 0 ? grid : 0.f;
        cell[a] = static_cast<int32_t>(low < last ? low : last);
    }
    return (cell[2] * resolution + cell[1]) * resolution + cell[0];
}

DEVICE_FN bool lies_in(const uint8_t* cells, const Course& course, const Ray& ray, Rounded t) {
    float unit[3];
    to_unit(course.space, ray.origin, ray.direction, t.value, unit);
    return cells[cell_of(unit, course.resolution)] != 0;
}

// Whether a ray's block of steps, which begins `first` steps behind its start, may hold samples.
DEVICE_FN bool block_seen(const Course& course, const Ray& ray, float first) {
    if (!(first < ray.count.value)) return false;
    if (!course.dilated) return true;
    const Rounded middle = ray.start + first + static_cast<float>(block / 2);
    return lies_in(course.dilated, course, ray, steps_to_distance(course, middle));
}

struct Step {
    bool kept;
    float t, dt;
};

// A step of the block that begins `first` steps behind the ray's start; its t and dt where it is kept.
DEVICE_FN Step step_at(const Course& course, const Ray& ray, float first, int place) {
    const Rounded u = ray.start + first + static_cast<float>(place);
    if (!((u + 0.5f).value < ray.end.value)) return {false, 0, 0};
    const Rounded t = steps_to_distance(course, u + 0.5f);
    if (!lies_in(course.occupied, course, ray, t)) return {false, 0, 0};
    const Rounded dt = steps_to_distance(course, u + 1.f) - steps_to_distance(course, u);
    return {true, t.value, dt.value};
}

}  // namespace marching
