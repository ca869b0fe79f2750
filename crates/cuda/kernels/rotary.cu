// Rotary positions: pairs of values of queries and keys of patches, as complex numbers, times e^(i · angle); backward, times e^(-i · angle).
#include "device.cuh"

// qkv [n, t, 3, h, w] in place; turns [patches, w / 2, 2], cosine and sine, again for each layer of patches. A thread a pair.
KERNEL rotate(float* qkv, const float* turns, u32 count, u32 t, u32 prefix, u32 patches, u32 heads, u32 width, u32 neighbours,
              u32 backward) {
    usize at = element();
    u32 half = width / 2, moving = t - prefix;
    if (at >= (usize)count * moving * 2 * heads * half) return;
    u32 i = at % half, head = at / half % heads, part = at / half / heads % 2;
    usize token = at / half / heads / 2;
    usize image = token / moving;
    u32 place = token % moving;
    float* values = qkv + (((image * t + prefix + place) * 3 + part) * heads + head) * width;
    const float* turn = turns + ((usize)(place % patches) * half + i) * 2;
    float cosine = turn[0], sine = backward ? -turn[1] : turn[1];
    u32 first = neighbours ? 2 * i : i, second = neighbours ? 2 * i + 1 : i + half;
    float a = values[first], b = values[second];
    values[first] = a * cosine - b * sine;
    values[second] = b * cosine + a * sine;
}
