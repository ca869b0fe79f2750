// Dropout on the input of low-rank updates, the masks of `vit/src/dropout.rs`: the words of ChaCha8 (RFC 8439 with eight rounds and a
// counter of 64 bits) under a key of seed, step, image and place. Drawn again on the way back, not kept.
#include "device.cuh"

__device__ inline u32 rotated(u32 x, u32 by) { return x << by | x >> (32 - by); }

__device__ inline void quarter_round(u32& a, u32& b, u32& c, u32& d) {
    a += b, d = rotated(d ^ a, 16);
    c += d, b = rotated(b ^ c, 12);
    a += b, d = rotated(d ^ a, 8);
    c += d, b = rotated(b ^ c, 7);
}

// y (+)= m ∘ x of images from `first_image` on, of `length` numbers each, rows of `width` at strides; a thread draws 16 numbers.
KERNEL dropout(const float* x, u32 stride_x, float* y, u32 stride_y, u32 length, u32 width, u32 first_image, u32 seed_low, u32 seed_high,
               u32 step_low, u32 step_high, u32 place, u32 dropped, float kept, u32 accumulate) {
    u32 counter = blockIdx.x * blockDim.x + threadIdx.x, image = blockIdx.y, rows = length / width;
    if (counter >= (length + 15) / 16) return;
    const u32 start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, seed_low, seed_high, step_low, step_high,
                           first_image + image, 0, place, 0, counter, 0, 0, 0};
    u32 s[16];
    for (u32 i = 0; i < 16; i++) s[i] = start[i];
#pragma unroll 1
    for (u32 round = 0; round < 4; round++) {
        quarter_round(s[0], s[4], s[8], s[12]);
        quarter_round(s[1], s[5], s[9], s[13]);
        quarter_round(s[2], s[6], s[10], s[14]);
        quarter_round(s[3], s[7], s[11], s[15]);
        quarter_round(s[0], s[5], s[10], s[15]);
        quarter_round(s[1], s[6], s[11], s[12]);
        quarter_round(s[2], s[7], s[8], s[13]);
        quarter_round(s[3], s[4], s[9], s[14]);
    }
    for (u32 i = 0; i < 16 && 16 * counter + i < length; i++) {
        u32 at = 16 * counter + i;
        usize row = (usize)image * rows + at / width;
        float m = s[i] + start[i] < dropped ? 0.0f : kept;
        float value = m * x[row * stride_x + at % width];
        float* to = y + row * stride_y + at % width;
        *to = accumulate ? *to + value : value;
    }
}
