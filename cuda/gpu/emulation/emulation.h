// What the emulated driver asks of the emulated threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulation {

struct Kernel {
    std::string name;
    size_t argument_bytes;
    int block;  // threads of a block
    void (*run)(const void* args);
    int shared_limit = 48 * 1024;  // bytes, until it is raised
};
struct Launch {
    int blocks, blocks_y, threads;
    size_t shared;  // bytes
};

// The kernels registered since the last call: those of a module that was just opened.
Kernel* const* registered(int* count);

// Runs a kernel; "" where all went well, otherwise what it did wrong.
std::string run(const Kernel& kernel, const Launch& launch, const void* args);

enum class Schedule { round_robin, warp_first, random };
void set_schedule(Schedule schedule, uint32_t seed);

}  // namespace emulation
