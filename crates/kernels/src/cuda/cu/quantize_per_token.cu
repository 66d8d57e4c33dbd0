// Float rows to INT8 codes, their scale and their sum (the products need both), with the operation before it fused in.
//
// One CTA a token: the row is read once, held as f32 in shared memory, reduced, and written as codes. Every value equals the naive
// one bit for bit: divisions and roots are correctly rounded, the exponential is the project's polynomial, and RMSNorm's sum of
// squares runs in the specification's 16 chains (16 lanes of one warp; half a microsecond at k = 4,096).
#include "w4a8.cuh"

#ifndef BEFORE
#define BEFORE 0  // 0: nothing; 1: RMSNorm; 2: SwiGLU, silu(x[c]) * x[k + c]
#endif
#ifndef IN
#define IN 1  // 0: f32, 1: f16, 2: bf16
#endif
#ifndef THREADS
#define THREADS 256
#endif

// Mirrors `QuantizeArgs` of the host, by value.
struct QuantizeArgs {
    const void *x;        // [m, ldx]
    const float *weight;  // [k], RMSNorm's
    signed char *a;       // [m, lda], lda >= k; codes past k are set to 0
    float *ta;            // [m]
    int *a_sum;           // [m]
    float eps, static_ta;  // static_ta > 0: one scale for all tokens
    int m, k, ldx, lda;
};

constexpr int WARPS = THREADS / 32;
constexpr int LANES = 16;
extern __shared__ __align__(16) float row[];  // [k rounded up to 8]

__device__ __forceinline__ float float_of(u16 bits) {
#if IN == 2
    return __uint_as_float((u32)bits << 16);
#else
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
#endif
}

// Elements a thread takes at a time: 16 bytes of 16-bit floats.
constexpr int EACH = 8;

struct Eight {
    float v[EACH];
};

// Eight elements from `at`, those past the end (`count` left) as 0. Read-only loads: several may be on their way.
__device__ __forceinline__ Eight load_eight(const QuantizeArgs &args, size_t at, int count) {
    Eight eight = {};
#if IN == 0
    const float *from = (const float *)args.x + at;
    if (count >= EACH && (u64)from % 16 == 0) {
        float4 v = __ldg((const float4 *)from), w = __ldg((const float4 *)from + 1);
        return Eight{v.x, v.y, v.z, v.w, w.x, w.y, w.z, w.w};
    }
    for (int i = 0; i < EACH && i < count; i++) eight.v[i] = from[i];
#else
    const u16 *from = (const u16 *)args.x + at;
    if (count >= EACH && (u64)from % 16 == 0) {
        uint4 v = __ldg((const uint4 *)from);
        const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < EACH; i++) eight.v[i] = float_of((u16)(words[i / 2] >> (i % 2 * 16)));
        return eight;
    }
    for (int i = 0; i < EACH && i < count; i++) eight.v[i] = float_of(from[i]);
#endif
    return eight;
}

// e^x of the specification.
__device__ __forceinline__ float exponential(float x) {
    const float magic = 12582912.0f;
    float rounded = __fmaf_rn(x, 1.44269504f, magic);
    float power = rounded - magic;
    float r = __fmaf_rn(power, -0.6933594f, x);
    r = __fmaf_rn(power, 2.1219444e-4f, r);
    float p = __fmaf_rn(0.0013814613f, r, 0.00836871f);
    p = __fmaf_rn(p, r, 0.04166839f);
    p = __fmaf_rn(p, r, 0.16666521f);
    p = __fmaf_rn(p, r, 0.49999994f);
    float mantissa = __fmaf_rn(p, __fmul_rn(r, r), r) + 1.0f;
    float scaled = __uint_as_float(__float_as_uint(mantissa) + (__float_as_uint(rounded) << 23));
    if (x > 88.72283f) return __uint_as_float(0x7f800000);
    if (x < -87.3f) return 0.0f;
    return x != x ? x : scaled;
}

__device__ __forceinline__ float silu(float x) {
    return __fmul_rn(x, __frcp_rn(__fadd_rn(1.0f, exponential(-x))));
}

// The row as f32 (SwiGLU applied) in shared memory; the largest magnitude this thread saw.
__device__ __forceinline__ float load_row(const QuantizeArgs &args) {
    const size_t start = (size_t)blockIdx.x * args.ldx;
    float max = 0.0f;
#pragma unroll 2
    for (int i = threadIdx.x * EACH; i < args.k; i += THREADS * EACH) {
        Eight eight = load_eight(args, start + i, args.k - i);
#if BEFORE == 2
        Eight up = load_eight(args, start + args.k + i, args.k - i);
#pragma unroll
        for (int e = 0; e < EACH; e++) eight.v[e] = __fmul_rn(silu(eight.v[e]), up.v[e]);
#endif
#pragma unroll
        for (int e = 0; e < EACH; e++) max = fmaxf(max, fabsf(eight.v[e]));
        // Lanes of eight take turns with the halves: all banks at once.
        const bool swap = threadIdx.x / 4 % 2;
        float4 low = make_float4(eight.v[0], eight.v[1], eight.v[2], eight.v[3]);
        float4 high = make_float4(eight.v[4], eight.v[5], eight.v[6], eight.v[7]);
        *(float4 *)(row + i + (swap ? 4 : 0)) = swap ? high : low;
        *(float4 *)(row + i + (swap ? 0 : 4)) = swap ? low : high;
    }
    __syncthreads();
    return max;
}

