// What the lanes of a warp do together: products, exchanges, votes. And numbers of 16 bits, and sums of several.
#include <initializer_list>

#include "emulation.h"
#include "threads.h"

namespace emulation {
namespace {

template <class T>
T get(const void* from) {
    return *static_cast<const T*>(from);
}

}  // namespace

// Columns and rows as device.h says that lanes hold them.
void mma(float* sums, const uint32_t* a, uint32_t b_low, uint32_t b_high, bool brain) {
    struct In {
        const uint32_t* a;
        uint32_t b[2];
    } const in{a, {b_low, b_high}};
    const auto perform = [](const Lanes& warp, int brain) {
        float left[16][16], right[16][8], product[16][8] = {};
        for (int lane = 0; lane < warp_size; ++lane) {
            const int g = lane / 4, t = lane % 4;
            const In own = get<In>(warp.in[lane]);
            for (int r = 0; r < 4; ++r)
                for (int h = 0; h < 2; ++h)
                    left[g + 8 * (r & 1)][2 * t + h + 8 * (r >> 1)] = widen(uint16_t(own.a[r] >> 16 * h), brain);
            for (int r = 0; r < 2; ++r)
                for (int h = 0; h < 2; ++h) right[2 * t + h + 8 * r][g] = widen(uint16_t(own.b[r] >> 16 * h), brain);
        }
        for (int m = 0; m < 16; ++m)
            for (int k = 0; k < 16; ++k)
                for (int n = 0; n < 8; ++n) product[m][n] += left[m][k] * right[k][n];
        for (int lane = 0; lane < warp_size; ++lane)
            for (int r = 0; r < 4; ++r)
                static_cast<float*>(warp.out[lane])[r] += product[lane / 4 + 8 * (r >> 1)][2 * (lane % 4) + (r & 1)];
    };
    collect(brain ? "mma of bfloat16" : "mma of float16", &in, sums, perform, brain);
}

void load_matrices(uint32_t* to, const uint16_t* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("load_matrices: a row that isn't on a 16-byte boundary");
    const auto perform = [](const Lanes& warp, int transposed) {
        for (int lane = 0; lane < warp_size; ++lane)
            for (int i = 0; i < 4; ++i) {
                const int g = lane / 4, t = lane % 4;
                const auto entry = [&](int r, int c) { return static_cast<const uint16_t*>(warp.in[8 * i + r])[c]; };
                const uint32_t low = transposed ? entry(2 * t, g) : entry(g, 2 * t);
                const uint32_t high = transposed ? entry(2 * t + 1, g) : entry(g, 2 * t + 1);
                static_cast<uint32_t*>(warp.out[lane])[i] = low | high << 16;
            }
    };
    collect(transposed ? "load_matrices transposed" : "load_matrices", row, to, perform, transposed);
}

uint32_t shuffle_bits(uint32_t value, int by, Exchange exchange) {
    struct In {
        uint32_t value;
        int by;
    } const in{value, by};
    uint32_t found = 0;
    const auto perform = [](const Lanes& warp, int option) {
        const Exchange exchange = static_cast<Exchange>(option);
        for (int lane = 0; lane < warp_size; ++lane) {
            const int by = get<In>(warp.in[lane]).by;
            int from = by & 31;
            if (exchange == Exchange::up) from = lane - by;
            if (exchange == Exchange::down) from = lane + by;
            if (exchange == Exchange::exclusive_or) from = lane ^ by;
            if (from < 0 || from >= warp_size) from = lane;
            *static_cast<uint32_t*>(warp.out[lane]) = get<In>(warp.in[from]).value;
        }
    };
    static const char* const names[] = {"shuffle", "shuffle_up", "shuffle_down", "shuffle_xor"};
    collect(names[static_cast<int>(exchange)], &in, &found, perform, static_cast<int>(exchange));
    return found;
}

float widen(uint16_t bits, bool brain) {
    if (brain) return bits_as<float>(static_cast<uint32_t>(bits) << 16);
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7fff;
    if (rest >= 0x7c00) return bits_as<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    const float size = rest < 0x400 ? rest * 0x1p-24f : bits_as<float>((rest << 13) + (112u << 23));
    return bits_as<float>(bits_as<uint32_t>(size) | sign);
}

// To nearest, ties to even; too large becomes infinite.
uint16_t narrow(float number, bool brain) {
    const uint32_t bits = bits_as<uint32_t>(number), sign = bits >> 16 & 0x8000;
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    if (brain) return static_cast<uint16_t>(nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    if (nan) return 0x7fff;
    const float size = bits_as<float>(bits & 0x7fffffff);
    if (size >= 65520.f) return static_cast<uint16_t>(sign | 0x7c00);
    if (size < 0x1p-14f) {  // adding 0.5 leaves steps of 2^-24, a subnormal's
        return static_cast<uint16_t>(sign | (bits_as<uint32_t>(size + 0.5f) - bits_as<uint32_t>(0.5f)));
    }
    const uint32_t whole = (bits & 0x7fffffff) - (112u << 23);
    return static_cast<uint16_t>(sign | (whole + 0xfff + (whole >> 13 & 1)) >> 13);
}

}  // namespace emulation

void warp_barrier() {
    emulation::collect("warp_barrier", nullptr, nullptr, [](const emulation::Lanes&, int) {}, 0);
}

uint32_t ballot(bool flag) {
    uint32_t found = 0;
    const auto perform = [](const emulation::Lanes& warp, int) {
        uint32_t bits = 0;
        for (int lane = 0; lane < 32; ++lane) bits |= uint32_t(emulation::get<bool>(warp.in[lane])) << lane;
        for (int lane = 0; lane < 32; ++lane) *static_cast<uint32_t*>(warp.out[lane]) = bits;
    };
    emulation::collect("ballot", &flag, &found, perform, 0);
    return found;
}

namespace {
void add_several(float* to, std::initializer_list<float> values) {
    if (reinterpret_cast<uintptr_t>(to) % (4 * values.size()))
        emulation::fail("add_to: an address that isn't on a boundary of as many bytes as it adds");
    for (const float value : values) add_to(to++, value);
}
}  // namespace
void add_to(float* to, float a, float b) { add_several(to, {a, b}); }
void add_to(float* to, float a, float b, float c, float d) { add_several(to, {a, b, c, d}); }
