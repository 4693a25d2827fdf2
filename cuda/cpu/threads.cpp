#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace threads {
namespace {

// About 20 microseconds: long enough to bridge the gap between two ops of a training step, too short to rob others.
constexpr int spins = 500;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Job {
    Task task;
    void* context;
    int64_t tasks;
    std::atomic<int64_t> next{0};
    std::exception_ptr error;  // guarded by the pool's mutex
};

class Pool {
public:
    void run(int count, Job& job);

private:
    void work(Job& job);
    void serve();
    void grow(int workers);

    std::mutex entry_;  // held by the one caller whose job is open
    std::mutex mutex_;  // guards what follows
    std::condition_variable wake_, left_;
    Job* job_ = nullptr;
    int wanted_ = 0;  // workers that may still join the job
    int inside_ = 0;  // workers that have joined and not yet left
    int workers_ = 0;
    std::atomic<uint64_t> opened_{0};  // jobs opened so far: what idle workers watch
};

void Pool::work(Job& job) {
    try {
        for (int64_t task; (task = job.next.fetch_add(1, std::memory_order_relaxed)) < job.tasks;)
            job.task(job.context, task);
    } catch (...) {
        job.next.store(job.tasks, std::memory_order_relaxed);
        std::lock_guard<std::mutex> lock(mutex_);
        if (!job.error) job.error = std::current_exception();
    }
}

void Pool::serve() {
    uint64_t seen = 0;
    for (;;) {
        for (int i = 0; i < spins && opened_.load(std::memory_order_acquire) == seen; ++i) pause_briefly();
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return opened_.load(std::memory_order_relaxed) != seen; });
        seen = opened_.load(std::memory_order_relaxed);
        if (!job_ || wanted_ == 0) continue;
        Job& job = *job_;
        --wanted_;
        ++inside_;
        lock.unlock();
        work(job);
        lock.lock();
        if (--inside_ == 0) left_.notify_one();
    }
}

void Pool::grow(int workers) {
    for (; workers_ < workers; ++workers_) std::thread([this] { serve(); }).detach();
}

void Pool::run(int count, Job& job) {
    // A second caller at the same time does its work alone rather than wait for the pool.
    std::unique_lock<std::mutex> entry(entry_, std::try_to_lock);
    const int helpers = static_cast<int>(count - 1 < job.tasks - 1 ? count - 1 : job.tasks - 1);
    if (helpers > 0 && entry.owns_lock()) {
        std::unique_lock<std::mutex> lock(mutex_);
        grow(helpers);
        job_ = &job;
        wanted_ = helpers;
        opened_.fetch_add(1, std::memory_order_release);
        lock.unlock();
        wake_.notify_all();
        work(job);
        // Whoever has not joined by now is not needed; waiting for a thread to wake up just to leave would cost its
        // latency.
        lock.lock();
        job_ = nullptr;
        left_.wait(lock, [&] { return inside_ == 0; });
    } else {
        work(job);
    }
    if (job.error) std::rethrow_exception(job.error);
}

std::atomic<Pool*> current{nullptr};

// The pool is never destroyed: its threads may still be asleep in it when the process ends. A forked child has none of
// the parent's threads, so it forgets the parent's pool and makes its own.
Pool& pool() {
    Pool* found = current.load(std::memory_order_acquire);
    if (found) return *found;
    auto made = std::make_unique<Pool>();
    if (current.compare_exchange_strong(found, made.get())) {
#if !defined(_WIN32)
        static std::atomic<bool> registered{false};
        if (!registered.exchange(true)) pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
#endif
        return *made.release();
    }
    return *found;
}

struct Buffer {
    void* data = nullptr;
    size_t bytes = 0;
    ~Buffer() { release(); }
    void release() {
        if (data) ::operator delete(data, std::align_val_t(64));
        data = nullptr;
        bytes = 0;
    }
};
thread_local Buffer buffer;

}  // namespace

void run(int threads, int64_t tasks, Task task, void* context) {
    if (tasks <= 0) return;
    Job job{task, context, tasks, {0}, nullptr};
    pool().run(threads, job);
}

void* scratch(size_t bytes) {
    if (buffer.bytes < bytes) {
        buffer.release();
        buffer.data = ::operator new(bytes, std::align_val_t(64));
        buffer.bytes = bytes;
    }
    return buffer.data;
}

}  // namespace threads
