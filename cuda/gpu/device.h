// What the kernels need of a GPU: indices, barriers, tensor-core products, exchange within a warp, atomic sums.
//
// NVRTC compiles this to PTX and needs no CUDA headers. With -DEMULATED, g++ compiles the same kernels against
// emulation/threads.h, which runs them on the CPU; what is declared here is declared there, and behaves alike.
//
//     struct ScaleArgs {          // one plain struct is all that a kernel takes: pointers, int64_t, int32_t, float
//         const float* x;
//         float* out;
//         int64_t count;
//         float factor;
//     };
//     KERNEL(scale, ScaleArgs, 128) {  // launched with blocks of exactly 128 threads
//         for (int64_t i = global_thread(); i < args.count; i += all_threads()) args.out[i] = args.x[i] * args.factor;
//     }
//
// All shared memory is dynamic, as much as the launch asks for: `shared_memory<float>()`. Every lane of a warp must call
// a collective (mma, load_matrices, shuffle, ballot, warp_barrier), and every thread of a block a barrier.
#pragma once

#if defined(EMULATED)
#include "emulation/threads.h"
#else

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define DEVICE_FN __device__ __forceinline__
#define SHARED_FN DEVICE_FN  // of the headers that the CPU's kernels include too
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#define KERNEL(name, Args, block) \
    extern "C" __global__ void __launch_bounds__(block) name(const __grid_constant__ Args args)
// With registers for that many blocks on a multiprocessor at once, all of them if need be.
#define KERNEL_OF_BLOCKS(name, Args, block, blocks) \
    extern "C" __global__ void __launch_bounds__(block, blocks) name(const __grid_constant__ Args args)

DEVICE_FN int thread_index() { return static_cast<int>(threadIdx.x); }
DEVICE_FN int block_index() { return static_cast<int>(blockIdx.x); }
DEVICE_FN int block_index_y() { return static_cast<int>(blockIdx.y); }
DEVICE_FN int block_threads() { return static_cast<int>(blockDim.x); }
DEVICE_FN int grid_blocks() { return static_cast<int>(gridDim.x); }

// 16-byte aligned; NaN (0xff in every byte) under emulation until it is written.
extern __shared__ __align__(16) unsigned char dynamic_shared[];
template <class T>
DEVICE_FN T* shared_memory(int bytes_before = 0) {
    return reinterpret_cast<T*>(dynamic_shared + bytes_before);
}

// What threads wrote to shared or global memory before it, all threads of the block see after it.
DEVICE_FN void barrier() { __syncthreads(); }
DEVICE_FN void warp_barrier() { __syncwarp(); }

struct Float16 {
    static constexpr bool brain = false;
};
struct Bfloat16 {  // sm_80 and newer
    static constexpr bool brain = true;
};

// Two numbers rounded to nearest even; `low` goes to the lower half.
template <class T>
DEVICE_FN uint32_t pack(float low, float high) {
    uint32_t both;
    if constexpr (T::brain) {
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    } else {
#if __CUDA_ARCH__ >= 800
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
#else
        asm("{ .reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
            : "=r"(both)
            : "f"(low), "f"(high));
#endif
    }
    return both;
}
template <class T>
DEVICE_FN float widen(uint16_t bits) {
    if constexpr (T::brain) return __uint_as_float(static_cast<uint32_t>(bits) << 16);
    float number;
    asm("cvt.f32.f16 %0, %1;" : "=f"(number) : "h"(bits));
    return number;
}

