// Runs the threads of a block as fibers on one CPU thread, in an order that the schedule chooses.
//
// Under the thread sanitizer each fiber is a thread to it, and only collectives and barriers order them: two objects
// that take turns stand for a barrier's generations, so that a thread which has passed one isn't ordered after those
// still in it. Functions that keep the emulation's own books are hidden from it (NO_THREAD_CHECK).
#include "threads.h"

#include <sys/mman.h>

#include <deque>
#include <vector>

#include "emulation.h"

#if !defined(__x86_64__)
#error "the fibers' switch is written for x86-64"
#endif

#if defined(__SANITIZE_THREAD__)
#define NO_THREAD_CHECK __attribute__((no_sanitize("thread"), noinline))
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define THREAD_CHECK(statement) statement
constexpr unsigned without_order = 1;
#else
#define NO_THREAD_CHECK
#define THREAD_CHECK(statement)
#endif

#if defined(__SANITIZE_ADDRESS__)
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
#define ADDRESS_CHECK(statement) statement
constexpr size_t canary_bytes = 0;  // it sees itself what is written beyond the shared memory
#else
#define ADDRESS_CHECK(statement)
constexpr size_t canary_bytes = 64;
#endif

// Keeps the registers that a function must keep, and the stack; goes on where `to` was left.
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.text
.globl emulation_switch
.type emulation_switch, @function
emulation_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");

