// What makes the library loadable: which level it is, what the processor offers, and the symbol that Python's linkers
// expect of an extension module. Nobody imports it; nerf/kernels/cpu.py opens it with ctypes.
#include "abi.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

EXPORT void* JOIN(PyInit__cpu_, NERF_CPU_LEVEL)() { return nullptr; }

// The highest level that this processor runs. Only the lowest build is asked, since any may be opened but not called.
EXPORT const char* nerf_cpu_highest_level() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")))
        return "v2";
    if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl")))
        return "v3";
    return __builtin_cpu_supports("avx512bf16") ? "v4bf16" : "v4";
#else
    return "generic";
#endif
}

// Which functions there are and what they take; INTERFACE in nerf/kernels/cpu_library.py is the same number.
EXPORT int nerf_cpu_interface() { return 3; }
