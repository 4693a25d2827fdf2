// A pool of threads of our own: torch's OpenMP threads belong to torch, and a second OpenMP runtime would fight them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace threads {

using Task = void (*)(void* context, int64_t task);

// Run task(context, 0) ... task(context, tasks - 1) on up to `threads` threads, the caller among them, in no set order.
// Tasks must be independent and must write what does not depend on the thread that runs them. The first exception that
// a task throws is thrown again here, once all threads have stopped.
void run(int threads, int64_t tasks, Task task, void* context);

template <class Fn>
void parallel_for(int count, int64_t tasks, Fn&& fn) {
    run(count, tasks, [](void* context, int64_t task) { (*static_cast<Fn*>(context))(task); }, &fn);
}

// At least `bytes` of this thread's own memory, aligned to cache lines and kept for its next use; what it holds is left
// over.
void* scratch(size_t bytes);

}  // namespace threads
