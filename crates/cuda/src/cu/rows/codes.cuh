// What makes INT8 codes of f32 values: the largest magnitude, four codes at a time, sums of codes.
#pragma once
#include "float_rules.cuh"

#ifndef ADDED
#define ADDED 0  // what is added: 0: f32, 2: bf16
#endif
static_assert(ADDED == 0 || ADDED == 2, "f32 or bf16 is added");
#if ADDED == 0
typedef float Added;
#else
typedef u16 Added;
#endif

constexpr u32 ALL_LANES = 0xffffffffu;

// Mirrors `QuantizeArgs` of the host, by value.
struct QuantizeArgs {
    const void *x;        // [m, ldx]
    const float *weight;  // [k], RMSNorm's
    signed char *a;       // [m, lda], lda >= k; codes past k are set to 0
    float *ta;            // [m]
    int *a_sum;           // [m]
    float eps, static_ta;  // static_ta > 0: one scale for all tokens
    int m, k, ldx, lda;
    const void *y;  // [m, k], what is added to x
};

// The larger magnitude; NaN counts for nothing.
template <int COUNT>
__device__ __forceinline__ float largest_of(float max, const float (&v)[COUNT]) {
#pragma unroll
    for (int e = 0; e < COUNT; e++) max = fmaxf(max, fabsf(v[e]));
    return max;
}

// Floats that are not negative are in the order of their bits.
__device__ __forceinline__ float largest_of_warp(float max) {
    return __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(max)));
}

// Rounds half to even; NaN gives 0. A scale that is the row's own maximum over 127 keeps codes inside by itself.
template <bool CLAMP>
__device__ __forceinline__ int rounded_code(float v, float inverse) {
    const int code = __float2int_rn(__fmul_rn(v, inverse));
    return CLAMP ? max(-127, min(127, code)) : code;
}

// Four codes as bytes, the first lowest.
template <bool CLAMP>
__device__ __forceinline__ u32 codes_of(const float *v, float inverse) {
    u32 codes = 0;
#pragma unroll
    for (int pair = 2; pair >= 0; pair -= 2) {
        const int low = rounded_code<CLAMP>(v[pair], inverse), high = rounded_code<CLAMP>(v[pair + 1], inverse);
        asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;" : "=r"(codes) : "r"(high), "r"(low), "r"(codes));
    }
    return codes;
}

// The same where only the card knows whether the scale is given.
__device__ __forceinline__ u32 codes_of(const float *v, float inverse, bool clamp) {
    return clamp ? codes_of<true>(v, inverse) : codes_of<false>(v, inverse);
}

__device__ __forceinline__ int sum_of_codes(u32 codes, int sum) {
    return __dp4a((int)codes, 0x01010101, sum);
}

// 16 bytes of what launches before this one have written, and nobody reads again.
__device__ __forceinline__ float4 load_fresh(const float *from) {
    float4 v;
    asm volatile("ld.global.L1::no_allocate.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from));
    return v;
}

// Four bfloat16 of the same kind.
__device__ __forceinline__ float4 load_fresh(const u16 *from) {
    u32 low, high;
    asm volatile("ld.global.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(low), "=r"(high) : "l"(from));
    return make_float4(float_of_bf16((u16)low), __uint_as_float(low & 0xffff0000u), float_of_bf16((u16)high), __uint_as_float(high & 0xffff0000u));
}

// 16 bytes that no launch writes, which may be loaded before those that come first are done. (As constants compilers would move them
// behind the wait.)
__device__ __forceinline__ float4 load_constant(const float *from) {
    float4 v;
    asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(from));
    return v;
}

// Waits for what comes first with the address of what it writes at hand: compilers compute it behind an ordinary wait.
__device__ __forceinline__ void wait_for_producers_of(const void *x) {
#if __CUDA_ARCH__ >= 900
    asm volatile("{\n.reg .pred known;\nsetp.ne.u64 known, %0, 0;\n@known griddepcontrol.wait;\n}" ::"l"(x) : "memory");
#endif
}
