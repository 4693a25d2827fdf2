// exp_, expm1_, log1p_, sincos_ of float32 numbers and the activations: what the CPU's kernels compute, to the last bits
// that contraction leaves.
#pragma once

#include "device.h"

namespace maths {

DEVICE_FN float fma_(float a, float b, float c) { return ::fma_(a, b, c); }
DEVICE_FN int32_t truncated(float x) { return static_cast<int32_t>(x); }
DEVICE_FN int32_t bits(float x) { return static_cast<int32_t>(float_bits(x)); }
DEVICE_FN float number(int32_t bits) { return bits_float(static_cast<uint32_t>(bits)); }

}  // namespace maths
#include "../shared/maths.h"

DEVICE_FN float exp_(float x) { return maths::exp_float(x); }
DEVICE_FN float expm1_(float x) { return maths::expm1_float(x); }
DEVICE_FN float log1p_(float x) { return maths::log1p_float(x); }
DEVICE_FN void sincos_(float x, float& sine, float& cosine) { maths::sincos_float(x, sine, cosine); }

#include "../shared/activation.h"