namespace emulation {
namespace {

constexpr size_t stack_bytes = 128 * 1024;
constexpr int most_threads = 1024;
constexpr unsigned char unwritten = 0xff;  // NaN in float16, bfloat16 and float32

enum class State : char { ready, at_collective, at_barrier, ended };

struct Fiber {
    void* stack_pointer = nullptr;
    State state = State::ready;
};
struct Warp {
    const char* collective = nullptr;
    int arrived = 0, turn = 0;
    char order[2];  // addresses to order by
    Lanes lanes;
};
struct Block {
    Position position{};
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    int live = 0, waiting = 0, turn = 0;
    char order[2], begin, end;
    const Kernel* kernel = nullptr;
    const void* args = nullptr;
    std::string error;
    void *main = nullptr, *main_checked = nullptr;  // its stack pointer; it as the thread sanitizer knows it
    void* checked[most_threads] = {};               // likewise the threads, which serve one block after another
    unsigned char* stacks = nullptr;
    Schedule schedule = Schedule::round_robin;
    uint32_t random = 1;
} block;
std::deque<Kernel> kernels;  // whose addresses stay
std::vector<Kernel*> handed_out;
size_t handed = 0;  // how many of them were handed out

NO_THREAD_CHECK uint32_t next_random() {
    block.random = block.random * 1664525u + 1013904223u;
    return block.random >> 8;
}

NO_THREAD_CHECK void back_to_main() {
    void* left;
    THREAD_CHECK(__tsan_switch_to_fiber(block.main_checked, without_order));
    emulation_switch(&left, block.main);
}

NO_THREAD_CHECK int ready_from(int first, int begin, int count) {  // a ready one of `count` threads, round from `first`
    for (int k = 0; k < count; ++k) {
        const int i = begin + (first - begin + k) % count;
        if (block.fibers[i].state == State::ready) return i;
    }
    return -1;
}

// The thread to run next; -1 where all wait.
NO_THREAD_CHECK int next_thread() {
    const int all = block.position.threads, current = block.position.thread;
    if (block.schedule == Schedule::round_robin) return ready_from((current + 1) % all, 0, all);
    if (block.schedule == Schedule::random) return ready_from(static_cast<int>(next_random() % all), 0, all);
    const int own = current / warp_size * warp_size;  // as far ahead of other warps as it can be
    const int same = ready_from(own + (current + 1) % warp_size, own, warp_size);
    if (same >= 0) return same;
    return ready_from(static_cast<int>(next_random() % (all / warp_size)) * warp_size, 0, all);
}

NO_THREAD_CHECK void switch_to_next() {
    const int from = block.position.thread, to = next_thread();
    if (to < 0) {
        const bool ended = block.live < block.position.threads;
        fail(ended ? "some threads have ended, others wait for them at a barrier or collective"
                   : "all threads wait: some at a barrier, others at a collective of their warp");
    }
    if (to == from) return;
    block.position.thread = to;
    THREAD_CHECK(__tsan_switch_to_fiber(block.checked[to], without_order));
    emulation_switch(&block.fibers[from].stack_pointer, block.fibers[to].stack_pointer);
}

NO_THREAD_CHECK void thread_main() {
    THREAD_CHECK(__tsan_acquire(&block.begin));
    block.kernel->run(block.args);
    block.fibers[block.position.thread].state = State::ended;
    THREAD_CHECK(__tsan_release(&block.end));
    if (--block.live == 0) back_to_main();
    switch_to_next();
}

NO_THREAD_CHECK void prepare(Fiber& fiber, int index) {
    // As if thread_main had been called by nobody: its frame begins 8 bytes below a 16-byte boundary.
    void** top = reinterpret_cast<void**>(block.stacks + stack_bytes * (index + 1)) - 1;
    *--top = reinterpret_cast<void*>(thread_main);
    for (int k = 0; k < 6; ++k) *--top = nullptr;
    fiber = {};
    fiber.stack_pointer = top;
    THREAD_CHECK(if (!block.checked[index]) block.checked[index] = __tsan_create_fiber(0));
}

NO_THREAD_CHECK void run_block(const Launch& launch) {
    unsigned char* shared = static_cast<unsigned char*>(::operator new(launch.shared + canary_bytes));
    std::memset(shared, unwritten, launch.shared + canary_bytes);
    ADDRESS_CHECK(__asan_unpoison_memory_region(block.stacks, stack_bytes * launch.threads));
    block.position.shared = shared;
    block.position.thread = 0;
    block.fibers.assign(launch.threads, {});
    block.warps.assign(launch.threads / warp_size, {});
    block.live = launch.threads, block.waiting = 0;
    for (int i = 0; i < launch.threads; ++i) prepare(block.fibers[i], i);
    THREAD_CHECK(block.main_checked = __tsan_get_current_fiber());
    THREAD_CHECK(__tsan_release(&block.begin));
    THREAD_CHECK(__tsan_switch_to_fiber(block.checked[0], without_order));
    emulation_switch(&block.main, block.fibers[0].stack_pointer);
    THREAD_CHECK(__tsan_acquire(&block.end));
    for (size_t k = launch.shared; k < launch.shared + canary_bytes && block.error.empty(); ++k)
        if (shared[k] != unwritten) block.error = block.kernel->name + ": wrote beyond the launch's shared memory";
    ::operator delete(shared);
}

}  // namespace

NO_THREAD_CHECK const Position& position() { return block.position; }

NO_THREAD_CHECK void fail(const std::string& what) {
    block.error = block.kernel->name + ": block " + std::to_string(block.position.block) + ", thread " +
                  std::to_string(block.position.thread) + ": " + what;
    back_to_main();
}

NO_THREAD_CHECK void collect(const char* collective, const void* in, void* out, void (*perform)(const Lanes&, int),
                             int option) {
    const int lane = block.position.thread % warp_size, first = block.position.thread - lane;
    Warp& warp = block.warps[first / warp_size];
    if (warp.arrived == 0) warp.collective = collective;
    if (std::strcmp(warp.collective, collective) != 0)
        fail(std::string(collective) + ", while others of its warp are at " + warp.collective);
    char* order = warp.order + warp.turn;
    warp.lanes.in[lane] = in, warp.lanes.out[lane] = out;
    THREAD_CHECK(__tsan_release(order));
    if (++warp.arrived < warp_size) {
        block.fibers[block.position.thread].state = State::at_collective;
        switch_to_next();
    } else {
        THREAD_CHECK(__tsan_acquire(order));
        perform(warp.lanes, option);
        warp.arrived = 0, warp.turn ^= 1;
        THREAD_CHECK(__tsan_release(order));
        for (int k = 0; k < warp_size; ++k) block.fibers[first + k].state = State::ready;
    }
    THREAD_CHECK(__tsan_acquire(order));
    (void)order;
}

Registered::Registered(const char* name, size_t argument_bytes, int threads, void (*run)(const void* args)) {
    kernels.push_back({name, argument_bytes, threads, run});
}

Kernel* const* registered(int* count) {
    handed_out.clear();
    while (handed < kernels.size()) handed_out.push_back(&kernels[handed++]);
    *count = static_cast<int>(handed_out.size());
    return handed_out.data();
}

void set_schedule(Schedule schedule, uint32_t seed) { block.schedule = schedule, block.random = seed; }

NO_THREAD_CHECK std::string run(const Kernel& kernel, const Launch& launch, const void* args) {
    if (!block.stacks) {
        const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* stacks = mmap(nullptr, stack_bytes * most_threads, protection, flags, -1, 0);
        if (stacks == MAP_FAILED) return "no memory for the threads' stacks";
        block.stacks = static_cast<unsigned char*>(stacks);
        for (int i = 0; i < most_threads; ++i) mprotect(block.stacks + stack_bytes * i, 4096, PROT_NONE);
    }
    block.kernel = &kernel, block.args = args, block.error.clear();
    const int64_t all = static_cast<int64_t>(launch.blocks) * launch.blocks_y;
    const int64_t start = block.schedule == Schedule::random ? next_random() % all : 0;
    for (int64_t k = 0; k < all && block.error.empty(); ++k) {
        const bool backwards = block.schedule == Schedule::warp_first;
        const int64_t index = backwards ? all - 1 - k : (start + k) % all;
        const int x = static_cast<int>(index % launch.blocks), y = static_cast<int>(index / launch.blocks);
        block.position = {0, x, y, launch.threads, launch.blocks, nullptr};
        run_block(launch);
    }
    return block.error;
}

}  // namespace emulation

NO_THREAD_CHECK void barrier() {
    using namespace emulation;
    char* order = block.order + block.turn;
    THREAD_CHECK(__tsan_release(order));
    if (++block.waiting < block.position.threads) {
        block.fibers[block.position.thread].state = State::at_barrier;
        switch_to_next();
    } else {
        block.waiting = 0, block.turn ^= 1;
        for (Fiber& fiber : block.fibers) fiber.state = State::ready;
    }
    THREAD_CHECK(__tsan_acquire(order));
    (void)order;
}
