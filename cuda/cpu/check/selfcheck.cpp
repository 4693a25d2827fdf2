// Runs every op on buffers of exactly the right size, on one thread and on several, and compares the bits. Built by
// tests/test_nerf_kernels_cpu_runtime.py with the address and the thread sanitizer, which do the rest.
//
// `selfcheck short` gives one result a buffer that is a number too short, `selfcheck race` lets two threads write one
// array: the sanitizers must complain, or they see nothing.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#define WARP_TYPES                                                                                                 \
    int, int, const float*, int, int, double, int, const int32_t*, const uint8_t*, const void* const*,             \
        const void* const*, int, const int32_t*, const void* const*, const void* const*

extern "C" {
const char* nerf_hash_encode_f32(int, int64_t, int, int, const int32_t*, const uint8_t*, const int64_t*, const float*,
                                 const float*, float*);
const char* nerf_hash_encode_table_f32(int, int64_t, int, int, const int32_t*, const uint8_t*, const int64_t*,
                                       const float*, const float*, float*);
const char* nerf_hash_encode_x_f32(int, int64_t, int, int, const int32_t*, const uint8_t*, const int64_t*, const float*,
                                   const float*, const float*, float*);
const char* nerf_mlp(int, int, int64_t, int, const int32_t*, const uint8_t*, int, int, double, const void* const*,
                     const void* const*, const void*, void*);
const char* nerf_mlp_backward(int, int, int64_t, int, const int32_t*, const uint8_t*, int, int, double,
                              const void* const*, const void* const*, const void*, const void*, void*, void* const*,
                              void* const*);
const char* nerf_mlp_squared_error(int, int, int64_t, int, const int32_t*, const uint8_t*, int, int, double,
                                   const void* const*, const void* const*, const void*, const void*, void*,
                                   void* const*, void* const*);
const char* nerf_mlp_jet(int, int, int64_t, int, const int32_t*, const uint8_t*, int, int, double, const void* const*,
                         const void* const*, const void*, int, const void*, int, const void*, void*);
const char* nerf_mlp_jet_backward(int, int, int64_t, int, const int32_t*, const uint8_t*, int, int, double,
                                  const void* const*, const void* const*, const void*, int, const void*, int,
                                  const void*, const void*, void*, void*, void* const*, void* const*);
const char* nerf_composite_f32(int, int64_t, int64_t, const int64_t*, const float*, const float*, const float*,
                               const float*, const float*, float*, float*, float*, float*);
const char* nerf_composite_backward_f32(int, int64_t, int64_t, const int64_t*, const float*, const float*, const float*,
                                        const float*, const float*, const float*, const float*, const float*,
                                        const float*, const float*, float*, float*);
const char* nerf_transmittance_f32(int, int64_t, const int64_t*, const float*, const float*, float*);
const char* nerf_march(int, int64_t, const float*, const float*, const float*, const float*, const uint8_t*,
                       const uint8_t*, int, int, const double*, int64_t*, void**);
const char* nerf_march_take(int, void*, float*, float*);
const char* nerf_look(int, int64_t, const float*, const float*, const float*, const float*, const uint8_t*,
                      const uint8_t*, int, int, const double*, int, int, const int32_t*, const uint8_t*, const int64_t*,
                      const float*, int, int, const int32_t*, const void* const*, const void* const*, WARP_TYPES,
                      const float*, float*, int64_t*, int64_t*, void**);
const char* nerf_look_take(int, void*, float*, float*, int64_t*);
const char* nerf_frame(int, int64_t, const float*, const float*, const float*, const float*, const uint8_t*,
                       const uint8_t*, int, int, const double*, int, int, const int32_t*, const uint8_t*,
                       const int64_t*, const float*, int, int, const int32_t*, const void* const*, const void* const*,
                       WARP_TYPES, const float*, const float*, int, int, const int32_t*, const void* const*,
                       const void* const*, const float*, float*, float*, float*);
const char* nerf_warp(int, int64_t, int, const double*, const float*, const float*, const int64_t*, WARP_TYPES, float*);
const char* nerf_warp_backward(int, int64_t, int, const double*, const float*, const float*, const int64_t*, WARP_TYPES,
                               int64_t, const float*, float*, void* const*, void* const*, void* const*, void* const*);
int nerf_mlp_has_bfloat16();
const char* nerf_cpu_highest_level();
}

