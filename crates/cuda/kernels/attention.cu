// Attention of every image and head: o = softmax(q kᵀ / √w + bias) v, without the matrix of probabilities in memory (Dao et al. 2022,
// arXiv 2205.14135). Products are summed in f32.
//
// A block of 128 threads has 32 rows, four lanes each; the others pass by in tiles of 32. Of every row is kept `lse`, the logarithm of the
// sum of its powers, from which the way back makes its probabilities again.
#include "device.cuh"

#define ROWS 32u
// Widest head, ViT-G's 104 and more.
#define MOST 112u
#define SPAN (MOST + 1)
#define SHARE (MOST / 4)
#define EIGHT (ROWS / 4)

struct Heads {
    u32 t, heads, width;
};

// Bias by how far apart tokens stand: table [distances, h] at index [t, t]; none without a table.
struct Relative {
    const float* table;
    const u32* index;
};

__device__ inline float bias_of(Relative relative, Heads of, u32 head, u32 query, u32 key) {
    return relative.table ? relative.table[(usize)relative.index[(usize)query * of.t + key] * of.heads + head] : 0.0f;
}

// The rows of one head from `first` on, of a matrix of rows [.., stride], zeros behind the last.
__device__ inline void fill(float* tile, const float* rows, usize stride, u32 first, Heads of) {
    for (u32 at = threadIdx.x; at < ROWS * of.width; at += blockDim.x) {
        u32 i = at / of.width, j = at % of.width;
        tile[i * SPAN + j] = first + i < of.t ? rows[(first + i) * stride + j] : 0.0f;
    }
}

__device__ inline float dot(const float* a, const float* b, u32 width) {
    float sum = 0.0f;
#pragma unroll 1
    for (u32 i = 0; i < width; i++) sum += a[i] * b[i];
    return sum;
}

// The lane's columns of a row: sums += Σ_k weights[k] · tile[k].
__device__ inline void add_rows(float* sums, const float* weights, const float* tile, Heads of, u32 lane) {
#pragma unroll 1
    for (u32 k = 0; k < ROWS; k++) {
        // Unrolled, so that the sums lie in registers.
#pragma unroll
        for (u32 i = 0; i < SHARE; i++) {
            if (lane + 4 * i < of.width) sums[i] += weights[k] * tile[k * SPAN + lane + 4 * i];
        }
    }
}

// The lane's columns of a row to memory, times `scale`.
__device__ inline void store_row(float* to, const float* sums, float scale, Heads of, u32 lane) {
#pragma unroll
    for (u32 i = 0; i < SHARE; i++) {
        if (lane + 4 * i < of.width) to[lane + 4 * i] = sums[i] * scale;
    }
}

// qkv [n, t, 3, h, w] to o [n, t, h, w] and lse [n, h, t].
KERNEL __launch_bounds__(128) attention(const float* qkv, float* o, float* lse, u32 t, u32 heads, u32 width, const float* table,
                                        const u32* index) {
    __shared__ float queries[ROWS * SPAN];
    __shared__ float others[ROWS * SPAN];
    __shared__ float powers[ROWS][ROWS + 1];
    const Heads of = {t, heads, width};
    const Relative relative = {table, index};
    u32 head = blockIdx.y, image = blockIdx.z, first = blockIdx.x * ROWS;
    u32 row = threadIdx.x / 4, lane = threadIdx.x % 4, d = heads * width;
    qkv += (usize)image * t * 3 * d + head * width;
    fill(queries, qkv, 3 * d, first, of);
    float scale = 1.0f / sqrtf((float)width), most = LOWEST, total = 0.0f, sums[SHARE] = {};
    for (u32 tile = 0; tile < t; tile += ROWS) {
        fill(others, qkv + d, 3 * d, tile, of);
        __syncthreads();
        float scores[EIGHT], highest = most;
        for (u32 i = 0; i < EIGHT; i++) {
            u32 key = lane + 4 * i;
            bool there = tile + key < t && first + row < t;
            scores[i] = LOWEST;
            if (there) {
                scores[i] = scale * dot(queries + row * SPAN, others + key * SPAN, width);
                scores[i] += bias_of(relative, of, head, first + row, tile + key);
            }
            highest = fmaxf(highest, scores[i]);
        }
        highest = quad_max(highest);
        float before = highest == LOWEST ? 0.0f : expf(most - highest), part = 0.0f;
        for (u32 i = 0; i < EIGHT; i++) {
            float power = scores[i] == LOWEST ? 0.0f : expf(scores[i] - highest);
            powers[row][lane + 4 * i] = power;
            part += power;
        }
        total = total * before + quad_sum(part);
        most = highest;
        for (u32 i = 0; i < SHARE; i++) sums[i] *= before;
        __syncthreads();
        fill(others, qkv + 2 * d, 3 * d, tile, of);
        __syncthreads();
        add_rows(sums, powers[row], others, of, lane);
        __syncthreads();
    }
    if (first + row >= t) return;
    o += ((usize)image * t + first + row) * d + head * width;
    store_row(o, sums, 1.0f / total, of, lane);
    if (lane == 0) lse[((usize)image * heads + head) * t + first + row] = most + logf(total);
}

