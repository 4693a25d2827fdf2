// A GPU's threads on the CPU: what device.h declares, for kernels that g++ compiles.
//
// Each thread of a block is a fiber. It runs until it meets others: at a collective of its warp or at a barrier. The last
// lane of a warp to arrive does the work of all of them. Who runs next is the schedule's choice (threads.cpp), and
// whatever a kernel computes must not depend on it.
#pragma once

#include <cstdint>
#include <cstring>

// What kernels take of <cmath>, which is most of what there would be to compile.
extern "C" {
float expf(float) noexcept;
float expm1f(float) noexcept;
float fabsf(float) noexcept;
float floorf(float) noexcept;
float logf(float) noexcept;
float sqrtf(float) noexcept;
}

#define DEVICE_FN inline
#define SHARED_FN DEVICE_FN
#define UNROLL
#define NO_UNROLL
#define KERNEL(name, Args, block)                                                                     \
    static void name(const Args& args);                                                               \
    static const emulation::Registered name##_registered(                                             \
        #name, sizeof(Args), block, [](const void* args) { name(*static_cast<const Args*>(args)); }); \
    static void name(const Args& args)

#define KERNEL_OF_BLOCKS(name, Args, block, blocks) KERNEL(name, Args, block)

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

namespace emulation {

struct Position {
    int thread, block, block_y, threads, blocks;
    unsigned char* shared;
};
const Position& position();  // of the running thread

// Adds a kernel to those of the module that is being loaded.
struct Registered {
    Registered(const char* name, size_t argument_bytes, int block, void (*run)(const void* args));
};

enum class Exchange { index, up, down, exclusive_or };
uint32_t shuffle_bits(uint32_t value, int by, Exchange exchange);
void mma(float* sums, const uint32_t* a, uint32_t b_low, uint32_t b_high, bool brain);
void load_matrices(uint32_t* to, const uint16_t* row, bool transposed);
uint16_t narrow(float number, bool brain);
float widen(uint16_t bits, bool brain);

template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "as many bytes");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
// Replaces *to by change(*to), atomically, and returns what was there. `Bits`: the integer of T's size.
template <class Bits, class T, class Change>
inline T exchange_atomically(T* to, Change change) {
    Bits* place = reinterpret_cast<Bits*>(to);
    Bits before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(place, &before, bits_as<Bits>(change(bits_as<T>(before))), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return bits_as<T>(before);
}

}  // namespace emulation

inline int thread_index() { return emulation::position().thread; }
inline int block_index() { return emulation::position().block; }
inline int block_index_y() { return emulation::position().block_y; }
inline int block_threads() { return emulation::position().threads; }
inline int grid_blocks() { return emulation::position().blocks; }

template <class T>
inline T* shared_memory(int bytes_before = 0) {
    return reinterpret_cast<T*>(emulation::position().shared + bytes_before);
}

void barrier();
void warp_barrier();
uint32_t ballot(bool flag);

struct Float16 {
    static constexpr bool brain = false;
};
struct Bfloat16 {
    static constexpr bool brain = true;
};

template <class T>
inline uint32_t pack(float low, float high) {
    return emulation::narrow(low, T::brain) | static_cast<uint32_t>(emulation::narrow(high, T::brain)) << 16;
}
template <class T>
inline float widen(uint16_t bits) {
    return emulation::widen(bits, T::brain);
}
template <class T>
inline void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
    emulation::mma(sums, a, b_low, b_high, T::brain);
}
template <bool transposed>
inline void load_matrices(uint32_t (&to)[4], const uint16_t* row) {
    emulation::load_matrices(to, row, transposed);
}

template <class T>
inline T shuffle(T value, int lane) {
    const uint32_t bits = emulation::bits_as<uint32_t>(value);
    return emulation::bits_as<T>(emulation::shuffle_bits(bits, lane, emulation::Exchange::index));
}
template <class T>
inline T shuffle_up(T value, int by) {
    const uint32_t bits = emulation::bits_as<uint32_t>(value);
    return emulation::bits_as<T>(emulation::shuffle_bits(bits, by, emulation::Exchange::up));
}
template <class T>
inline T shuffle_down(T value, int by) {
    const uint32_t bits = emulation::bits_as<uint32_t>(value);
    return emulation::bits_as<T>(emulation::shuffle_bits(bits, by, emulation::Exchange::down));
}
template <class T>
inline T shuffle_xor(T value, int mask) {
    const uint32_t bits = emulation::bits_as<uint32_t>(value);
    return emulation::bits_as<T>(emulation::shuffle_bits(bits, mask, emulation::Exchange::exclusive_or));
}

inline int count_bits(uint32_t bits) { return __builtin_popcount(bits); }
inline int first_bit(uint32_t bits) { return __builtin_ffs(static_cast<int>(bits)) - 1; }
inline uint32_t float_bits(float x) { return emulation::bits_as<uint32_t>(x); }
inline float bits_float(uint32_t bits) { return emulation::bits_as<float>(bits); }
inline float fma_(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

inline int32_t atomic_add(int32_t* to, int32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
inline uint32_t atomic_add(uint32_t* to, uint32_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
inline int64_t atomic_add(int64_t* to, int64_t value) { return __atomic_fetch_add(to, value, __ATOMIC_RELAXED); }
inline float atomic_add(float* to, float value) {
    return emulation::exchange_atomically<uint32_t>(to, [=](float before) { return before + value; });
}
inline float atomic_max_positive(float* to, float value) {
    return emulation::exchange_atomically<uint32_t>(to, [=](float before) { return before > value ? before : value; });
}
inline void add_to(float* to, float a) { atomic_add(to, a); }
void add_to(float* to, float a, float b);                      // both check that `to` is aligned
void add_to(float* to, float a, float b, float c, float d);
