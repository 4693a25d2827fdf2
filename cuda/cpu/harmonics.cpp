// Spherical harmonics of directions. See nerf/kernels/harmonics.py for the definition.
#include <algorithm>

#include "abi.h"
#include "simd.h"
#include "threads.h"

#include "../shared/harmonics.h"

namespace {

constexpr int64_t task_rows = 1024;

}  // namespace

EXPORT const char* nerf_harmonics(int threads, int64_t rows, const float* directions, float* out) {
    return guarded([&] {
        threads::parallel_for(threads, (rows + task_rows - 1) / task_rows, [&](int64_t task) {
            for (int64_t i = task * task_rows; i < std::min(rows, (task + 1) * task_rows); ++i) {
                const float* d = directions + 3 * i;
                float values[harmonics::count];
                harmonics::of(d[0], d[1], d[2], values);
                std::copy_n(values, harmonics::count, out + harmonics::count * i);
            }
        });
    });
}
