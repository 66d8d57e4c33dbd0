// What the float products share: how the weights lie and what they are worth.
//
// Weights lie in strips of 32 rows, a strip in units of 16 bytes along k, and of each unit all 32 rows behind one another. Behind the last column
// they are -0.0 up to a multiple of 32 and the activations are taken as 0: a product of -0.0 leaves every sum as it is, zeros with their signs.
#pragma once
#include "float_rules.cuh"

#ifndef BF16
#define BF16 0
#endif

constexpr int STRIP_ROWS = 32;
constexpr int UNIT_K = BF16 ? 8 : 4;
constexpr int UNIT_BYTES = 16;
constexpr int PADDED_K = 32;

// Mirrors `FloatArgs` of the host, by value.
struct FloatArgs {
    const u8 *w;        // [strips][units][32] of UNIT_BYTES
    const float *x;     // [m, k]
    const float *bias;  // [n] or null
    float *d;           // [m, n]
    int m, n, k, units;
};

// Value `i` of a unit's UNIT_K.
__device__ __forceinline__ float value_of(uint4 unit, int i) {
    const int word = BF16 ? i / 2 : i;
    const u32 bits = word == 0 ? unit.x : word == 1 ? unit.y : word == 2 ? unit.z : unit.w;
    if (!BF16) return __uint_as_float(bits);
    return __uint_as_float(i % 2 ? bits & 0xffff0000u : bits << 16);
}

// No bias is -0.0, which leaves every value as it is.
__device__ __forceinline__ float bias_of(const FloatArgs &args, int row) {
    return args.bias ? args.bias[row] : -0.0f;
}

// Whether rows of activations can be read by 16 bytes.
__device__ __forceinline__ bool wide_rows(const FloatArgs &args) {
    return args.k % 4 == 0 && (u64)args.x % 16 == 0;
}
