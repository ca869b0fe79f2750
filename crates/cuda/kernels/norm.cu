// LayerNorm: y = (x - mean) / √(variance + eps) · gamma + beta, a warp a row.
//
// Row r lies at (r / inner) · stride + (r % inner) · width: whole rows of a matrix, or the heads side by side in them.
#include "device.cuh"

__device__ inline usize row_place(u32 row, u32 inner, u32 width, u32 stride) {
    return (usize)(row / inner) * stride + (usize)(row % inner) * width;
}

__device__ inline void mean_and_scale(const float* x, u32 width, float eps, float& mean, float& scale) {
    u32 lane = threadIdx.x % WARP;
    float sum = 0.0f, squares = 0.0f;
    for (u32 i = lane; i < width; i += WARP) sum += x[i];
    mean = warp_sum(sum) / width;
    for (u32 i = lane; i < width; i += WARP) squares += (x[i] - mean) * (x[i] - mean);
    scale = 1.0f / sqrtf(warp_sum(squares) / width + eps);
}

KERNEL layernorm(const float* x, u32 stride_x, float* y, u32 stride_y, u32 rows, u32 inner, u32 width, const float* gamma,
                 const float* beta, float eps) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    x += row_place(row, inner, width, stride_x);
    y += row_place(row, inner, width, stride_y);
    float mean, scale;
    mean_and_scale(x, width, eps, mean, scale);
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) y[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
}

// d_x (+)= (g - mean(g) - x̂ · mean(g x̂)) · scale with g = gamma d_y; d_x may be d_y where it is not added to.
KERNEL layernorm_backward(const float* x, u32 stride_x, const float* d_y, u32 stride_y, float* d_x, u32 stride_d, u32 rows, u32 inner,
                          u32 width, const float* gamma, float eps, u32 accumulate) {
    u32 row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (row >= rows) return;
    x += row_place(row, inner, width, stride_x);
    d_y += row_place(row, inner, width, stride_y);
    d_x += row_place(row, inner, width, stride_d);
    float mean, scale, sum = 0.0f, products = 0.0f;
    mean_and_scale(x, width, eps, mean, scale);
    for (u32 i = lane; i < width; i += WARP) {
        float g = gamma[i] * d_y[i];
        sum += g;
        products += g * (x[i] - mean) * scale;
    }
    sum = warp_sum(sum) / width;
    products = warp_sum(products) / width;
    for (u32 i = lane; i < width; i += WARP) {
        float d = (gamma[i] * d_y[i] - sum - (x[i] - mean) * scale * products) * scale;
        d_x[i] = accumulate ? d_x[i] + d : d;
    }
}
