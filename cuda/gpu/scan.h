// Running products and sums over the lanes of a warp, by shuffles: five steps, in one order.
#pragma once

#include "device.h"

namespace scan {

// The product of this lane's factor and those of the lanes before it, among `lanes` neighbours.
template <int lanes = 32>
DEVICE_FN float product(float factor) {
    UNROLL
    for (int step = 1; step < lanes; step *= 2) {
        const float before = shuffle_up(factor, step);
        if ((lane_index() & (lanes - 1)) >= step) factor *= before;
    }
    return factor;
}

// The sum of this lane's value and those of the lanes behind it.
DEVICE_FN float sum_behind(float value) {
    UNROLL
    for (int step = 1; step < 32; step *= 2) {
        const float behind = shuffle_down(value, step);
        if (lane_index() + step < 32) value += behind;
    }
    return value;
}

}  // namespace scan
