// Adam where there is a gradient. See nerf/kernels/adam.py for the definition.
#include <algorithm>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

using V = simd::vec<float>;
constexpr int lanes = simd::lanes<float>;
constexpr int64_t task_numbers = 1 << 16;

struct Settings {
    float beta1, beta2, eps, rate, unbias;  // rate: over 1 - beta1^step; unbias: 1 / sqrt(1 - beta2^step)
};

V square_root(V x) {
#if defined(SIMD_AVX512)
    return (V)_mm512_sqrt_ps((__m512)x);
#else
    for (int i = 0; i < lanes; ++i) x[i] = std::sqrt(x[i]);
    return x;
#endif
}

// Whether any lane is other than zero: most of a large table has had no gradient, and none of the rest is read for it.
bool any(V g) {
    using Words = simd::vector<uint64_t, SIMD_BYTES / 8>;
    const Words bits = (Words)g << 1;  // the upper sign of a pair goes, the lower one only costs a look for nothing
    uint64_t all = 0;
    for (int i = 0; i < SIMD_BYTES / 8; ++i) all |= bits[i];
    return all != 0;
}

void update(const Settings& s, V g, float* param, float* mean, float* square) {
    const V zero = {};
    const V m = simd::load<V>(mean), v = simd::load<V>(square), p = simd::load<V>(param);
    const V new_m = simd::fma(g - m, zero + (1 - s.beta1), m);
    const V new_v = simd::fma(g * g, zero + (1 - s.beta2), v * s.beta2);
    const V new_p = p - new_m * s.rate / (square_root(new_v) * s.unbias + s.eps);
    simd::store(mean, g == zero ? m : new_m);
    simd::store(square, g == zero ? v : new_v);
    simd::store(param, g == zero ? p : new_p);
}

}  // namespace

EXPORT const char* nerf_adam(int threads, int64_t count, float* param, const float* grad, float* mean, float* square,
                             double beta1, double beta2, double eps, double rate, double unbias) {
    return guarded([&] {
        const Settings s = {static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(eps),
                            static_cast<float>(rate), static_cast<float>(unbias)};
        threads::parallel_for(threads, (count + task_numbers - 1) / task_numbers, [&](int64_t task) {
            const int64_t end = std::min(count, (task + 1) * task_numbers);
            int64_t i = task * task_numbers;
            for (; i + lanes <= end; i += lanes) {
                const V g = simd::load<V>(grad + i);
                if (any(g)) update(s, g, param + i, mean + i, square + i);
            }
            if (i == end) return;
            alignas(64) float rest[4][lanes] = {};
            const size_t bytes = (end - i) * sizeof(float);
            std::memcpy(rest[0], param + i, bytes), std::memcpy(rest[1], grad + i, bytes);
            std::memcpy(rest[2], mean + i, bytes), std::memcpy(rest[3], square + i, bytes);
            update(s, simd::load<V>(rest[1]), rest[0], rest[2], rest[3]);
            std::memcpy(param + i, rest[0], bytes);
            std::memcpy(mean + i, rest[2], bytes), std::memcpy(square + i, rest[3], bytes);
        });
    });
}