// One chain: count elements, LANES apart. The next ones are on their way while the chain, which cannot be broken, runs.
__device__ __forceinline__ float sum_of_squares(const float *x, int count) {
    constexpr int AHEAD = 16;
    float sum = 0.0f, v[AHEAD];
    int i = 0;
#pragma unroll
    for (int e = 0; e < AHEAD; e++) v[e] = e < count ? x[e * LANES] : 0.0f;
    for (; i + 2 * AHEAD <= count; i += AHEAD) {
        float next[AHEAD];
#pragma unroll
        for (int e = 0; e < AHEAD; e++) next[e] = x[(i + AHEAD + e) * LANES];
#pragma unroll
        for (int e = 0; e < AHEAD; e++) sum = __fmaf_rn(v[e], v[e], sum);
#pragma unroll
        for (int e = 0; e < AHEAD; e++) v[e] = next[e];
    }
    for (; i < count; i++) sum = __fmaf_rn(x[i * LANES], x[i * LANES], sum);
    return sum;
}

// 1 / sqrt(mean(x^2) + eps), known to every thread.
__device__ __forceinline__ float inverse_rms(const QuantizeArgs &args) {
    __shared__ float shared_rms;
    if (threadIdx.x < 32) {
        float sum = 0.0f;
        if (threadIdx.x < LANES) sum = sum_of_squares(row + threadIdx.x, (args.k - (int)threadIdx.x + LANES - 1) / LANES);
#pragma unroll
        for (int half = LANES / 2; half > 0; half /= 2) sum = __fadd_rn(sum, __shfl_down_sync(0xffffffffu, sum, half));
        if (threadIdx.x == 0) shared_rms = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)args.k), args.eps)));
    }
    __syncthreads();
    return shared_rms;
}

// Four weights of RMSNorm from `at`, those past k as 0.
__device__ __forceinline__ float4 load_weights(const QuantizeArgs &args, int at) {
    const float *from = args.weight + at;
    if (at + 4 <= args.k && (u64)from % 16 == 0) return __ldg((const float4 *)from);
    float v[4] = {};
    for (int e = 0; e < 4 && at + e < args.k; e++) v[e] = __ldg(from + e);
    return make_float4(v[0], v[1], v[2], v[3]);
}

// The largest magnitude of the row; NaN counts as nothing.
__device__ __forceinline__ float row_maximum(float max) {
    __shared__ float warps[WARPS];
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, lane));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = max;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) max = fmaxf(max, warps[warp]);
    return max;
}

// Rounds half to even, saturates; NaN gives 0.
__device__ __forceinline__ int code_of(float v, float inv_scale) {
    return max(-127, min(127, __float2int_rn(__fmul_rn(v, inv_scale))));
}

// Four codes as bytes, the first lowest.
__device__ __forceinline__ u32 codes_of(float4 v, float inv_scale) {
    u32 low = __byte_perm(code_of(v.x, inv_scale), code_of(v.y, inv_scale), 0x0040);
    u32 high = __byte_perm(code_of(v.z, inv_scale), code_of(v.w, inv_scale), 0x0040);
    return __byte_perm(low, high, 0x5410);
}

__device__ __forceinline__ void write_sum(const QuantizeArgs &args, int sum) {
    __shared__ int warps[WARPS];
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += warps[warp];
    args.a_sum[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) quantize_per_token(const QuantizeArgs args) {
    let_dependents_start();
    wait_for_producers();
    float max = load_row(args);
#if BEFORE == 1
    const float inv_rms = inverse_rms(args);
    max = 0.0f;
    for (int i = threadIdx.x * 4; i < args.k; i += THREADS * 4) {
        float4 v = *(const float4 *)(row + i), w = load_weights(args, i);
        v.x = __fmul_rn(__fmul_rn(v.x, inv_rms), w.x);
        v.y = __fmul_rn(__fmul_rn(v.y, inv_rms), w.y);
        v.z = __fmul_rn(__fmul_rn(v.z, inv_rms), w.z);
        v.w = __fmul_rn(__fmul_rn(v.w, inv_rms), w.w);
        max = fmaxf(fmaxf(max, fmaxf(fabsf(v.x), fabsf(v.y))), fmaxf(fabsf(v.z), fabsf(v.w)));
        *(float4 *)(row + i) = v;
    }
#endif
    float ta = args.static_ta > 0.0f ? args.static_ta : __fdiv_rn(row_maximum(max), 127.0f);
    float inv_scale = __fdiv_rn(1.0f, ta);
    // So small a maximum that its inverse is infinite counts as zero (and so does NaN).
    const bool usable = ta > 0.0f && inv_scale <= 3.4028234e38f;
    if (!usable) ta = inv_scale = 0.0f;
    if (threadIdx.x == 0) args.ta[blockIdx.x] = ta;
    __syncthreads();
    int sum = 0;
    // (Shared memory holds zeros from k to the next multiple of eight; past that it holds nothing.)
    for (int i = threadIdx.x * 4; i < args.lda; i += THREADS * 4) {
        u32 codes = i < args.k ? codes_of(*(const float4 *)(row + i), inv_scale) : 0;
        sum = __dp4a((int)codes, 0x01010101, sum);
        *(u32 *)(args.a + (size_t)blockIdx.x * args.lda + i) = codes;
    }
    write_sum(args, sum);
}
