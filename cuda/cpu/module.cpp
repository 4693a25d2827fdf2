// What makes the library loadable: which level it is, what the processor offers, and the symbol that Python's linkers
// expect of an extension module. Nobody imports it; nerf/kernels/cpu.py opens it with ctypes.
#include "abi.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

EXPORT void* JOIN(PyInit__cpu_, NERF_CPU_LEVEL)() { return nullptr; }

#if defined(__x86_64__)
// Whether the processor multiplies tiles of bfloat16 numbers and the system lets this process do it, which it must be
// asked for once, before any thread does.
static bool amx() {
#if defined(__linux__)
    constexpr int request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}
#endif

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
    if (!__builtin_cpu_supports("avx512bf16")) return "v4";
    return amx() ? "amx" : "v4bf16";
#else
    return "generic";
#endif
}

// Which functions there are and what they take; INTERFACE in nerf/kernels/cpu_library.py is the same number.
EXPORT int nerf_cpu_interface() { return 8; }
