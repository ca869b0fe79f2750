// Images to tokens, and tokens to what heads read.
#include "device.cuh"

// Patches side by side: images [n, 3, s, s] to [n · (s/p)², 3 · p · p].
KERNEL unfold(const float* images, float* patches, u32 count, u32 size, u32 patch) {
    usize at = element();
    u32 grid = size / patch, columns = 3 * patch * patch;
    if (at >= (usize)count * grid * grid * columns) return;
    usize row = at / columns, image = row / (grid * grid);
    u32 column = at % columns, place = row % (grid * grid);
    u32 channel = column / (patch * patch), y = column / patch % patch, x = column % patch;
    u32 from_y = place / grid * patch + y, from_x = place % grid * patch + x;
    patches[at] = images[((image * 3 + channel) * size + from_y) * size + from_x];
}

// Tokens in front of the patches, patches behind, with their positions: x [n, t, d] from prefix [f, d] and patches [n, t - f, d].
KERNEL assemble(const float* prefix, const float* patches, const float* positions, float* x, u32 count, u32 t, u32 f, u32 d) {
    usize at = element();
    if (at >= (usize)count * t * d) return;
    usize image = at / ((usize)t * d);
    u32 token = at / d % t, i = at % d;
    if (token < f) {
        x[at] = prefix[token * d + i];
        return;
    }
    float position = positions ? positions[(usize)(token - f) * d + i] : 0.0f;
    x[at] = patches[(image * (t - f) + token - f) * d + i] + position;
}

// Rows of `from` in another order, some of them several times: to[i] = from[order[i]], [rows, width].
KERNEL gather(const float* from, const u32* order, float* to, u32 rows, u32 width) {
    usize at = element();
    if (at < (usize)rows * width) to[at] = from[(usize)order[at / width] * width + at % width];
}

// The mean of `many` tokens from `first` on: x [n, t, d] to columns of out [n, stride].
KERNEL mean_tokens(const float* x, float* out, u32 count, u32 t, u32 d, u32 first, u32 many, u32 stride) {
    usize at = element();
    if (at >= (usize)count * d) return;
    usize image = at / d, i = at % d;
    float sum = 0.0f;
    for (u32 token = first; token < first + many; token++) sum += x[(image * t + token) * d + i];
    out[image * stride + i] = sum / many;
}

// Adds to d_x the gradient of `mean_tokens`.
KERNEL mean_tokens_backward(const float* d_out, float* d_x, u32 count, u32 t, u32 d, u32 first, u32 many, u32 stride) {
    usize at = element();
    if (at >= (usize)count * many * d) return;
    usize image = at / ((usize)many * d);
    u32 token = first + at / d % many, i = at % d;
    d_x[(image * t + token) * d + i] += d_out[image * stride + i] / many;
}
