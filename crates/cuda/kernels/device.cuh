// What all kernels have in common. Letters are those of melo-kernels: `n` images, `t` tokens, `d` width, `h` heads, `r` rank. All buffers
// are f32, row-major and dense but where a stride is an argument; weights are `[out, in]`, in f32 or bfloat16.
//
// The same source is CUDA C for NVRTC and, after `shim/host.h` of melo-cuda-host, C++20 for the processor.
#pragma once

typedef unsigned int u32;
typedef unsigned short bf16;
typedef decltype(sizeof(0)) usize;

#define KERNEL extern "C" __global__ void
#define WARP 32u
#define ALL_LANES 0xffffffffu
// Minus infinity.
#define LOWEST __uint_as_float(0xff800000u)

__device__ inline u32 bits_of(float x) { return __float_as_uint(x); }

__device__ inline float to_f32(float x) { return x; }
__device__ inline float to_f32(bf16 x) { return __uint_as_float((u32)x << 16); }

// Rounds to the nearest, ties to even; NaN stays one.
__device__ inline void round_to(float& y, float x) { y = x; }
__device__ inline void round_to(bf16& y, float x) {
    u32 bits = bits_of(x);
    y = x == x ? (bf16)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16) : (bf16)0x7fc0u;
}

__device__ inline float warp_sum(float x) {
    for (u32 lane = WARP / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(ALL_LANES, x, lane);
    return x;
}

// Among four lanes that work on one row.
__device__ inline float quad_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}
__device__ inline float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// The element of a kernel with a thread an element.
__device__ inline usize element() { return (usize)blockIdx.x * blockDim.x + threadIdx.x; }