// delta [n, h, t] = Σ d_o o, what the backward pass of softmax subtracts; a warp a row and head.
KERNEL attention_delta(const float* o, const float* d_o, float* delta, u32 rows, u32 t, u32 heads, u32 width) {
    u32 at = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (at >= rows * heads) return;
    u32 row = at / heads, head = at % heads;
    usize place = ((usize)row * heads + head) * width;
    float sum = 0.0f;
    for (u32 i = threadIdx.x % WARP; i < width; i += WARP) sum += o[place + i] * d_o[place + i];
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) delta[((usize)(row / t) * heads + head) * t + row % t] = sum;
}

// What both halves of the backward pass ask of a query and a key: its probability.
__device__ inline float probability(const float* query, const float* key, Heads of, float bias, float lse) {
    return expf(dot(query, key, of.width) / sqrtf((float)of.width) + bias - lse);
}

// d_q: a block has 32 queries, keys and values pass by.
KERNEL __launch_bounds__(128) attention_backward_queries(const float* qkv, const float* d_o, const float* lse, const float* delta,
                                                         float* d_qkv, u32 t, u32 heads, u32 width, const float* table,
                                                         const u32* index) {
    __shared__ float queries[ROWS * SPAN];
    __shared__ float slopes[ROWS * SPAN];
    __shared__ float others[ROWS * SPAN];
    __shared__ float weights[ROWS][ROWS + 1];
    const Heads of = {t, heads, width};
    const Relative relative = {table, index};
    u32 head = blockIdx.y, image = blockIdx.z, first = blockIdx.x * ROWS;
    u32 row = threadIdx.x / 4, lane = threadIdx.x % 4, d = heads * width;
    usize statistics = ((usize)image * heads + head) * t + first + row;
    qkv += (usize)image * t * 3 * d + head * width;
    d_o += (usize)image * t * d + head * width;
    fill(queries, qkv, 3 * d, first, of);
    fill(slopes, d_o, d, first, of);
    float scale = 1.0f / sqrtf((float)width), sums[SHARE] = {};
    for (u32 tile = 0; tile < t; tile += ROWS) {
        fill(others, qkv + d, 3 * d, tile, of);
        __syncthreads();
        float p[EIGHT] = {};
        for (u32 i = 0; i < EIGHT; i++) {
            u32 key = lane + 4 * i;
            if (tile + key >= t || first + row >= t) continue;
            float bias = bias_of(relative, of, head, first + row, tile + key);
            p[i] = probability(queries + row * SPAN, others + key * SPAN, of, bias, lse[statistics]);
        }
        __syncthreads();
        fill(others, qkv + 2 * d, 3 * d, tile, of);
        __syncthreads();
        for (u32 i = 0; i < EIGHT; i++) {
            u32 key = lane + 4 * i;
            float d_p = p[i] == 0.0f ? 0.0f : dot(slopes + row * SPAN, others + key * SPAN, width) - delta[statistics];
            weights[row][key] = scale * p[i] * d_p;
        }
        __syncthreads();
        fill(others, qkv + d, 3 * d, tile, of);
        __syncthreads();
        add_rows(sums, weights[row], others, of, lane);
        __syncthreads();
    }
    if (first + row >= t) return;
    d_qkv += ((usize)image * t + first + row) * 3 * d + head * width;
    store_row(d_qkv, sums, 1.0f, of, lane);
}