namespace {

using Floats = std::vector<float>;
uint32_t state = 1;

float random_float() {  // in [0, 1)
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / (1 << 24);
}
Floats random_floats(int64_t count, float low = -1, float high = 1) {
    Floats v(count);
    for (float& x : v) x = low + (high - low) * random_float();
    return v;
}

void require(const char* message, const char* what) {
    if (message) std::printf("%s: %s\n", what, message), std::exit(2);
}

// Runs `op` on 1 and on 4 threads; it appends its results.
void same_bits(const char* what, int64_t size,
               const std::function<void(int threads, std::vector<Floats>& results)>& op) {
    std::vector<Floats> one, four;
    op(1, one);
    op(4, four);
    for (size_t i = 0; i < one.size(); ++i)
        if (!one[i].empty() && std::memcmp(one[i].data(), four[i].data(), one[i].size() * sizeof(float)) != 0)
            std::printf("%s of %lld: result %zu depends on the threads\n", what, static_cast<long long>(size), i),
                std::exit(3);
}

void check_hash(int64_t points, int features, int64_t missing) {
    const int32_t resolutions[3] = {3, 17, 200};
    const uint8_t dense[3] = {1, 0, 0};
    const int64_t first[4] = {0, 64, 64 + 1024, 64 + 2048};
    const Floats x = random_floats(points * 3, -0.1f, 1.1f), table = random_floats(first[3] * features);
    const Floats grad = random_floats(points * 3 * features);
    same_bits("hash_encode", points, [&](int threads, std::vector<Floats>& results) {
        Floats out(points * 3 * features - missing), to_table(table.size()), to_x(x.size());
        require(nerf_hash_encode_f32(threads, points, 3, features, resolutions, dense, first, x.data(), table.data(),
                                     out.data()),
                "hash");
        require(nerf_hash_encode_table_f32(threads, points, 3, features, resolutions, dense, first, x.data(),
                                           grad.data(), to_table.data()),
                "hash");
        require(nerf_hash_encode_x_f32(threads, points, 3, features, resolutions, dense, first, x.data(), table.data(),
                                       grad.data(), to_x.data()),
                "hash");
        results = {out, to_table, to_x};
    });
}

// again: the layer that the inputs enter again; 0: none. dims: directions of the jet; 0: the inputs are the coordinates.
void check_mlp(int64_t points, std::vector<int32_t> widths, int format, int activation, int again = 0, int dims = 0) {
    const int depth = static_cast<int>(widths.size()) - 1;
    std::vector<Floats> weights, biases;
    for (int l = 0; l < depth; ++l) {
        const int columns = widths[l] + (again && l == again ? widths[0] : 0);
        weights.push_back(random_floats(columns * widths[l + 1], -0.3f, 0.3f));
        biases.push_back(random_floats(widths[l + 1]));
    }
    const Floats x = random_floats(points * widths[0]), grad = random_floats(points * widths[depth]);
    const auto addresses = [](std::vector<Floats>& arrays) {
        std::vector<void*> p;
        for (Floats& a : arrays) p.push_back(a.data());
        return p;
    };
    const auto w = addresses(weights), b = addresses(biases);
    std::vector<uint8_t> flags(depth);
    if (again) flags[again] = 1;
    const uint8_t* skips = again ? flags.data() : nullptr;
    const bool jets = dims || widths[0] <= 8;
    const Floats tangents = random_floats(dims * x.size());
    const void* along = dims ? tangents.data() : nullptr;
    const int own = dims ? dims : widths[0], forms = 2, streams = 1 + own + forms;
    const Floats matrices(forms * own * own, 0.5f);
    const Floats jet_grad = random_floats(jets ? streams * points * widths[depth] : 0);
    same_bits("mlp", points, [&](int threads, std::vector<Floats>& results) {
        Floats out(points * widths[depth]), to_x(x.size());
        std::vector<Floats> to_weights = weights, to_biases = biases;
        const auto tw = addresses(to_weights), tb = addresses(to_biases);
        require(nerf_mlp(threads, format, points, depth, widths.data(), skips, activation, 4, 3.0, w.data(), b.data(),
                         x.data(), out.data()),
                "mlp");
        require(nerf_mlp_backward(threads, format, points, depth, widths.data(), skips, activation, 4, 3.0, w.data(),
                                  b.data(), x.data(), grad.data(), to_x.data(), tw.data(), tb.data()),
                "mlp");
        results = {out, to_x};
        const auto keep = [&] {
            for (auto& a : to_weights) results.push_back(a);
            for (auto& a : to_biases) results.push_back(a);
        };
        keep();
        Floats loss(1);
        require(nerf_mlp_squared_error(threads, format, points, depth, widths.data(), skips, activation, 0, 3.0,
                                       w.data(), b.data(), x.data(), grad.data(), loss.data(), tw.data(), tb.data()),
                "squared error");
        results.push_back(loss);
        keep();
        if (!jets) return;
        Floats jet(jet_grad.size()), to_tangents(tangents.size());
        require(nerf_mlp_jet(threads, format, points, depth, widths.data(), skips, activation, 0, 3.0, w.data(),
                             b.data(), x.data(), own, along, forms, matrices.data(), jet.data()),
                "jet");
        require(nerf_mlp_jet_backward(threads, format, points, depth, widths.data(), skips, activation, 0, 3.0,
                                      w.data(), b.data(), x.data(), own, along, forms, matrices.data(), jet_grad.data(),
                                      to_x.data(), dims ? to_tangents.data() : nullptr, tw.data(), tb.data()),
                "jet");
        results.push_back(jet), results.push_back(to_x), results.push_back(to_tangents);
        keep();
    });
}

void check_composite(int64_t rays) {
    std::vector<int64_t> offsets = {0};
    for (int64_t r = 0; r < rays; ++r)
        offsets.push_back(offsets.back() + (r % 5 == 0 ? 0 : static_cast<int64_t>(random_float() * 40)));
    const int64_t p = offsets.back();
    const Floats density = random_floats(p, 0, 30), rgb = random_floats(p * 3), t = random_floats(p),
                 dt = random_floats(p, 0, 0.1f);
    const Floats background = random_floats(rays * 3), g_rgb = random_floats(rays * 3), g = random_floats(rays),
                 g_weights = random_floats(p);
    same_bits("composite", rays, [&](int threads, std::vector<Floats>& results) {
        Floats out(rays * 3), depth(rays), opacity(rays), weights(p), to_density(p), to_rgb(p * 3), light(p);
        require(nerf_composite_f32(threads, rays, rays, offsets.data(), density.data(), rgb.data(), t.data(), dt.data(),
                                   background.data(), out.data(), depth.data(), opacity.data(), weights.data()),
                "composite");
        require(nerf_composite_backward_f32(threads, rays, rays, offsets.data(), density.data(), rgb.data(), t.data(),
                                            dt.data(), background.data(), weights.data(), g_rgb.data(), g.data(),
                                            nullptr, g_weights.data(), to_density.data(), to_rgb.data()),
                "composite");
        require(nerf_transmittance_f32(threads, rays, offsets.data(), density.data(), dt.data(), light.data()),
                "transmittance");
        results = {out, depth, opacity, weights, to_density, to_rgb, light};
    });
}

void check_march(int64_t rays) {
    constexpr int resolution = 12;
    std::vector<uint8_t> occupied(resolution * resolution * resolution), dilated(occupied.size(), 1);
    for (auto& cell : occupied) cell = random_float() < 0.2f;
    const Floats origins = random_floats(rays * 3), directions = random_floats(rays * 3),
                 start = random_floats(rays, 0, 10);
    const Floats count = random_floats(rays, 0, 300);
    const double numbers[6] = {0.1, 0.2, -0.1, 1.5, 0.01, 0.01};
    same_bits("march", rays, [&](int threads, std::vector<Floats>& results) {
        std::vector<int64_t> offsets(rays + 1);
        void* found = nullptr;
        require(nerf_march(threads, rays, origins.data(), directions.data(), start.data(), count.data(),
                           occupied.data(), dilated.data(), resolution, 1, numbers, offsets.data(), &found),
                "march");
        Floats t(offsets.back()), dt(offsets.back());
        require(nerf_march_take(threads, found, t.data(), dt.data()), "march");
        results = {t, dt};
    });
}

// A warp of two bands, an input skip and rigid parts, and its gradients.
struct AWarp {
    static constexpr int bands = 2, own = 3, parts = 2, encoded = 3 + 6 * bands, inputs = encoded + own;
    static constexpr int code = own + 6 * parts;
    const float window[bands] = {1, 0.5f};
    const int32_t widths[4] = {inputs, 17, 16, 6}, share_widths[3] = {encoded, 9, parts};
    const uint8_t again[3] = {0, 1, 0};
    std::vector<Floats> weights = {random_floats(17 * inputs), random_floats(16 * (17 + inputs)), random_floats(6 * 16)},
                        biases = {random_floats(17), random_floats(16), random_floats(6)},
                        share_weights = {random_floats(9 * encoded), random_floats(parts * 9)},
                        share_biases = {random_floats(9), random_floats(parts)};
    std::vector<void*> w = addresses(weights), b = addresses(biases), sw = addresses(share_weights),
                       sb = addresses(share_biases);

