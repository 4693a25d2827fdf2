// float32 whose every operation rounds by itself. Compilers for GPUs fuse products with the sums after them, which round
// once: a sample on the border of a cell would then be kept here and dropped by the other backends.
#pragma once

#include "device.h"

struct Rounded {
    float value;

    DEVICE_FN Rounded(float v = 0) : value(v) {}
};

#if defined(EMULATED)  // compiled without fused products
DEVICE_FN Rounded operator+(Rounded a, Rounded b) { return a.value + b.value; }
DEVICE_FN Rounded operator-(Rounded a, Rounded b) { return a.value - b.value; }
DEVICE_FN Rounded operator*(Rounded a, Rounded b) { return a.value * b.value; }
DEVICE_FN Rounded operator/(Rounded a, Rounded b) { return a.value / b.value; }
#else
DEVICE_FN Rounded operator+(Rounded a, Rounded b) { return __fadd_rn(a.value, b.value); }
DEVICE_FN Rounded operator-(Rounded a, Rounded b) { return __fsub_rn(a.value, b.value); }
DEVICE_FN Rounded operator*(Rounded a, Rounded b) { return __fmul_rn(a.value, b.value); }
DEVICE_FN Rounded operator/(Rounded a, Rounded b) { return __fdiv_rn(a.value, b.value); }
#endif
