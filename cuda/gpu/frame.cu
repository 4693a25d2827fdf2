// Rays through an occupancy grid and a hash grid's field without gradients: `look` and `frame` in one kernel each, from
// the march to the sums. See nerf/kernels/frame.py for the definitions.
//
// Eight lanes share a ray, and a lane has one of its eight steps under way; a warp has four rays, and takes the next as
// soon as one ends. All 32 steps go through the grid and the networks together, which lie in shared memory. What a ray
// gets doesn't depend on the others, nor on who takes it: every run gives the same bits. Only the order in which `look`
// lays down samples varies; look_sort brings them into their own.
#include "field.h"
#include "hash_cell.h"
#include "march.h"
#include "network.h"
#include "scan.h"

#if !defined(FRAME_FORMAT)
#define FRAME_FORMAT Float16  // or Bfloat16: what the products' operands are rounded to
#define FRAME_FEATURES 4      // of the table that are loaded at once: 1, 2, 4 or 8
#define FRAME_BLOCK 256       // threads; fewer where networks leave little shared memory
#endif

namespace frame {

using Format = FRAME_FORMAT;
constexpr int together = FRAME_FEATURES;

constexpr int64_t uncountable = int64_t{1} << 36;  // nerf.kernels.cuda_rays.UNCOUNTABLE

enum Counter { next_ray, laid_down, lit_samples };

// nerf.kernels.cuda_frame._Arguments has the same layout.
struct FrameArgs {
    marching::Course course;
    hash::Levels grid;
    network::Network density, color;
    const float* table;
    const float* view;  // rays x seen
    float *rgb, *depth, *opacity;  // of frame: rays x 3, and one a ray
    float* values;                 // of look: cells that lit samples raise; may be null
    float *t, *dt;                 // of look: samples as they come, `capacity` of them; their rays, and places among these
    int32_t *ray, *place;
    int64_t* counts;    // of look: samples a ray
    int64_t* counters;  // zeroed; see Counter
    int64_t capacity;
    int32_t levels, features, seen;
    int32_t stride;             // of the rows that enter and leave layers
    int32_t rows_at, row_bytes; // bytes of shared memory before the first warp's rows, and of a warp
    field::Density raw;
    float stop, faint, value_scale;
};

// One ray under way, known to its eight lanes; each has sums of its own steps.
struct Going {
    int32_t ray;        // -1: none
    marching::Ray path;
    float base, next;   // steps before the stretch of eight blocks at hand, and before the next
    uint32_t blocks;    // of this stretch that may hold samples and are yet to be taken
    double light;
    float rgb[3], depth, opacity;
    int32_t kept;
};

DEVICE_FN int leader() { return lane_index() & ~7; }
DEVICE_FN uint32_t bits_of_ray(uint32_t bits) { return bits >> leader() & 0xff; }
DEVICE_FN float ray_sum(float value) {
    for (int by = 4; by; by >>= 1) value += shuffle_xor(value, by);
    return value;
}

template <bool looks>
DEVICE_FN void begin(const FrameArgs& args, int64_t ray, Going& going) {
    going.path = marching::ray_at(args.course, ray);
    const bool good = countable(going.path);
    if (!good) going.path.count = 0.f;
    // A ray whose steps can't be counted sees nothing that is a number; `look` says so at its end.
    const float nothing = good ? 0.f : bits_float(0x7fc00000u);
    if (looks && !good && lane_index() == leader()) atomic_add(args.counters + lit_samples, uncountable);
    going.ray = static_cast<int32_t>(ray), going.base = going.next = 0, going.blocks = 0, going.light = 1, going.kept = 0;
    going.rgb[0] = going.rgb[1] = going.rgb[2] = going.depth = going.opacity = nothing;
}

// Writes what the rays whose lanes say `over` have gathered.
template <bool looks>
DEVICE_FN void end(const FrameArgs& args, bool over, Going& going) {
    if (ballot(over) == 0) return;
    const int64_t ray = going.ray;
    const bool writes = over && lane_index() == leader();
    if (looks) {
        if (writes) args.counts[ray] = going.kept;
    } else {
        for (int c = 0; c < 3; ++c) {
            const float sum = ray_sum(going.rgb[c]);
            if (writes) args.rgb[3 * ray + c] = sum;
        }
        const float depth = ray_sum(going.depth), opacity = ray_sum(going.opacity);
        if (writes) args.depth[ray] = depth, args.opacity[ray] = opacity;
    }
    if (over) going.ray = -1;
}

// Gives lanes without a ray the next ones. Returns whether there are more.
template <bool looks>
DEVICE_FN bool refill(const FrameArgs& args, Going& going) {
    const uint32_t idle = ballot(going.ray < 0 && lane_index() == leader());
    if (idle == 0) return true;
    int32_t first = 0;
    if (lane_index() == 0) first = static_cast<int32_t>(atomic_add(args.counters + next_ray, int64_t{count_bits(idle)}));
    first = shuffle(first, 0);
    const int64_t mine = first + count_bits(idle & ((1u << leader()) - 1));
    if (going.ray < 0 && mine < args.course.rays) begin<looks>(args, mine, going);
    return first + count_bits(idle) < args.course.rays;
}

// Marches every ray of the warp to its next block with samples; rays that end are written and replaced. False where no ray
// is left. A lane's step is kept where its ray has a block and it is one of the block's samples.
template <bool looks>
DEVICE_FN bool advance(const FrameArgs& args, Going& going, bool& more, marching::Step& step) {
    const int place = lane_index() & 7;
    bool found = false;  // the same in a ray's lanes, as all conditions here are
    step = {false, 0, 0};
    do {
        if (more) more = refill<looks>(args, going);
        const bool looking = going.ray >= 0 && !found, asks = looking && going.blocks == 0;
        const bool over = asks && !(going.next < going.path.count.value);
        const bool flag = asks && !over &&
                          block_seen(args.course, going.path, going.next + static_cast<float>(place * marching::block));
        const uint32_t seen = bits_of_ray(ballot(flag));
        if (asks && !over) going.blocks = seen, going.base = going.next, going.next += 8 * marching::block;
        end<looks>(args, over, going);
        marching::Step taken = {false, 0, 0};
        const bool takes = looking && !over && going.blocks != 0;
        if (takes) {
            const int block = first_bit(going.blocks);
            taken = step_at(args.course, going.path, going.base + static_cast<float>(block * marching::block), place);
            going.blocks &= going.blocks - 1;
        }
        if (bits_of_ray(ballot(taken.kept)) != 0 && takes) step = taken, found = true;
    } while (ballot(!found && (going.ray >= 0 || more)) != 0);
    return ballot(found) != 0;
}

// A lane's point, encoded, as one row that enters the density network.
DEVICE_FN void encode(const FrameArgs& args, const float* unit, uint16_t* row) {
    for (int l = 0; l < args.levels; ++l) {
        const grid::Level level = args.grid.level[l];
        const hash::Cell cell = hash::find_cell(level, unit);
        const float* const table = args.table + level.first * args.features;
        for (int f = 0; f < args.features; f += together) {
            const hash::Row<together> mixed = hash::encode_cell<together>(cell, table + f, args.features);
            uint16_t* const to = row + l * args.features + f;
            if constexpr (together == 1) {
                to[0] = static_cast<uint16_t>(pack<Format>(mixed.f[0], 0.f));
            } else {
                for (int i = 0; i < together; i += 2) *reinterpret_cast<uint32_t*>(to + i) = pack<Format>(mixed.f[i], mixed.f[i + 1]);
            }
        }
    }
    const int width = args.levels * args.features;
    for (int c = width; c < network::padded(width); ++c) row[c] = 0;
}

// Puts a ray's row of `view` behind the features that a sample's row begins with.
DEVICE_FN void append_view(const FrameArgs& args, int64_t ray, uint16_t* row) {
    const int geometry = args.density.layer[args.density.depth - 1].out, width = geometry + args.seen;
    for (int c = 0; c < args.seen; ++c)
        row[geometry + c] = static_cast<uint16_t>(pack<Format>(args.view[ray * args.seen + c], 0.f));
    for (int c = width; c < network::padded(width); ++c) row[c] = 0;
}

// What a warp has in shared memory behind its rows.
struct Results {
    float raw[32], color[32][4];
};

// Colours of the samples that are `seen` join their rays.
DEVICE_FN void add_colors(const FrameArgs& args, network::Rows& rows, Results& results, bool seen, float weight, float t,
                          Going& going) {
    const uint32_t wanted = ballot(seen);
    if (wanted == 0) return;
    if (seen) append_view(args, going.ray, rows.row(lane_index()));
    network::forward<Format>(args.color, rows, wanted, [&](int row, int column, float low, float high, uint16_t*) {
        if (column < 4) results.color[row][column] = low, results.color[row][column + 1] = high;
    });
    if (seen) {
        for (int c = 0; c < 3; ++c)
            going.rgb[c] = fma_(weight, 1 / (1 + expf(-results.color[lane_index()][c])), going.rgb[c]);
        going.depth = fma_(weight, t, going.depth), going.opacity += weight;
    }
}

// Lays down the samples that are `kept`, and raises the cells of those that are `lit`.
DEVICE_FN void lay_down(const FrameArgs& args, const marching::Step& step, const float* unit, float density, bool lit,
                        bool kept, Going& going) {
    if (lit && args.values && density * args.value_scale > 0)
        atomic_max_positive(args.values + marching::cell_of(unit, args.course.resolution), density * args.value_scale);
    const uint32_t all = ballot(kept), reached = ballot(lit), before = (1u << lane_index()) - 1;
    int64_t first = 0;
    if (lane_index() == 0) {
        atomic_add(args.counters + lit_samples, int64_t{count_bits(reached)});
        if (all != 0) first = atomic_add(args.counters + laid_down, int64_t{count_bits(all)});
    }
    first = shuffle(static_cast<int32_t>(first), 0);
    const int64_t to = first + count_bits(all & before);
    if (kept && to < args.capacity) {
        args.t[to] = step.t, args.dt[to] = step.dt, args.ray[to] = going.ray;
        args.place[to] = going.kept + count_bits(bits_of_ray(all) & (before >> leader()));
    }
    going.kept += count_bits(bits_of_ray(all));
}

// One wave: the steps that the warp has under way go through the field.
template <bool looks>
DEVICE_FN void wave(const FrameArgs& args, const marching::Step& step, network::Rows& rows, Results& results, Going& going) {
    float unit[3];
    if (step.kept) {
        marching::to_unit(args.course.space, going.path.origin, going.path.direction, step.t, unit);
        encode(args, unit, rows.row(lane_index()));
    }
    network::forward<Format>(args.density, rows, ballot(step.kept), [&](int row, int column, float low, float high, uint16_t* slot) {
        if (column == 0) results.raw[row] = low;
        *reinterpret_cast<uint32_t*>(slot + (row & 15) * rows.stride + column) = pack<Format>(low, high);
    });
    const float density = step.kept ? density_of(args.raw, results.raw[lane_index()]) : 0.f;
    const float thickness = density * step.dt;
    const float passed = scan::product<8>(step.kept ? expf(-thickness) : 1.f), up = shuffle_up(passed, 1);
    const float light = static_cast<float>(lane_index() == leader() ? going.light : going.light * up);
    const bool lit = step.kept && light > args.stop;
    if constexpr (looks) {
        lay_down(args, step, unit, density, lit, lit && thickness > args.faint, going);
    } else {
        const float weight = light * -expm1f(-thickness);
        add_colors(args, rows, results, lit && weight > args.faint, weight, step.t, going);
    }
    going.light *= shuffle(passed, leader() + 7);
    end<looks>(args, going.ray >= 0 && !(static_cast<float>(going.light) > args.stop), going);
    warp_barrier();  // before the next wave writes rows and results
}

template <bool looks>
DEVICE_FN void run(const FrameArgs& args) {
    network::stage<Format>(args.density);
    if (!looks) network::stage<Format>(args.color);
    barrier();
    const int at = args.rows_at + warp_index() * args.row_bytes;
    network::Rows rows = {shared_memory<uint16_t>(at), args.stride};
    Results& results = *shared_memory<Results>(at + 3 * 16 * args.stride * 2);
    Going going = {};
    going.ray = -1;
    bool more = true;
    marching::Step step;
    while (advance<looks>(args, going, more, step)) wave<looks>(args, step, rows, results, going);
}

KERNEL_OF_BLOCKS(look_rays, FrameArgs, FRAME_BLOCK, 512 / FRAME_BLOCK) { run<true>(args); }
KERNEL_OF_BLOCKS(frame_rays, FrameArgs, FRAME_BLOCK, 512 / FRAME_BLOCK) { run<false>(args); }

struct SortArgs {
    const float *t, *dt;        // samples as they were laid down
    const int32_t *ray, *place;
    const int64_t* laid;        // how many were found
    const int64_t* offsets;     // rays + 1
    const float *near, *far;    // rays
    float *out_t, *out_dt;
    int64_t* out_ray;
    int64_t capacity, count;    // how many of them there is memory for, here and in order
    int64_t rays;
};

struct SpreadArgs {
    const int64_t* offsets;  // rays + 1: of the samples that were found
    int64_t* spread;         // likewise, with a share of what is left of the room behind each ray's
    int64_t rays, room;
};

// A ray that had all of it would keep its warp busy long after the others'.
KERNEL(look_spread, SpreadArgs, 256) {
    const int64_t r = global_thread();
    if (r > args.rays) return;
    const int64_t left = args.room - args.offsets[args.rays], own = args.offsets[r];
    const int64_t moved = left > 0 && args.rays > 0 ? own + left * r / args.rays : own;
    args.spread[r] = moved < args.room ? moved : args.room;
}

// Samples of no length where none may be found: each lies where another does, since far outside of its cube a field is
// anything.
KERNEL(look_fill, SortArgs, 256) {
    const int64_t i = global_thread();
    if (i >= args.count) return;
    const int64_t found = *args.laid < args.capacity ? *args.laid : args.capacity;
    const int64_t from = found > 0 ? static_cast<uint32_t>(i) % static_cast<uint32_t>(found) : args.rays - 1;
    args.out_t[i] = found > 0 ? args.t[from] : 0.5f * (args.near[from] + args.far[from]);
    args.out_ray[i] = found > 0 ? args.ray[from] : from;
    args.out_dt[i] = 0;
}

KERNEL(look_sort, SortArgs, 256) {
    const int64_t i = global_thread();
    if (i >= args.capacity || i >= *args.laid) return;
    const int64_t to = args.offsets[args.ray[i]] + args.place[i];
    if (to >= args.count) return;
    args.out_t[to] = args.t[i], args.out_dt[to] = args.dt[i], args.out_ray[to] = args.ray[i];
}

}  // namespace frame
