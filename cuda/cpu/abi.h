// The plain C face of the library. Every op returns null, or a sentence that says what went wrong.
#pragma once

#include <exception>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// No exception may cross into C.
template <class Fn>
const char* guarded(Fn&& fn) {
    try {
        fn();
        return nullptr;
    } catch (const std::bad_alloc&) {
        return "out of memory";
    } catch (const std::exception&) {
        return "a C++ exception";
    }
}
