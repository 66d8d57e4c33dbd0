// What the products with INT8 weights by mma share: one step of the tensor cores, the epilogue.
#pragma once
#include "float_rules.cuh"
#include "w8_image.cuh"

// 16 rows by 8 tokens by 32 k. A lane's sums are of rows lane / 4 and 8 more, tokens lane % 4 * 2 and the next one.
__device__ __forceinline__ void multiply_16x8(int (&sum)[4], uint4 w, u32 low, u32 high) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w), "r"(low), "r"(high));
}

// d = (acc * ta) * s1 + bias, each step rounded.
__device__ __forceinline__ float scaled(int acc, float ta, float s1, float bias) {
    return __fadd_rn(__fmul_rn(__fmul_rn(__int2float_rn(acc), ta), s1), bias);
}
