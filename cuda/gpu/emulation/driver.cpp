// The CUDA driver's entry points that nerf/kernels/cuda_driver.py calls, for one device that is emulated: its memory is
// this process's, and its modules are shared libraries (tests/emulator.py builds them where a GPU gets NVRTC's code).
// Strict where a GPU is: what it would refuse, or what would break on some GPU that we support, is an error here.
#include <dlfcn.h>

#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "emulation.h"

namespace {

enum Result {
    success = 0,
    invalid_value = 1,
    not_initialized = 3,
    invalid_device = 101,
    invalid_image = 200,
    invalid_context = 201,
    not_found = 500,
    launch_failed = 719,
};

using emulation::Kernel;

constexpr int most_shared = 99 * 1024;  // of sm_86, sm_89 and sm_120: the least of the newer ones
constexpr char magic[] = "EMULATED ";   // an image: this, and a library's path

struct Module {
    std::vector<Kernel*> kernels;
};

std::mutex lock;
bool initialized = false;
int capability[2] = {8, 6};
int64_t launches = 0;
std::string error;
std::map<std::string, Module> modules;
char primary;
thread_local void* current = nullptr;

Result refuse(Result result, const std::string& why) {
    error = why;
    return result;
}

Result ready() {
    if (!initialized) return refuse(not_initialized, "cuInit wasn't called");
    return current ? success : refuse(invalid_context, "this thread has no current context");
}

Result launch(Kernel* kernel, const emulation::Launch& grid, unsigned block_y, unsigned block_z, void** each,
              void** packed) {
    if (const Result result = ready()) return result;
    if (block_y != 1 || block_z != 1 || grid.threads != kernel->block || grid.threads % 32 || grid.threads > 1024)
        return refuse(invalid_value, kernel->name + ": is for blocks of " + std::to_string(kernel->block) + " threads");
    if (grid.blocks < 1 || grid.blocks_y < 1 || grid.blocks_y > 65535)
        return refuse(invalid_value, kernel->name + ": a grid of no block, or of too many");
    if (grid.shared > static_cast<size_t>(kernel->shared_limit))
        return refuse(invalid_value, kernel->name + ": more shared memory than the function's attribute allows");
    if (!each == !packed) return refuse(invalid_value, kernel->name + ": one of kernelParams and extra, not both");
    const void* args = each ? each[0] : nullptr;
    for (void** entry = packed; entry && *entry; entry += 2) {
        if (entry[0] == reinterpret_cast<void*>(1)) args = entry[1];  // CU_LAUNCH_PARAM_BUFFER_POINTER
        if (entry[0] == reinterpret_cast<void*>(2) && *static_cast<size_t*>(entry[1]) != kernel->argument_bytes)
            return refuse(invalid_value, kernel->name + ": takes " + std::to_string(kernel->argument_bytes) +
                                             " bytes, not " + std::to_string(*static_cast<size_t*>(entry[1])));
    }
    if (!args) return refuse(invalid_value, kernel->name + ": no argument");
    std::vector<char> copy(kernel->argument_bytes);  // as a launch does: the caller may change its own at once
    std::memcpy(copy.data(), args, copy.size());
    ++launches;
    const std::string wrong = emulation::run(*kernel, grid, copy.data());
    return wrong.empty() ? success : refuse(launch_failed, wrong);
}

}  // namespace

extern "C" {

// 0: round robin. 1: a warp until all its lanes wait. 2: any ready thread.
void emulation_schedule(int kind, uint32_t seed) {
    emulation::set_schedule(static_cast<emulation::Schedule>(kind), seed);
}
void emulation_capability(int major, int minor) { capability[0] = major, capability[1] = minor; }
const char* emulation_error() { return error.c_str(); }  // of the last call that returned one
int64_t emulation_launches() { return launches; }

int cuInit(unsigned flags) {
    if (flags) return invalid_value;
    initialized = true;
    return success;
}
int cuDriverGetVersion(int* version) { return *version = 13000, success; }
int cuDeviceGetCount(int* count) { return *count = 1, initialized ? success : not_initialized; }
int cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return not_initialized;
    return *device = 0, ordinal == 0 ? success : invalid_device;
}
int cuDeviceGetName(char* name, int length, int device) {
    if (device) return invalid_device;
    std::strncpy(name, "emulated device", length - 1);
    name[length - 1] = 0;
    return success;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    const std::map<int, int> known = {
        {1, 1024},          // CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK
        {8, 48 * 1024},     // MAX_SHARED_MEMORY_PER_BLOCK
        {10, 32},           // WARP_SIZE
        {16, 1},            // MULTIPROCESSOR_COUNT: so that blocks have more than one stretch of rows to do
        {75, capability[0]}, {76, capability[1]},  // COMPUTE_CAPABILITY_MAJOR, _MINOR
        {81, 100 * 1024},   // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        {97, most_shared},  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    };
    if (device) return invalid_device;
    if (!known.count(attribute)) return invalid_value;
    return *value = known.at(attribute), success;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    if (!initialized) return not_initialized;
    return *context = &primary, device ? invalid_device : success;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return device ? invalid_device : success; }
int cuCtxGetCurrent(void** context) { return *context = current, initialized ? success : not_initialized; }
int cuCtxSetCurrent(void* context) {
    if (context && context != &primary) return invalid_context;
    return current = context, initialized ? success : not_initialized;
}

int cuModuleLoadData(void** module, const void* image) {
    const std::lock_guard<std::mutex> held(lock);
    if (const Result result = ready()) return result;
    if (std::strncmp(static_cast<const char*>(image), magic, sizeof magic - 1) != 0)
        return refuse(invalid_image, "an image that isn't the emulated compiler's");
    const std::string path = static_cast<const char*>(image) + sizeof magic - 1;
    if (!modules.count(path)) {
        if (!dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return refuse(invalid_image, dlerror());
        int count = 0;
        Kernel* const* found = emulation::registered(&count);
        modules[path].kernels.assign(found, found + count);
    }
    return *module = &modules[path], success;
}
int cuModuleUnload(void*) { return success; }  // its code may be another module's too
int cuModuleGetFunction(void** function, void* module, const char* name) {
    for (Kernel* kernel : static_cast<Module*>(module)->kernels)
        if (kernel->name == name) return *function = kernel, success;
    return refuse(not_found, std::string("no kernel ") + name + " in this module");
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    constexpr int max_dynamic_shared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (attribute != max_dynamic_shared || value < 0 || value > most_shared)
        return refuse(invalid_value, "cuFuncSetAttribute: an unknown attribute, or over 99 KB of shared memory");
    static_cast<Kernel*>(function)->shared_limit = value;
    return success;
}
int cuLaunchKernel(void* function, unsigned blocks, unsigned blocks_y, unsigned blocks_z, unsigned threads,
                   unsigned block_y, unsigned block_z, unsigned shared, void*, void** each, void** packed) {
    const std::lock_guard<std::mutex> held(lock);
    if (blocks_z != 1 || blocks > 0x7fffffff) return refuse(invalid_value, "a grid of three dimensions, or too large");
    const emulation::Launch grid{int(blocks), int(blocks_y), int(threads), shared};
    return launch(static_cast<Kernel*>(function), grid, block_y, block_z, each, packed);
}
int cuStreamSynchronize(void*) { return ready(); }
int cuGetErrorString(int, const char** words) { return *words = error.c_str(), success; }
int cuGetErrorName(int, const char** words) { return *words = "CUDA_ERROR (emulated)", success; }
}
