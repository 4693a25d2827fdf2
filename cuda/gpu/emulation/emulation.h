// What the parts of the emulation ask of one another: the driver, the threads, and what they do together.
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

// What the lanes of a warp bring to a collective, and where each wants its result.
constexpr int warp_size = 32;
struct Lanes {
    const void* in[warp_size];
    void* out[warp_size];
};
// Called by every lane of a warp; the last to come performs for all.
void collect(const char* collective, const void* in, void* out, void (*perform)(const Lanes&, int option), int option);
// Ends the launch, which says why.
void fail(const std::string& what);

enum class Schedule { round_robin, warp_first, random };
void set_schedule(Schedule schedule, uint32_t seed);

}  // namespace emulation
