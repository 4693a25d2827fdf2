// The entry points of `warp`. See nerf/kernels/warp.py for the definition.
#include "warp.h"

namespace {

using namespace warping;

constexpr int64_t task_points = 1024;

struct Cube {
    float center[3], half;

    void place(const float* x, float* y) const {
        for (int a = 0; a < 3; ++a) y[a] = (x[a] - center[a]) / half;
    }
};

template <class F>
void forward(int threads, const Warp<F>& warp, const Cube& cube, int64_t points, const float* x, const float* codes,
             const int64_t* ray, float* out) {
    threads::parallel_for(threads, (points + task_points - 1) / task_points, [&](int64_t task) {
        const int64_t first = task * task_points, count = std::min(task_points, points - first);
        float y[3 * task_points], motion[3 * task_points];
        for (int64_t i = 0; i < count; ++i) cube.place(x + 3 * (first + i), y + 3 * i);
        const auto code_of = [&](int64_t i) {
            return codes + (ray ? ray[first + i] : first + i) * warp.settings.code;
        };
        displace(warp, count, y, code_of, motion);
        for (int64_t i = 0; i < 3 * count; ++i) out[3 * first + i] = x[3 * first + i] + motion[i] * cube.half;
    });
}

// The gradients of what a block's networks gave, those of their inputs and weights. p.to_twist holds the twists' on entry;
// on return p.to_inputs holds the network's inputs', of which the code's are asked for, and p.to_shares the shares'.
template <class F>
void backward_networks(const Warp<F>& warp, Blocks<F>& blocks, Points& p, float* gradients, float* share_gradients) {
    mlp::output_gradient(warp.network, blocks.network, p.to_twist.data());
    mlp::backward_layers(warp.network, blocks.network, gradients, p.to_inputs.data());
    if (!warp.shares) return;
    mlp::output_gradient(*warp.shares, blocks.shares, p.to_shares.data());
    mlp::backward_layers(*warp.shares, blocks.shares, share_gradients, static_cast<float*>(nullptr));
}

// From the twists' gradients to the shares' before their softmax (p.to_shares), and to the twists of each part.
inline void backward_parts(const Settings& s, Points& p, int i, const float* code, float* to_code) {
    const float *share = &p.shares[i * s.parts], *g = &p.to_twist[6 * i];
    float *to_share = &p.to_shares[i * s.parts], mean = 0;
    for (int part = 0; part < s.parts; ++part) {
        float along = 0;
        for (int k = 0; k < 6; ++k) {
            along += g[k] * code[6 * part + k];
            to_code[6 * part + k] = share[part] * g[k];
        }
        to_share[part] = along, mean += share[part] * along;
    }
    for (int part = 0; part < s.parts; ++part) to_share[part] = share[part] * (to_share[part] - mean);
}

struct Gradients {
    void *const *weights, *const *biases, *const *share_weights, *const *share_biases;
    float* codes;
};

template <class F>
void backward(int threads, const Warp<F>& warp, const Cube& cube, int64_t points, const float* x, int64_t rays,
              const float* codes, const int64_t* ray, const float* grad_out, const Gradients& to) {
    const Settings& s = warp.settings;
    std::vector<int64_t> moving;
    for (int64_t i = 0; i < points; ++i) {
        float y[3];
        cube.place(x + 3 * i, y);
        if (s.moves(y)) moving.push_back(i);
    }
    const int rows = warp.rows(), count = static_cast<int>(moving.size());
    const int own = s.own(), inputs = s.inputs();
    const auto row_of = [&](int64_t i) { return ray ? ray[i] : i; };
    std::vector<float> to_rows(static_cast<int64_t>(count) * s.code);  // each point's part of its code's gradient
    const auto block_of = [&](Blocks<F>& blocks, Points& p, int first, float* gradients, float* share_gradients) {
        const int live = std::min(rows, count - first);
        const int64_t* index = moving.data() + first;
        const auto code_of = [&](int i) { return codes + row_of(index[i]) * s.code; };
        for (int i = 0; i < live; ++i) cube.place(x + 3 * index[i], &p.y[3 * i]);
        twists(warp, blocks, p, live, code_of);
        // What a point's motion gets is scaled as the motion was. p.to_inputs is free until the networks' turn.
        float* to_motion = s.turns ? p.to_inputs.data() : p.to_twist.data();
        for (int i = 0; i < live; ++i) {
            const float scale = s.share(&p.y[3 * i]) * cube.half;
            for (int a = 0; a < 3; ++a) to_motion[3 * i + a] = grad_out[3 * index[i] + a] * scale;
        }
        if (s.turns) screw_gradient(live, p.y.data(), p.twist.data(), to_motion, p.to_twist.data());
        for (int i = 0; warp.shares && i < live; ++i)
            backward_parts(s, p, i, code_of(i) + own, &to_rows[static_cast<int64_t>(first + i) * s.code + own]);
        backward_networks(warp, blocks, p, gradients, share_gradients);
        for (int i = 0; i < live; ++i)
            std::copy_n(&p.to_inputs[static_cast<int64_t>(i) * inputs + s.encoded()], own,
                        &to_rows[static_cast<int64_t>(first + i) * s.code]);
    };
    const int64_t extra = warp.shares ? warp.shares->gradients + static_cast<int64_t>(warp.shares->biases.size()) : 0;
    std::vector<float> share_totals(extra);
    mlp::reduce_gradients(
        threads, warp.network, (count + rows - 1) / rows, reinterpret_cast<float* const*>(to.weights),
        reinterpret_cast<float* const*>(to.biases), static_cast<int>(extra), share_totals.data(),
        [&](int64_t first, int64_t end, float* gradients, float* share_gradients) {
            static thread_local Points p;
            p.grow(s, rows);
            Blocks<F> blocks(warp);
            for (int64_t b = first; b < end; ++b)
                block_of(blocks, p, static_cast<int>(b * rows), gradients, share_gradients);
        });
    if (warp.shares)
        mlp::give_gradients(threads, *warp.shares, reinterpret_cast<float* const*>(to.share_weights),
                            reinterpret_cast<float* const*>(to.share_biases),
                            [&](int64_t at) { return share_totals[at]; });
    std::fill_n(to.codes, rays * s.code, 0.f);
    for (int i = 0; i < count; ++i) {
        float* row = to.codes + row_of(moving[i]) * s.code;
        for (int k = 0; k < s.code; ++k) row[k] += to_rows[static_cast<int64_t>(i) * s.code + k];
    }
}

}  // namespace

