// What the MLP does between its layers, what joins branches, and how both go back.
#include "device.cuh"

enum Activation { ERF, TANH, QUICK, SWIGLU };

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

__device__ inline float gelu(u32 kind, float x) {
    const float root = 0.7978845608028654f;  // √(2 / π)
    if (kind == ERF) return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    if (kind == TANH) return 0.5f * x * (1.0f + tanhf(root * (x + 0.044715f * x * x * x)));
    return x * sigmoid(1.702f * x);
}

__device__ inline float gelu_slope(u32 kind, float x) {
    const float root = 0.7978845608028654f;
    if (kind == ERF) {
        return 0.5f * (1.0f + erff(x * 0.7071067811865476f)) + x * 0.3989422804014327f * expf(-0.5f * x * x);
    }
    if (kind == TANH) {
        float y = tanhf(root * (x + 0.044715f * x * x * x));
        return 0.5f * (1.0f + y) + 0.5f * x * (1.0f - y * y) * root * (1.0f + 3.0f * 0.044715f * x * x);
    }
    float s = sigmoid(1.702f * x);
    return s + 1.702f * x * s * (1.0f - s);
}

// h [rows, width] to g [rows, width]; of a SwiGLU h is [rows, 2 · width], gate and up, and g = silu(gate) · up.
KERNEL activate(const float* h, float* g, u32 rows, u32 width, u32 kind) {
    usize at = element();
    if (at >= (usize)rows * width) return;
    if (kind != SWIGLU) {
        g[at] = gelu(kind, h[at]);
        return;
    }
    const float* gate = h + at / width * 2 * width + at % width;
    g[at] = gate[0] * sigmoid(gate[0]) * gate[width];
}

// d_h may be d_g, but not of a SwiGLU.
KERNEL activate_backward(const float* h, const float* d_g, float* d_h, u32 rows, u32 width, u32 kind) {
    usize at = element();
    if (at >= (usize)rows * width) return;
    if (kind != SWIGLU) {
        d_h[at] = d_g[at] * gelu_slope(kind, h[at]);
        return;
    }
    usize place = at / width * 2 * width + at % width;
    float gate = h[place], up = h[place + width], s = sigmoid(gate);
    d_h[place] = d_g[at] * up * (s + gate * s * (1.0f - s));
    d_h[place + width] = d_g[at] * gate * s;
}

// y (+)= gamma · x, row by row, without gamma of ones: layer scale, forward (added) and backward (set); [rows, width].
KERNEL scaled(const float* x, const float* gamma, float* y, u32 rows, u32 width, u32 accumulate) {
    usize at = element();
    if (at >= (usize)rows * width) return;
    float value = (gamma ? gamma[at % width] : 1.0f) * x[at];
    y[at] = accumulate ? y[at] + value : value;
}
