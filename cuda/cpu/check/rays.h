// Checks of what happens along rays: compositing, the march, the warp, looks, pictures and a training step's parts.
#pragma once

#include "library.h"

namespace {

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

void check_shade(int64_t rays) {
    constexpr int features = 5, seen = 3;
    std::vector<int64_t> offsets = {0}, ray;
    for (int64_t r = 0; r < rays; ++r) {
        offsets.push_back(offsets.back() + (r % 3 == 0 ? 0 : 4));
        ray.resize(offsets.back(), r);
    }
    const int64_t p = offsets.back();
    const double cube[4] = {0.1, 0.2, -0.1, 1.5};
    const Floats origins = random_floats(rays * 3), directions = random_floats(rays * 3);
    const Floats view = random_floats(rays * seen);
    const Floats t = random_floats(p, 0, 4), x = random_floats(p * 3, -4, 4), given = random_floats(p * features);
    const Floats to_inputs = random_floats(p * (features + seen)), to_unit = random_floats(p * 3);
    same_bits("shade", rays, [&](int threads, std::vector<Floats>& results) {
        Floats on_ray(p * 3), unit(p * 3), to_x(p * 3), density(p), inputs(to_inputs.size()), to_density = t, to_rgb = x;
        Floats to_given(given.size()), to_view(view.size());
        require(nerf_unit_points(threads, p, origins.data(), directions.data(), ray.data(), t.data(), 1, cube,
                                 on_ray.data()),
                "shade");
        require(nerf_to_unit(threads, p, x.data(), 1, cube, unit.data()), "shade");
        require(nerf_to_unit_gradient(threads, p, x.data(), 1, cube, to_unit.data(), to_x.data()), "shade");
        require(nerf_color_inputs(threads, p, ray.data(), features, given.data(), seen, view.data(), 1, 0.7,
                                  density.data(), inputs.data()),
                "shade");
        require(nerf_near_gradient(threads, p, t.data(), 2, to_density.data(), to_rgb.data()), "shade");
        require(nerf_feature_gradient(threads, p, features, given.data(), seen, to_inputs.data(), 1, 0.7,
                                      to_density.data(), to_given.data()),
                "shade");
        require(nerf_view_gradient(threads, rays, offsets.data(), features, seen, to_inputs.data(), to_view.data()),
                "shade");
        results = {on_ray, unit, to_x, density, inputs, to_density, to_rgb, to_given, to_view};
    });
}

}  // namespace