// x: points of the world. numbers: centre (3) and half side of the cube. ray: the row of `codes` of each point; null: rows
// follow the points.
#define POINT_ARGUMENTS \
    int threads, int64_t points, int format, const double *numbers, const float *x, const float *codes, const int64_t *ray
#define CUBE                                                                                                  \
    const auto number = [&](int i) { return static_cast<float>(numbers[i]); };                                \
    const Cube cube = {{number(0), number(1), number(2)}, number(3)};

EXPORT const char* nerf_warp(POINT_ARGUMENTS, WARP_ARGUMENTS, float* out) {
    CUBE WARP_PARTS
    return mlp::with_format(format, [&](auto f) {
        using F = decltype(f);
        if constexpr (std::is_same_v<typename F::real, float>) {
            const auto network = warp_given.network<F>(false);
            const auto shares = warp_given.shares<F>(false);
            const Warp<F> warp = {warp_given.settings, network, shares.empty() ? nullptr : &shares[0]};
            forward(threads, warp, cube, points, x, codes, ray, out);
        }
    });
}

// rays: rows of codes. to_*: gradients; weights' as `reduce_gradients` takes them.
EXPORT const char* nerf_warp_backward(POINT_ARGUMENTS, WARP_ARGUMENTS, int64_t rays, const float* grad_out,
                                      float* to_codes, void* const* to_weights, void* const* to_biases,
                                      void* const* to_share_weights, void* const* to_share_biases) {
    CUBE WARP_PARTS
    return mlp::with_format(format, [&](auto f) {
        using F = decltype(f);
        if constexpr (std::is_same_v<typename F::real, float>) {
            const auto network = warp_given.network<F>(true);
            const auto shares = warp_given.shares<F>(true);
            const Warp<F> warp = {warp_given.settings, network, shares.empty() ? nullptr : &shares[0]};
            backward(threads, warp, cube, points, x, rays, codes, ray, grad_out,
                     {to_weights, to_biases, to_share_weights, to_share_biases, to_codes});
        }
    });
}