    static std::vector<void*> addresses(std::vector<Floats>& arrays) {
        std::vector<void*> found;
        for (Floats& array : arrays) found.push_back(array.data());
        return found;
    }
};
#define A_WARP(a, depth)                                                                                           \
    1, a.bands, a.window, a.code, a.parts, 0.25, depth, a.widths, a.again, a.w.data(), a.b.data(), 2, a.share_widths, \
        a.sw.data(), a.sb.data()

void check_warp(int64_t points, int format) {
    AWarp warp;
    const int64_t rays = points / 3 + 1;
    const Floats x = random_floats(points * 3, -2, 2), codes = random_floats(rays * warp.code);
    const Floats grad = random_floats(points * 3);
    std::vector<int64_t> ray(points);
    for (int64_t i = 0; i < points; ++i) ray[i] = i / 3;
    const double numbers[4] = {0.1, 0.2, -0.1, 1.5};
    same_bits("warp", points, [&](int threads, std::vector<Floats>& results) {
        AWarp to = warp;
        to.w = AWarp::addresses(to.weights), to.b = AWarp::addresses(to.biases);
        to.sw = AWarp::addresses(to.share_weights), to.sb = AWarp::addresses(to.share_biases);
        Floats out(points * 3), to_codes(codes.size());
        require(nerf_warp(threads, points, format, numbers, x.data(), codes.data(), ray.data(), A_WARP(warp, 3),
                          out.data()),
                "warp");
        require(nerf_warp_backward(threads, points, format, numbers, x.data(), codes.data(), ray.data(), A_WARP(warp, 3),
                                   rays, grad.data(), to_codes.data(), to.w.data(), to.b.data(), to.sw.data(),
                                   to.sb.data()),
                "warp");
        results = {out, to_codes};
        for (auto* arrays : {&to.weights, &to.biases, &to.share_weights, &to.share_biases})
            results.insert(results.end(), arrays->begin(), arrays->end());
    });
}

// bent: through a warp rather than a lattice.
void check_frame(int64_t rays, int format, bool bent) {
    constexpr int resolution = 12;
    std::vector<uint8_t> occupied(resolution * resolution * resolution), dilated(occupied.size(), 1);
    for (auto& cell : occupied) cell = random_float() < 0.4f;
    const Floats origins = random_floats(rays * 3), directions = random_floats(rays * 3);
    const Floats start = random_floats(rays, 0, 10), count = random_floats(rays, 0, 100);
    // Centre, half side, step, cone; bias, scale, stop, faint, what raises a cell.
    const double numbers[11] = {0.1, 0.2, -0.1, 1.5, 0.05, 0.01, 1, 0.7, 1e-2, 1e-3, 0.5};
    const int32_t resolutions[2] = {3, 20}, widths[3] = {8, 16, 5}, colour_widths[3] = {9, 16, 3};
    const uint8_t dense[2] = {1, 0};
    const int64_t first[3] = {0, 64, 64 + 256};
    const Floats table = random_floats(first[2] * 4, -3, 3), view = random_floats(rays * 4);
    const Floats layers[4] = {random_floats(8 * 16), random_floats(16 * 5), random_floats(9 * 16), random_floats(16 * 3)};
    const Floats biases(16), lattice = random_floats(5 * 5 * 5 * 3, -0.3f, 0.3f);
    const void *weights[2] = {layers[0].data(), layers[1].data()}, *zeros[2] = {biases.data(), biases.data()};
    const void* colour[2] = {layers[2].data(), layers[3].data()};
    AWarp a;
    const Floats codes = random_floats(rays * a.code);
    const float* by_code = bent ? codes.data() : nullptr;
    const int layers_of_warp = bent ? 3 : 0;
    same_bits("frame", rays, [&](int threads, std::vector<Floats>& results) {
        std::vector<int64_t> offsets(rays + 1);
        Floats values(occupied.size()), rgb(rays * 3), depth(rays), opacity(rays);
        int64_t lit = 0;
        void* found = nullptr;
        require(nerf_look(threads, rays, origins.data(), directions.data(), start.data(), count.data(), occupied.data(),
                          dilated.data(), resolution, 1, numbers, 2, 4, resolutions, dense, first, table.data(), format,
                          2, widths, weights, zeros, A_WARP(a, layers_of_warp), by_code, values.data(),
                          offsets.data(), &lit, &found),
                "look");
        Floats t(offsets.back()), dt(offsets.back());
        std::vector<int64_t> ray(offsets.back());
        require(nerf_look_take(threads, found, t.data(), dt.data(), ray.data()), "look");
        require(nerf_frame(threads, rays, origins.data(), directions.data(), start.data(), count.data(),
                           occupied.data(), dilated.data(), resolution, 1, numbers, 2, 4, resolutions, dense, first,
                           table.data(), format, 2, widths, weights, zeros, A_WARP(a, layers_of_warp),
                           by_code, bent ? nullptr : lattice.data(), bent ? 0 : 5, 2,
                           colour_widths, colour, zeros, view.data(), rgb.data(), depth.data(), opacity.data()),
                "frame");
        results = {values, t, dt, rgb, depth, opacity, {static_cast<float>(lit)}};
    });
}

void race() {
    const int64_t rays = 100000;
    std::vector<int64_t> offsets(rays + 1);
    for (int64_t r = 0; r <= rays; ++r) offsets[r] = r;
    const Floats density = random_floats(rays, 0, 1), dt = density;
    Floats out(rays);
    const auto write = [&] {
        require(nerf_transmittance_f32(1, rays, offsets.data(), density.data(), dt.data(), out.data()), "race");
    };
    std::thread other(write);
    write();
    other.join();
}

}  // namespace