// sums[16 x 8] += a[16 x 16] b[16 x 8], of one warp. With g = lane / 4 and t = lane % 4, a lane holds:
//   a: rows g (a[0], a[2]) and g + 8 (a[1], a[3]); columns 2t, 2t + 1 (a[0], a[1]) and 2t + 8, 2t + 9 (a[2], a[3]);
//   b: column g; rows 2t, 2t + 1 (b_low) and 2t + 8, 2t + 9 (b_high);
//   sums: columns 2t, 2t + 1 of row g (sums[0], sums[1]) and of row g + 8 (sums[2], sums[3]).
// So the sums of two neighbouring tiles, packed, are the `a` of 16 columns of the next product.
template <class T>
DEVICE_FN void mma(float (&sums)[4], const uint32_t (&a)[4], uint32_t b_low, uint32_t b_high) {
    if constexpr (T::brain) {
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
    } else {
#if __CUDA_ARCH__ >= 800
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
#else
        asm volatile(
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%8}, {%0,%1,%2,%3};\n\t"
            "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%6,%7}, {%9}, {%0,%1,%2,%3};"
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
#endif
    }
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lanes 8i to 8i + 7 name the rows of matrix i, each 16 bytes
// on a 16-byte boundary. Into to[i]: row g, columns 2t and 2t + 1 of matrix i, or of its transpose.
template <bool transposed>
DEVICE_FN void load_matrices(uint32_t (&to)[4], const uint16_t* row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    if constexpr (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
}

// The value that another lane of the warp holds. `T`: four bytes. Beyond the warp's ends, the lane's own.
template <class T>
DEVICE_FN T shuffle(T value, int lane) {
    return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
DEVICE_FN T shuffle_up(T value, int by) {  // from lane - by
    return __shfl_up_sync(0xffffffffu, value, by);
}
template <class T>
DEVICE_FN T shuffle_down(T value, int by) {  // from lane + by
    return __shfl_down_sync(0xffffffffu, value, by);
}
template <class T>
DEVICE_FN T shuffle_xor(T value, int mask) {  // from lane ^ mask
    return __shfl_xor_sync(0xffffffffu, value, mask);
}
DEVICE_FN uint32_t ballot(bool flag) { return __ballot_sync(0xffffffffu, flag); }  // bit i: what lane i holds

DEVICE_FN int count_bits(uint32_t bits) { return __popc(bits); }
DEVICE_FN int first_bit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }  // -1: none
DEVICE_FN uint32_t float_bits(float x) { return __float_as_uint(x); }
DEVICE_FN float bits_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE_FN float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }  // rounded once

// Atomic, and each returns what was there.
DEVICE_FN int32_t atomic_add(int32_t* to, int32_t value) { return atomicAdd(to, value); }
DEVICE_FN uint32_t atomic_add(uint32_t* to, uint32_t value) { return atomicAdd(to, value); }
DEVICE_FN int64_t atomic_add(int64_t* to, int64_t value) {
    return static_cast<int64_t>(atomicAdd(reinterpret_cast<uint64_t*>(to), static_cast<uint64_t>(value)));
}
DEVICE_FN float atomic_add(float* to, float value) { return atomicAdd(to, value); }
DEVICE_FN float atomic_max_positive(float* to, float value) {  // both at least 0: then they order as integers do
    return __int_as_float(atomicMax(reinterpret_cast<int*>(to), __float_as_int(value)));
}

// Atomic sums that return nothing; to[0] on a boundary of as many bytes as are added.
DEVICE_FN void add_to(float* to, float a) { asm volatile("red.global.add.f32 [%0], %1;" ::"l"(to), "f"(a) : "memory"); }
DEVICE_FN void add_to(float* to, float a, float b) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(a), "f"(b) : "memory");
#else
    add_to(to, a), add_to(to + 1, b);
#endif
}
DEVICE_FN void add_to(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
#else
    add_to(to, a, b), add_to(to + 2, c, d);
#endif
}

#endif

DEVICE_FN int lane_index() { return thread_index() & 31; }
DEVICE_FN int warp_index() { return thread_index() >> 5; }
DEVICE_FN int block_warps() { return block_threads() >> 5; }
DEVICE_FN int64_t global_thread() { return static_cast<int64_t>(block_index()) * block_threads() + thread_index(); }
DEVICE_FN int64_t all_threads() { return static_cast<int64_t>(grid_blocks()) * block_threads(); }

// Calls fn(Index<begin>()) to fn(Index<end - 1>()): a loop over arrays that must stay in registers, whatever it holds.
template <int i>
struct Index {
    static constexpr int value = i;
};
template <int begin, int end, class Fn>
DEVICE_FN void unrolled(Fn&& fn) {
    if constexpr (begin < end) {
        fn(Index<begin>());
        unrolled<begin + 1, end>(fn);
    }
}

// Sum, largest and running sum over a warp's lanes; every lane gets the first two.
template <class T>
DEVICE_FN T warp_sum(T value) {
    UNROLL
    for (int by = 16; by; by >>= 1) value += shuffle_xor(value, by);
    return value;
}
template <class T>
DEVICE_FN T warp_max(T value) {
    UNROLL
    for (int by = 16; by; by >>= 1) {
        const T other = shuffle_xor(value, by);
        value = other > value ? other : value;
    }
    return value;
}
template <class T>
DEVICE_FN T warp_scan(T value) {  // of lanes up to and including this one
    UNROLL
    for (int by = 1; by < 32; by <<= 1) {
        const T before = shuffle_up(value, by);
        if (lane_index() >= by) value += before;
    }
    return value;
}
