// CUDA's words for a processor: one file of CUDA C becomes C++20. Blocks run one after the other; the threads of a block are fibers that
// give way to each other where they wait: all in turn, or, to see whether anything depends on it, from the last to the first and a warp as far
// as it goes before the next.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

struct dim3 {
    unsigned x, y, z;
};

#define __global__
#define __device__
#define __shared__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n)

namespace host {

inline dim3 thread, block, block_size, grid_size;

// Where threads wait for each other: a block, or a warp of it.
struct Barrier {
    unsigned size = 0, arrived = 0, generation = 0;
};

// What lanes of a warp show each other.
struct Warp {
    Barrier barrier;
    std::uint32_t words[32][6];
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    std::vector<char> stack;
    bool started = false, done = true;
    // Waits for the block.
    bool waits = false;
};

constexpr unsigned MOST = 1024, STACK = 1 << 16, LANES = 32;
inline Fiber fibers[MOST];
inline Warp warps[MOST / LANES];
inline Barrier all;
inline jmp_buf scheduler;
inline ucontext_t scheduler_start;
inline void (*body)(void**);
inline void** arguments;
inline bool falling = false;

inline void give_way() {
    if (!_setjmp(fibers[thread.x].at)) _longjmp(scheduler, 1);
}

inline void wait(Barrier& barrier) {
    unsigned generation = barrier.generation;
    if (++barrier.arrived == barrier.size) {
        barrier.arrived = 0;
        barrier.generation++;
        return;
    }
    while (generation == barrier.generation) give_way();
}

inline Warp& warp() { return warps[thread.x / LANES]; }

// A fiber is kept and takes one thread after the other.
inline void live() {
    for (;;) {
        body(arguments);
        fibers[thread.x].done = true;
        give_way();
    }
}

inline void resume(Fiber& fiber) {
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.at, 1);
    fiber.started = true;
    fiber.stack.resize(STACK);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.data();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, live, 0);
    setcontext(&fiber.start);
}

// A thread's turn; false where it has none.
inline bool turn(unsigned at, unsigned& left) {
    if (fibers[at].done) return false;
    thread = {at, 0, 0};
    resume(fibers[at]);
    left -= fibers[at].done;
    return true;
}

// The turns of a warp's threads, until all of them wait for the block.
inline void turns_of_warp(unsigned first, unsigned& left) {
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned at = std::min(first + LANES, block_size.x); at-- > first;) {
            if (!fibers[at].waits) moved |= turn(at, left);
        }
    }
}

inline void run_block() {
    unsigned left = block_size.x;
    all = {left};
    for (unsigned i = 0; i < block_size.x; i += LANES) warps[i / LANES].barrier = {std::min(LANES, block_size.x - i)};
    for (unsigned i = 0; i < block_size.x; i++) fibers[i].done = false;
    while (left > 0) {
        if (!falling) {
            for (unsigned at = 0; at < block_size.x; at++) turn(at, left);
            continue;
        }
        for (unsigned warp = (block_size.x + LANES - 1) / LANES; warp-- > 0;) turns_of_warp(warp * LANES, left);
    }
}

inline void run(void (*kernel)(void**), void** args, dim3 grid, unsigned threads) {
    body = kernel, arguments = args, grid_size = grid, block_size = {threads, 1, 1};
    for (block.z = 0; block.z < grid.z; block.z++) {
        for (block.y = 0; block.y < grid.y; block.y++) {
            for (block.x = 0; block.x < grid.x; block.x++) run_block();
        }
    }
}

}  // namespace host

#define threadIdx host::thread
#define blockIdx host::block
#define blockDim host::block_size
#define gridDim host::grid_size

inline void __syncthreads() {
    host::fibers[host::thread.x].waits = true;
    if (host::all.arrived + 1 == host::all.size) {
        for (unsigned i = 0; i < host::block_size.x; i++) host::fibers[i].waits = false;
    }
    host::wait(host::all);
}

inline std::uint32_t __float_as_uint(float x) { return std::bit_cast<std::uint32_t>(x); }
inline float __uint_as_float(std::uint32_t x) { return std::bit_cast<float>(x); }

inline float __shfl_xor_sync(unsigned, float x, unsigned mask) {
    host::Warp& warp = host::warp();
    unsigned lane = host::thread.x % host::LANES;
    warp.words[lane][0] = __float_as_uint(x);
    host::wait(warp.barrier);
    float other = __uint_as_float(warp.words[lane ^ mask][0]);
    host::wait(warp.barrier);
    return other;
}

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32, by the fragments of the PTX manual ("Matrix Fragments for mma.m16n8k16 with
// floating point type").
inline void host_mma_m16n8k16_bf16(float c[4], const std::uint32_t a[4], const std::uint32_t b[2]) {
    host::Warp& warp = host::warp();
    unsigned lane = host::thread.x % host::LANES;
    for (unsigned i = 0; i < 4; i++) warp.words[lane][i] = a[i];
    for (unsigned i = 0; i < 2; i++) warp.words[lane][4 + i] = b[i];
    host::wait(warp.barrier);
    auto half = [](std::uint32_t word, unsigned which) { return __uint_as_float(word >> 16 * which << 16); };
    for (unsigned part = 0; part < 4; part++) {
        unsigned row = lane / 4 + part / 2 * 8, column = lane % 4 * 2 + part % 2;
        float sum = 0.0f;
        for (unsigned k = 0; k < 16; k++) {
            const std::uint32_t* left = warp.words[row % 8 * 4 + k % 8 / 2];
            const std::uint32_t* right = warp.words[column * 4 + k % 8 / 2];
            sum += half(left[row / 8 + k / 8 * 2], k % 2) * half(right[4 + k / 8], k % 2);
        }
        c[part] += sum;
    }
    host::wait(warp.barrier);
}
