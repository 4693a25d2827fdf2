// The march of many rays: how many samples each has, and, once these are summed to offsets, the samples.
//
// A warp takes a ray. Its lanes ask the dilated grid for 32 blocks of steps at once, and then the grid for the steps of
// four blocks that were seen. Both passes find the same samples in the same order.
#include "march.h"

namespace marching {

struct MarchArgs {
    Course course;
    int64_t* counts;         // of each ray: its samples, or `uncountable`
    const int64_t* offsets;  // rays + 1
    float *t, *dt;
};

constexpr int64_t uncountable = int64_t{1} << 36;  // nerf.kernels.cuda_rays.UNCOUNTABLE

// Calls fn(step, samples of the ray before it) in every lane, for 32 steps at a time; returns how many are kept.
template <class Fn>
DEVICE_FN int64_t walk(const Course& course, const Ray& ray, Fn&& fn) {
    int64_t found = 0;
    for (float stretch = 0; stretch < ray.count.value; stretch += 32 * block) {
        uint32_t seen = ballot(block_seen(course, ray, stretch + static_cast<float>(lane_index() * block)));
        while (seen != 0) {
            uint32_t mine = seen;  // the lane's block is one of the first four of those left
            for (int k = 0; k < lane_index() / block; ++k) mine &= mine - 1;
            Step step = {false, 0, 0};
            if (mine != 0) step = step_at(course, ray, stretch + static_cast<float>(first_bit(mine) * block), lane_index() % block);
            const uint32_t kept = ballot(step.kept);
            fn(step, found + count_bits(kept & ((1u << lane_index()) - 1)));
            found += count_bits(kept);
            for (int k = 0; k < 32 / block; ++k) seen &= seen - 1;
        }
    }
    return found;
}

DEVICE_FN int64_t ray_of_warp() { return static_cast<int64_t>(block_index()) * block_warps() + warp_index(); }

KERNEL(march_count, MarchArgs, 128) {
    const int64_t r = ray_of_warp();
    if (r >= args.course.rays) return;
    const Ray ray = ray_at(args.course, r);
    const int64_t found = countable(ray) ? walk(args.course, ray, [](const Step&, int64_t) {}) : uncountable;
    if (lane_index() == 0) args.counts[r] = found;
}

KERNEL(march_take, MarchArgs, 128) {
    const int64_t r = ray_of_warp();
    if (r >= args.course.rays) return;
    const int64_t first = args.offsets[r];
    walk(args.course, ray_at(args.course, r), [&](const Step& step, int64_t before) {
        if (!step.kept) return;
        args.t[first + before] = step.t;
        args.dt[first + before] = step.dt;
    });
}

}  // namespace marching
