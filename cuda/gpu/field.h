// A hash grid's field: what its networks give becomes density, and what density gets becomes theirs. See
// nerf/kernels/frame.py for the definition.
#pragma once

#include "device.h"

namespace field {

constexpr float highest_raw = 60, steepest_raw = 15;  // HIGHEST_RAW, STEEPEST_RAW in nerf/kernels/frame.py

struct Density {
    float bias, scale;
};

DEVICE_FN float density_of(const Density& density, float raw) {
    raw += density.bias;
    return expf(raw > highest_raw ? highest_raw : raw) * density.scale;  // a NaN stays one
}

// d density / d raw, which stops to grow (nerf.kernels.frame.TruncatedExp).
DEVICE_FN float density_slope(const Density& density, float raw) {
    raw += density.bias;
    raw = raw > steepest_raw ? steepest_raw : raw;
    return expf(raw < -steepest_raw ? -steepest_raw : raw) * density.scale;
}

}  // namespace field
