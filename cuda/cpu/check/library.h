// The kernels' entry points, as the check calls them, and its numbers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
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
const char* nerf_to_unit(int, int64_t, const float*, int, const double*, float*);
const char* nerf_to_unit_gradient(int, int64_t, const float*, int, const double*, const float*, float*);
const char* nerf_unit_points(int, int64_t, const float*, const float*, const int64_t*, const float*, int, const double*,
                             float*);
const char* nerf_color_inputs(int, int64_t, const int64_t*, int, const float*, int, const float*, double, double, float*,
                              float*);
const char* nerf_near_gradient(int, int64_t, const float*, double, float*, float*);
const char* nerf_feature_gradient(int, int64_t, int, const float*, int, const float*, double, double, const float*,
                                  float*);
const char* nerf_view_gradient(int, int64_t, const int64_t*, int, int, const float*, float*);
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

}  // namespace
