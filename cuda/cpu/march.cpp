// The entry points of the march of many rays.
#include "march.h"

#include <memory>

#include "abi.h"
#include "threads.h"

namespace {

using namespace marching;

constexpr int64_t task_rays = 64;

struct Marched {
    std::vector<Samples> tasks;
};

}  // namespace

// Marches all rays, fills offsets (rays + 1) and returns in `found` what `nerf_march_take` needs.
// numbers: see `make_call`.
EXPORT const char* nerf_march(int threads, int64_t rays, const float* origins, const float* directions,
                              const float* start, const float* count, const uint8_t* occupied, const uint8_t* dilated,
                              int resolution, int contract, const double* numbers, int64_t* offsets, void** found) {
    return guarded([&] {
        const Call call = make_call(origins, directions, start, count, occupied, dilated, resolution, contract, numbers);
        auto marched = std::make_unique<Marched>();
        marched->tasks.resize((rays + task_rays - 1) / task_rays);
        threads::parallel_for(threads, static_cast<int64_t>(marched->tasks.size()), [&](int64_t task) {
            Samples& samples = marched->tasks[task];
            for (int64_t r = task * task_rays; r < std::min(rays, (task + 1) * task_rays); ++r) {
                const int64_t before = samples.kept;
                march_ray(call, r, samples);
                offsets[r + 1] = samples.kept - before;
            }
        });
        offsets[0] = 0;
        for (int64_t r = 0; r < rays; ++r) offsets[r + 1] += offsets[r];
        *found = marched.release();
    });
}

// Copies the samples of a march to t and dt and frees them; t null: only frees them.
EXPORT const char* nerf_march_take(int threads, void* found, float* t, float* dt) {
    return guarded([&] {
        const std::unique_ptr<Marched> marched(static_cast<Marched*>(found));
        if (!t) return;
        std::vector<int64_t> first(marched->tasks.size());
        for (size_t k = 1; k < first.size(); ++k) first[k] = first[k - 1] + marched->tasks[k - 1].kept;
        threads::parallel_for(threads, static_cast<int64_t>(first.size()), [&](int64_t k) {
            const Samples& from = marched->tasks[k];
            std::copy_n(from.t.begin(), from.kept, t + first[k]);
            std::copy_n(from.dt.begin(), from.kept, dt + first[k]);
        });
    });
}
