// What the products with INT8 weights share: how the weights lie, one step of the tensor cores, the epilogue.
//
// Weights lie in strips of 16 rows, a strip in chunks of 64 k, a chunk as two steps of m16n8k32, a step as each lane's 16 bytes. Integer sums
// have no order, so the tensor cores may count k as it suits: of a chunk, lane t of four takes the columns 16 t to 16 t + 15 of both operands,
// eight of them in each step. So a lane's tokens are 16 bytes in a row, as its weights are.
#pragma once
#include "float_rules.cuh"

constexpr int STRIP_ROWS = 16;
constexpr int CHUNK_K = 64;
constexpr int STEP_BYTES = 512;
constexpr int CHUNK_BYTES = STRIP_ROWS * CHUNK_K;

// Mirrors `W8Args` of the host, by value.
struct W8Args {
    const u8 *w;           // [strips][chunks] of CHUNK_BYTES
    const signed char *a;  // [m, lda], zeros behind k
    const float *ta;       // [m]
    const float *s1;       // [n]
    const float *bias;     // [n] or null
    float *d;              // [m, n]
    int m, n, lda, chunks;
};

// 16 rows by 8 tokens by 32 k. A lane's sums are of rows lane / 4 and 8 more, tokens lane % 4 * 2 and the next one.
__device__ __forceinline__ void multiply_16x8(int (&sum)[4], uint4 w, u32 low, u32 high) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w), "r"(low), "r"(high));
}

// d = (acc * ta) * s1 + bias, each step rounded. No bias is -0.0, which leaves every value as it is.
__device__ __forceinline__ float scaled(int acc, float ta, float s1, float bias) {
    return __fadd_rn(__fmul_rn(__fmul_rn(__int2float_rn(acc), ta), s1), bias);
}

__device__ __forceinline__ float bias_of(const W8Args &args, int row) {
    return args.bias ? args.bias[row] : -0.0f;
}
