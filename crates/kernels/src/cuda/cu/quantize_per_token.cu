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
extern __shared__ __align__(16) float row[];  // [k rounded up to 4]

__device__ __forceinline__ float float_of(u16 bits) {
#if IN == 2
    return __uint_as_float((u32)bits << 16);
#else
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
#endif
}

struct Quad {
    float v[4];
};

// Four elements from `at`, those past `end` as 0.
__device__ __forceinline__ Quad load_quad(const QuantizeArgs &args, size_t at, int count) {
    Quad quad = {};
#if IN == 0
    const float *from = (const float *)args.x + at;
    if (count >= 4 && (u64)from % 16 == 0) {
        float4 v = *(const float4 *)from;
        return Quad{v.x, v.y, v.z, v.w};
    }
    for (int i = 0; i < 4 && i < count; i++) quad.v[i] = from[i];
#else
    const u16 *from = (const u16 *)args.x + at;
    if (count >= 4 && (u64)from % 8 == 0) {
        uint2 v = *(const uint2 *)from;
        return Quad{float_of((u16)v.x), float_of((u16)(v.x >> 16)), float_of((u16)v.y), float_of((u16)(v.y >> 16))};
    }
    for (int i = 0; i < 4 && i < count; i++) quad.v[i] = float_of(from[i]);
#endif
    return quad;
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
    return __fmul_rn(x, __fdiv_rn(1.0f, __fadd_rn(1.0f, exponential(-x))));
}

// The row as f32 (SwiGLU applied) in shared memory.
__device__ __forceinline__ void load_row(const QuantizeArgs &args) {
    size_t start = (size_t)blockIdx.x * args.ldx;
    for (int i = threadIdx.x * 4; i < args.k; i += THREADS * 4) {
        Quad quad = load_quad(args, start + i, args.k - i);
#if BEFORE == 2
        Quad up = load_quad(args, start + args.k + i, args.k - i);
#pragma unroll
        for (int e = 0; e < 4; e++) quad.v[e] = __fmul_rn(silu(quad.v[e]), up.v[e]);
#endif
        *(float4 *)(row + i) = make_float4(quad.v[0], quad.v[1], quad.v[2], quad.v[3]);
    }
    __syncthreads();
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

__device__ __forceinline__ int code_of(float v, float inv_scale) {
    float rounded = rintf(__fmul_rn(v, inv_scale));
    rounded = rounded < -127.0f ? -127.0f : rounded > 127.0f ? 127.0f : rounded;
    return rounded == rounded ? (int)rounded : 0;
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
    load_row(args);
    float max = 0.0f;
#if BEFORE == 1
    const float inv_rms = inverse_rms(args);
#endif
    for (int i = threadIdx.x; i < args.k; i += THREADS) {
#if BEFORE == 1
        row[i] = __fmul_rn(__fmul_rn(row[i], inv_rms), args.weight[i]);
#endif
        max = fmaxf(max, fabsf(row[i]));
    }
    float ta = args.static_ta > 0.0f ? args.static_ta : __fdiv_rn(row_maximum(max), 127.0f);
    float inv_scale = __fdiv_rn(1.0f, ta);
    // So small a maximum that its inverse is infinite counts as zero (and so does NaN).
    const bool usable = ta > 0.0f && inv_scale <= 3.4028234e38f;
    if (!usable) ta = inv_scale = 0.0f;
    if (threadIdx.x == 0) args.ta[blockIdx.x] = ta;
    __syncthreads();
    int sum = 0;
    for (int i = threadIdx.x * 4; i < args.lda; i += THREADS * 4) {
        u32 codes = 0;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int code = i + e < args.k ? code_of(row[i + e], inv_scale) : 0;
            sum += code;
            codes |= (u32)(code & 0xff) << (8 * e);
        }
        *(u32 *)(args.a + (size_t)blockIdx.x * args.lda + i) = codes;
    }
    write_sum(args, sum);
}
