// What plug-ins add: small products, of each image with the matrices of its own task, whatever their ranks. All tasks of a batch in one
// launch: an image finds its matrix in a table, so there is no loop over tasks. In f32.
#include "device.cuh"

#define SIDE 32u

// One image's product; places are in f32 from the start of `store`. No `outs`: this image has none.
struct Product {
    u32 matrix, bias, outs, ins;
    float scale;
};

#define NO_BIAS 0xffffffffu

// y (+)= scale · x Mᵀ + bias, image by image of `rows` rows: M is [outs, ins], or, where `backward`, [ins, outs] as it lies in memory.
// A shrink `z = A x` and an expand `y += scale · B z`; backward `d_z = scale · d_y B` and `d_x += d_z A`; layers of bottlenecks; heads.
KERNEL __launch_bounds__(256) grouped(const float* x, u32 stride_x, float* y, u32 stride_y, u32 rows, const float* store,
                                      const Product* table, u32 backward, u32 accumulate) {
    __shared__ float left[SIDE][SIDE + 1];
    __shared__ float right[SIDE][SIDE + 1];
    const Product of = table[blockIdx.z];
    u32 first_row = blockIdx.y * SIDE, first_column = blockIdx.x * SIDE;
    if (first_column >= of.outs) return;
    x += (usize)blockIdx.z * rows * stride_x;
    y += (usize)blockIdx.z * rows * stride_y;
    const float* matrix = store + of.matrix;
    // A thread gives four rows of one column.
    u32 column = threadIdx.x % SIDE, row = threadIdx.x / SIDE;
    float sums[4] = {};
    for (u32 depth = 0; depth < of.ins; depth += SIDE) {
        for (u32 at = threadIdx.x; at < SIDE * SIDE; at += blockDim.x) {
            u32 i = at / SIDE, j = at % SIDE;
            left[i][j] = first_row + i < rows && depth + j < of.ins ? x[(usize)(first_row + i) * stride_x + depth + j] : 0.0f;
            u32 out = first_column + (backward ? j : i), in = depth + (backward ? i : j);
            bool inside = out < of.outs && in < of.ins;
            float value = inside ? matrix[backward ? (usize)in * of.outs + out : (usize)out * of.ins + in] : 0.0f;
            if (backward) {
                right[j][i] = value;
            } else {
                right[i][j] = value;
            }
        }
        __syncthreads();
        for (u32 k = 0; k < SIDE; k++) {
            for (u32 i = 0; i < 4; i++) sums[i] += left[row + 8 * i][k] * right[column][k];
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 to_row = first_row + row + 8 * i, to_column = first_column + column;
        if (to_row >= rows || to_column >= of.outs) continue;
        float value = of.scale * sums[i] + (of.bias == NO_BIAS ? 0.0f : store[of.bias + to_column]);
        float* to = y + (usize)to_row * stride_y + to_column;
        *to = accumulate ? *to + value : value;
    }
}

// A trained matrix's gradient, in parts: part [chunk, p, q] = scale · Pᵀ Q over a chunk's rows; without P, of ones (a bias).
KERNEL __launch_bounds__(256) gradient(const float* p, u32 stride_p, u32 width_p, const float* q, u32 stride_q, u32 width_q, u32 rows,
                                       u32 chunk, float scale, float* parts) {
    __shared__ float left[SIDE][SIDE + 1];
    __shared__ float right[SIDE][SIDE + 1];
    u32 first_row = blockIdx.y * SIDE, first_column = blockIdx.x * SIDE;
    u32 column = threadIdx.x % SIDE, row = threadIdx.x / SIDE;
    u32 from = blockIdx.z * chunk, until = from + chunk < rows ? from + chunk : rows;
    float sums[4] = {};
    for (u32 depth = from; depth < until; depth += SIDE) {
        for (u32 at = threadIdx.x; at < SIDE * SIDE; at += blockDim.x) {
            u32 k = at / SIDE, i = at % SIDE;
            bool inside = depth + k < until;
            float one = p == nullptr ? 1.0f : 0.0f;
            if (p && inside && first_row + i < width_p) one = p[(usize)(depth + k) * stride_p + first_row + i];
            left[k][i] = inside ? one : 0.0f;
            right[k][i] = inside && first_column + i < width_q ? q[(usize)(depth + k) * stride_q + first_column + i] : 0.0f;
        }
        __syncthreads();
        for (u32 k = 0; k < SIDE; k++) {
            for (u32 i = 0; i < 4; i++) sums[i] += left[k][row + 8 * i] * right[k][column];
        }
        __syncthreads();
    }
    for (u32 i = 0; i < 4; i++) {
        u32 to_row = first_row + row + 8 * i, to_column = first_column + column;
        if (to_row >= width_p || to_column >= width_q) continue;
        parts[((usize)blockIdx.z * width_p + to_row) * width_q + to_column] = scale * sums[i];
    }
}

// sum += all parts, in order: [chunks, width] onto [width].
KERNEL add_parts(const float* parts, float* sum, u32 chunks, u32 width) {
    usize at = element();
    if (at >= width) return;
    float total = 0.0f;
    for (u32 chunk = 0; chunk < chunks; chunk++) total += parts[(usize)chunk * width + at];
    sum[at] += total;
}
