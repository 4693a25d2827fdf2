// Adam (Kingma and Ba 2015, algorithm 1) on flat arrays, in one pass over memory.
#include <algorithm>
#include <cmath>

#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace {

using namespace simd;
using V = vec<float>;

struct Step {
    float rate, beta1, fresh1, beta2, fresh2, eps,
        root_correction;  // rate: with the first moment's bias correction in it
};

// The square root of each lane; the loop becomes one instruction.
SHARED_FN V root(V x) {
    for (int i = 0; i < lanes<float>; ++i) x[i] = std::sqrt(x[i]);
    return x;
}

SHARED_FN void update(const Step& s, V& p, V g, V& m, V& v, bool sparse) {
    const auto still = g == V{};
    const V m_next = m * s.beta1 + g * s.fresh1;
    const V v_next = v * s.beta2 + g * g * s.fresh2;
    const V p_next = p - s.rate * m_next / (root(v_next) * s.root_correction + s.eps);
    p = sparse ? (still ? p : p_next) : p_next;
    m = sparse ? (still ? m : m_next) : m_next;
    v = sparse ? (still ? v : v_next) : v_next;
}

struct Arrays {
    float* param;
    const float* grad;
    float *mean, *square;
};

SHARED_FN void step_at(const Step& s, bool sparse, const Arrays& a, int64_t i, size_t bytes) {
    V p = {}, g = {}, m = {}, v = {};
    std::memcpy(&g, a.grad + i, bytes);
    std::memcpy(&m, a.mean + i, bytes);
    std::memcpy(&v, a.square + i, bytes);
    std::memcpy(&p, a.param + i, bytes);
    update(s, p, g, m, v, sparse);
    std::memcpy(a.param + i, &p, bytes);
    std::memcpy(a.mean + i, &m, bytes);
    std::memcpy(a.square + i, &v, bytes);
}

constexpr int run = 128;  // numbers skipped together: a branch for each vector would be guessed wrong too often

SHARED_FN bool all_zero(const float* x) {
    simd::ivec<float> any = {};
    for (int i = 0; i < run; i += lanes<float>) any |= load<V>(x + i) != V{};
    for (int i = 1; i < lanes<float>; ++i) any[0] |= any[i];
    return any[0] == 0;
}

void adam(const Step& s, bool sparse, const Arrays& a, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + run <= end; i += run) {
        // Nothing would change: 0 / (0 + eps) is 0.
        if (all_zero(a.grad + i) && (sparse || (s.eps > 0 && all_zero(a.mean + i) && all_zero(a.square + i)))) continue;
        for (int64_t j = i; j < i + run; j += lanes<float>) step_at(s, sparse, a, j, sizeof(V));
    }
    for (; i + lanes<float> <= end; i += lanes<float>) step_at(s, sparse, a, i, sizeof(V));
    if (i < end) step_at(s, sparse, a, i, (end - i) * sizeof(float));
}

}  // namespace

// step counts from 1. sparse: numbers whose gradient is 0 keep their value and their moments.
EXPORT const char* nerf_adam(int threads, int64_t count, float* param, const float* grad, float* mean, float* square,
                             double rate, double beta1, double beta2, double eps, int64_t step, int sparse) {
    return guarded([&] {
        const double first = 1 - std::pow(beta1, static_cast<double>(step));
        const double second = 1 - std::pow(beta2, static_cast<double>(step));
        // 1 - beta in float64: in float32, 1 - 0.999 is off by 5e-5 of itself.
        const Step s = {static_cast<float>(rate / first),
                        static_cast<float>(beta1),
                        static_cast<float>(1 - beta1),
                        static_cast<float>(beta2),
                        static_cast<float>(1 - beta2),
                        static_cast<float>(eps),
                        static_cast<float>(1 / std::sqrt(second))};
        const Arrays arrays = {param, grad, mean, square};
        constexpr int64_t chunk = 1 << 15;
        threads::parallel_for(threads, (count + chunk - 1) / chunk, [&](int64_t task) {
            adam(s, sparse != 0, arrays, task * chunk, std::min(count, (task + 1) * chunk));
        });
    });
}
