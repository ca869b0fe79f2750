// Attention pooling (Zhai et al. 2022, arXiv 2106.04560, section 3.2): one query, the same of all images, reads the patch tokens of each. A
// block a head of an image, a warp a patch.
#include "device.cuh"

// query [h, w] and kv [n, p, 2, h, w] to probabilities [n, h, p] and o [n, h, w].
KERNEL __launch_bounds__(128) attention_pool(const float* query, const float* kv, float* probabilities, float* o, u32 p, u32 heads,
                                             u32 width) {
    __shared__ float parts[4];
    u32 head = blockIdx.x, image = blockIdx.y, d = heads * width, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    query += head * width;
    kv += (usize)image * p * 2 * d + head * width;
    probabilities += ((usize)image * heads + head) * p;
    float scale = 1.0f / sqrtf((float)width), most = LOWEST, total = 0.0f;
    for (u32 key = warp; key < p; key += 4) {
        float score = 0.0f;
        for (u32 i = lane; i < width; i += WARP) score += query[i] * kv[(usize)key * 2 * d + i];
        score = scale * warp_sum(score);
        if (lane == 0) probabilities[key] = score;
        most = fmaxf(most, score);
    }
    if (lane == 0) parts[warp] = most;
    __syncthreads();
    most = fmaxf(fmaxf(parts[0], parts[1]), fmaxf(parts[2], parts[3]));
    __syncthreads();
    for (u32 key = threadIdx.x; key < p; key += blockDim.x) {
        float power = expf(probabilities[key] - most);
        probabilities[key] = power;
        total += power;
    }
    total = warp_sum(total);
    if (lane == 0) parts[warp] = total;
    __syncthreads();
    total = parts[0] + parts[1] + parts[2] + parts[3];
    for (u32 key = threadIdx.x; key < p; key += blockDim.x) probabilities[key] /= total;
    __syncthreads();
    o += ((usize)image * heads + head) * width;
    for (u32 i = threadIdx.x; i < width; i += blockDim.x) {
        float sum = 0.0f;
        for (u32 key = 0; key < p; key++) sum += probabilities[key] * kv[(usize)key * 2 * d + d + i];
        o[i] = sum;
    }
}

// The gradient of kv from that of o, for a frozen query.
KERNEL __launch_bounds__(128) attention_pool_backward(const float* query, const float* kv, const float* probabilities, const float* o,
                                                      const float* d_o, float* d_kv, u32 p, u32 heads, u32 width) {
    u32 head = blockIdx.x, image = blockIdx.y, d = heads * width, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    usize place = ((usize)image * heads + head) * width, first = (usize)image * p * 2 * d + head * width;
    query += head * width;
    probabilities += ((usize)image * heads + head) * p;
    float scale = 1.0f / sqrtf((float)width), delta = 0.0f;
    for (u32 i = lane; i < width; i += WARP) delta += d_o[place + i] * o[place + i];
    delta = warp_sum(delta);
    for (u32 key = warp; key < p; key += 4) {
        usize at = first + (usize)key * 2 * d;
        float slope = 0.0f;
        for (u32 i = lane; i < width; i += WARP) slope += d_o[place + i] * kv[at + d + i];
        float probability = probabilities[key], d_score = scale * probability * (warp_sum(slope) - delta);
        for (u32 i = lane; i < width; i += WARP) {
            d_kv[at + i] = d_score * query[i];
            d_kv[at + d + i] = probability * d_o[place + i];
        }
    }
}
