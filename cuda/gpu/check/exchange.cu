// Every primitive of device.h once, for the test of the emulation and of the compiler.
#include "../device.h"

struct ExchangeArgs {
    const float* x;        // [blocks, 64]
    const uint16_t* left;  // [16, 16], rounded
    const uint16_t* right; // [16, 8], rounded
    float* reversed;       // [blocks, 64], each block's x backwards
    float* sums;           // [blocks * 2], of each warp's 32
    float* scans;          // [blocks, 64], running sums within each warp
    float* product;        // [16, 8]
    int32_t* positive;     // [blocks * 2], how many of a warp's x are above 0
    float* total;          // [4], sums of all: of x, 2x, 3x, 4x
    float* highest;        // [1]
    int32_t blocks;
    int32_t brain;
};

template <class T>
DEVICE_FN void multiply(const ExchangeArgs& args, uint16_t* shared) {
    const int lane = lane_index();
    uint16_t *left = shared, *right = shared + 256;
    for (int i = lane; i < 256; i += 32) left[i] = args.left[i];
    for (int i = lane; i < 128; i += 32) right[i] = args.right[i];
    warp_barrier();
    uint32_t a[4], b[4];
    load_matrices<false>(a, left + (lane & 15) * 16 + (lane >> 4) * 8);
    load_matrices<true>(b, right + (lane & 15) * 8);
    float sums[4] = {};
    mma<T>(sums, a, b[0], b[1]);
    for (int r = 0; r < 4; ++r) args.product[(lane / 4 + 8 * (r >> 1)) * 8 + 2 * (lane % 4) + (r & 1)] = sums[r];
}

KERNEL(exchange, ExchangeArgs, 64) {
    float* numbers = shared_memory<float>();
    const int thread = thread_index(), place = block_index() * 64 + thread, warp = block_index() * 2 + warp_index();
    const float x = args.x[place];
    numbers[thread] = x;
    barrier();
    args.reversed[place] = numbers[63 - thread];
    args.scans[place] = warp_scan(x);
    const float sum = warp_sum(x);
    const uint32_t above = ballot(x > 0);
    if (lane_index() == first_bit(0x80000000u)) {  // the last lane
        args.sums[warp] = sum;
        args.positive[warp] = count_bits(above);
        add_to(args.total, sum, 2 * sum, 3 * sum, 4 * sum);
    }
    const float largest = warp_max(x > 0 ? x : 0.f);
    if (lane_index() == 0) atomic_max_positive(args.highest, largest);
    barrier();
    if (block_index() == 0 && warp_index() == 0) {
        if (args.brain) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
            multiply<Bfloat16>(args, shared_memory<uint16_t>());
#endif
        } else {
            multiply<Float16>(args, shared_memory<uint16_t>());
        }
    }
}