// d_k and d_v: a block has 32 keys and their values, queries and the gradients of their results pass by.
KERNEL __launch_bounds__(128) attention_backward_keys(const float* qkv, const float* d_o, const float* lse, const float* delta,
                                                      float* d_qkv, u32 t, u32 heads, u32 width, const float* table, const u32* index) {
    __shared__ float keys[ROWS * SPAN];
    __shared__ float values[ROWS * SPAN];
    __shared__ float others[ROWS * SPAN];
    __shared__ float weights[ROWS][ROWS + 1];
    const Heads of = {t, heads, width};
    const Relative relative = {table, index};
    u32 head = blockIdx.y, image = blockIdx.z, first = blockIdx.x * ROWS;
    u32 row = threadIdx.x / 4, lane = threadIdx.x % 4, d = heads * width;
    usize statistics = ((usize)image * heads + head) * t;
    qkv += (usize)image * t * 3 * d + head * width;
    d_o += (usize)image * t * d + head * width;
    fill(keys, qkv + d, 3 * d, first, of);
    fill(values, qkv + 2 * d, 3 * d, first, of);
    float scale = 1.0f / sqrtf((float)width), d_k[SHARE] = {}, d_v[SHARE] = {};
    for (u32 tile = 0; tile < t; tile += ROWS) {
        fill(others, qkv, 3 * d, tile, of);
        __syncthreads();
        float p[EIGHT] = {};
        for (u32 i = 0; i < EIGHT; i++) {
            u32 query = lane + 4 * i;
            if (tile + query < t && first + row < t) {
                float bias = bias_of(relative, of, head, tile + query, first + row);
                p[i] = probability(others + query * SPAN, keys + row * SPAN, of, bias, lse[statistics + tile + query]);
            }
            weights[row][query] = p[i];
        }
        __syncthreads();
        fill(others, d_o, d, tile, of);
        __syncthreads();
        add_rows(d_v, weights[row], others, of, lane);
        for (u32 i = 0; i < EIGHT; i++) {
            u32 query = lane + 4 * i;
            if (p[i] == 0.0f) continue;
            p[i] *= scale * (dot(others + query * SPAN, values + row * SPAN, width) - delta[statistics + tile + query]);
        }
        __syncthreads();
        for (u32 i = 0; i < EIGHT; i++) weights[row][lane + 4 * i] = p[i];
        fill(others, qkv, 3 * d, tile, of);
        __syncthreads();
        add_rows(d_k, weights[row], others, of, lane);
        __syncthreads();
    }
    if (first + row >= t) return;
    d_qkv += ((usize)image * t + first + row) * 3 * d + head * width;
    store_row(d_qkv + d, d_k, 1.0f, of, lane);
    store_row(d_qkv + 2 * d, d_v, 1.0f, of, lane);
}

// One step of a relevance map, of one image: read [t] to out [t] += Σ over queries of read · Ā, Ā [t, t] the mean over heads of the
// probabilities, or with d_o of these times their slopes, positive parts only; out is share · that + rest · read. A block a key.
KERNEL attention_relevance(const float* qkv, const float* d_o, const float* lse, const float* read, float* out, u32 t, u32 heads,
                           u32 width, const float* table, const u32* index, float share, float rest) {
    __shared__ float parts[4];
    const Heads of = {t, heads, width};
    const Relative relative = {table, index};
    u32 key = blockIdx.x, d = heads * width;
    float sum = 0.0f;
    for (u32 at = threadIdx.x; at < t * heads; at += blockDim.x) {
        u32 query = at / heads, head = at % heads;
        const float* q = qkv + (usize)query * 3 * d + head * width;
        const float* k = qkv + (usize)key * 3 * d + d + head * width;
        float p = probability(q, k, of, bias_of(relative, of, head, query, key), lse[(usize)head * t + query]);
        if (d_o) p = fmaxf(0.0f, p * dot(d_o + (usize)query * d + head * width, k + d, width));
        sum += read[query] * p;
    }
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    out[key] = share * (parts[0] + parts[1] + parts[2] + parts[3]) / heads + rest * read[key];
}
