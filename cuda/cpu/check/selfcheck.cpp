// Runs every op on buffers of exactly the right size, on one thread and on several, and compares the bits. Built by
// tests/test_nerf_kernels_cpu_runtime.py with the address and the thread sanitizer, which do the rest.
//
// `selfcheck short` gives one result a buffer that is a number too short, `selfcheck race` lets two threads write one
// array: the sanitizers must complain, or they see nothing.
#include <string>
#include <thread>

#include "library.h"
#include "rays.h"

namespace {

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
    for (int64_t size : {1, 7, 63, 65, 3000}) {
        for (int features : {1, 2, 3, 4, 8}) check_hash(size, features, 0);
        for (int format = 0; format < 2; ++format) {
            if (format == 1 && !nerf_mlp_has_bfloat16()) continue;
            for (int activation = 0; activation < 6; ++activation)
                check_mlp(size < 100 || activation == 1 ? size : 700, {3, 17, 5, 1}, format, activation);
            check_mlp(size, {32, 64, 64, 16}, format, 1);
            for (int activation : {1, 2}) check_mlp(size < 100 ? size : 700, {21, 40, 17, 6}, format, activation, 1, 3);
            if (size < 100) check_mlp(size, {100, 256, 33}, format, 1);
        }
        check_composite(size);
        check_march(size);
        check_shade(size);
        for (int format = 0; format < (nerf_mlp_has_bfloat16() ? 2 : 1); ++format) {
            check_warp(size, format);
            for (bool bent : {false, true}) check_frame(size, format, bent);
        }
    }
    std::puts("all well");
}
