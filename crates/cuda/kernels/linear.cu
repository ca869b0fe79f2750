// Products with frozen weights: y (+)= x Wᵀ + b, and back, d_x = d_y W. No gradient of W: it is frozen.
//
// A block of 128 threads gives 64 × 64 results, a warp 32 × 32 of them, in the fragments of mma.m16n8k16: of every 16 × 8 a lane holds rows
// `lane / 4` and 8 below, columns `2 (lane % 4)` and the next. In bfloat16 operands are rounded on the way into shared memory and products
// summed in f32 by the matrix unit; in f32, and on cards before sm_80, by multiply-adds over the same tiles.
#include "device.cuh"

#define TILE 64u
#define DEPTH 32u
// Rows of shared memory are padded so that the eight rows of a fragment lie in banks of their own.
#define PITCH (DEPTH + 8)

// c += A B of one warp: 16 × 16 times 16 × 8, `a` and `b` at the lane's first row and pair of columns.
__device__ inline void multiply(float c[4], const bf16* a, const bf16* b) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const u32 left[4] = {*(const u32*)a, *(const u32*)(a + 8 * PITCH), *(const u32*)(a + 8), *(const u32*)(a + 8 * PITCH + 8)};
    const u32 right[2] = {*(const u32*)b, *(const u32*)(b + 8)};
#ifdef __CUDA_ARCH__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
#else
    host_mma_m16n8k16_bf16(c, left, right);
#endif
#endif
}

template <class T> __device__ inline void multiply_add(float c[4], const T* a, const T* b) {
    // From the fragment's first row, and the first two of its columns.
#pragma unroll 1
    for (u32 k = 0; k < 16; k++) {
        float upper = to_f32(a[k]), lower = to_f32(a[8 * PITCH + k]), left = to_f32(b[k]), right = to_f32(b[PITCH + k]);
        c[0] += upper * left;
        c[1] += upper * right;
        c[2] += lower * left;
        c[3] += lower * right;
    }
}

__device__ inline bool has_matrix_unit(float) { return false; }
__device__ inline bool has_matrix_unit(bf16) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    return true;
#else
    return false;
#endif
}

__device__ inline void multiply(float*, const float*, const float*) {}

// y [m, n] (+)= x [m, k] Wᵀ + bias; W is [n, k], or with `BACKWARD` [k, n] as it lies in memory.
template <class T, bool BACKWARD>
__device__ inline void product(const float* x, u32 stride_x, const T* weight, const float* bias, float* y, u32 stride_y, u32 m, u32 n,
                               u32 k, u32 accumulate) {
    __shared__ __align__(16) T left[TILE * PITCH];
    __shared__ __align__(16) T right[TILE * PITCH];
    u32 first_row = blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 row = warp / 2 * 32 + lane / 4, column = warp % 2 * 32, pair = 2 * (lane % 4);
    float c[2][4][4] = {};
    for (u32 depth = 0; depth < k; depth += DEPTH) {
#pragma unroll 4
        for (u32 at = threadIdx.x; at < TILE * DEPTH; at += blockDim.x) {
            u32 i = at / DEPTH, j = at % DEPTH;
            bool inside = first_row + i < m && depth + j < k;
            round_to(left[i * PITCH + j], inside ? x[(usize)(first_row + i) * stride_x + depth + j] : 0.0f);
        }
#pragma unroll 4
        for (u32 at = threadIdx.x; at < TILE * DEPTH; at += blockDim.x) {
            // Neighbouring threads read neighbouring numbers.
            u32 i = BACKWARD ? at % TILE : at / DEPTH, j = BACKWARD ? at / TILE : at % DEPTH;
            bool inside = first_column + i < n && depth + j < k;
            usize place = BACKWARD ? (usize)(depth + j) * n + first_column + i : (usize)(first_column + i) * k + depth + j;
            right[i * PITCH + j] = inside ? weight[place] : T(0);
        }
        __syncthreads();
#pragma unroll 1
        for (u32 step = 0; step < DEPTH; step += 16) {
#pragma unroll
            for (u32 i = 0; i < 2; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    const T* a = left + (row + 16 * i) * PITCH + step;
                    const T* b = right + (column + 8 * j) * PITCH + step;
                    if (has_matrix_unit(T(0))) {
                        multiply(c[i][j], a + pair, b + lane / 4 * PITCH + pair);
                    } else {
                        multiply_add(c[i][j], a, b + pair * PITCH);
                    }
                }
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
#pragma unroll
            for (u32 part = 0; part < 4; part++) {
                u32 to_row = first_row + row + 16 * i + part / 2 * 8, to_column = first_column + column + 8 * j + pair + part % 2;
                if (to_row >= m || to_column >= n) continue;
                float value = c[i][j][part] + (bias ? bias[to_column] : 0.0f);
                float* to = y + (usize)to_row * stride_y + to_column;
                *to = accumulate ? *to + value : value;
            }
        }
    }
}

KERNEL __launch_bounds__(128) linear_f32(const float* x, u32 stride_x, const float* weight, const float* bias, float* y, u32 stride_y,
                                         u32 m, u32 n, u32 k, u32 accumulate) {
    product<float, false>(x, stride_x, weight, bias, y, stride_y, m, n, k, accumulate);
}
KERNEL __launch_bounds__(128) linear_bf16(const float* x, u32 stride_x, const bf16* weight, const float* bias, float* y, u32 stride_y,
                                          u32 m, u32 n, u32 k, u32 accumulate) {
    product<bf16, false>(x, stride_x, weight, bias, y, stride_y, m, n, k, accumulate);
}

// d_x [m, n] = d_y [m, k] W for W [k, n].
KERNEL __launch_bounds__(128) linear_backward_f32(const float* d_y, u32 stride_y, const float* weight, float* d_x, u32 stride_x, u32 m,
                                                  u32 n, u32 k) {
    product<float, true>(d_y, stride_y, weight, nullptr, d_x, stride_x, m, n, k, 0);
}
KERNEL __launch_bounds__(128) linear_backward_bf16(const float* d_y, u32 stride_y, const bf16* weight, float* d_x, u32 stride_x, u32 m,
                                                   u32 n, u32 k) {
    product<bf16, true>(d_y, stride_y, weight, nullptr, d_x, stride_x, m, n, k, 0);
}