int main(int count, char** arguments) {
    nerf_cpu_highest_level();  // asks the system for what a build for this processor may use
    const std::string planted = count > 1 ? arguments[1] : "";
    if (planted == "race") return race(), 0;
    if (planted == "short") return check_hash(65, 4, 1), 0;
    for (int64_t size : {1, 7, 63, 65, 5000}) {
        for (int features : {1, 2, 3, 4, 8}) check_hash(size, features, 0);
        for (int format = 0; format < 2; ++format) {
            if (format == 1 && !nerf_mlp_has_bfloat16()) continue;
            for (int activation = 0; activation < 6; ++activation) check_mlp(size, {3, 17, 5, 1}, format, activation);
            check_mlp(size, {32, 64, 64, 16}, format, 1);
            for (int activation : {1, 2}) check_mlp(size < 100 ? size : 700, {21, 40, 17, 6}, format, activation, 1, 3);
            if (size < 100) check_mlp(size, {100, 256, 33}, format, 1);
        }
        check_composite(size);
        check_march(size);
        for (int format = 0; format < (nerf_mlp_has_bfloat16() ? 2 : 1); ++format) {
            check_warp(size, format);
            for (bool bent : {false, true}) check_frame(size, format, bent);
        }
    }
    std::puts("all well");
}
