// The float rules of the specification on a card: the same operations in the same order, so the same bits as `naive`.
//
// Everything is compiled with --fmad=false: a multiplication and an addition are fused where `__fmaf_rn` says so and nowhere else.
// Division, reciprocal and square root are the correctly rounded ones; nothing is flushed to zero.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int LANES = 16;  // of a sum over a row
constexpr float LARGEST = 3.4028234e38f;
constexpr float LOG2_E = 1.44269504f;

// Programmatic launch: the next kernel of the stream may begin...
__device__ __forceinline__ void let_dependents_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ...and waits here until everything before it is done. Nothing to wait for in a plain launch.
__device__ __forceinline__ void wait_for_producers() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// e^x for |x| <= 80, where neither end of the range shows.
__device__ __forceinline__ float exponential_inside(float x) {
    const float magic = 12582912.0f;
    float rounded = __fmaf_rn(x, LOG2_E, magic);
    float power = rounded - magic;
    float r = __fmaf_rn(power, -0.6933594f, x);
    r = __fmaf_rn(power, 2.1219444e-4f, r);
    float p = __fmaf_rn(0.0013814613f, r, 0.00836871f);
    p = __fmaf_rn(p, r, 0.04166839f);
    p = __fmaf_rn(p, r, 0.16666521f);
    p = __fmaf_rn(p, r, 0.49999994f);
    float mantissa = __fmaf_rn(p, __fmul_rn(r, r), r) + 1.0f;
    return __uint_as_float(__float_as_uint(mantissa) + (__float_as_uint(rounded) << 23));
}

// e^x: 0 below -87.3, infinity above the largest float, NaN for NaN.
__device__ __forceinline__ float exponential(float x) {
    const float scaled = exponential_inside(x);
    if (x > 88.72283f) return __uint_as_float(0x7f800000);
    if (x < -87.3f) return 0.0f;
    return x != x ? x : scaled;
}

// 2^t for t up to 127: exact for whole numbers, 0 below -64, NaN for NaN.
__device__ __forceinline__ float power_of_two(float t) {
    const float magic = 12582912.0f + 127.0f;
    float rounded = __fadd_rn(t, magic);
    float r = __fadd_rn(t, -__fadd_rn(rounded, -magic));
    float p = __fmaf_rn(0.0013255947f, r, 0.009671229f);
    p = __fmaf_rn(p, r, 0.055507686f);
    p = __fmaf_rn(p, r, 0.24022248f);
    p = __fmaf_rn(p, r, 0.69314694f);
    float mantissa = __fmaf_rn(p, r, 1.0f);
    float scaled = __fmul_rn(mantissa, __uint_as_float(__float_as_uint(rounded) << 23));
    return t < -64.0f ? 0.0f : scaled;
}

__device__ __forceinline__ float sigmoid(float x) {
    return __frcp_rn(__fadd_rn(1.0f, exponential(-x)));
}

__device__ __forceinline__ float hyperbolic_tangent(float x) {
    float a = fabsf(x), z = __fmul_rn(x, x);
    float p = __fmaf_rn(-0.005704984f, z, 0.020639084f);
    p = __fmaf_rn(p, z, -0.053739715f);
    p = __fmaf_rn(p, z, 0.13331442f);
    p = __fmaf_rn(p, z, -0.3333328f);
    float small = __fmaf_rn(__fmul_rn(x, z), p, x);
    float large = __fadd_rn(1.0f, -__fdiv_rn(2.0f, __fadd_rn(exponential(__fadd_rn(a, a)), 1.0f)));
    return a < 0.625f ? small : copysignf(large, x);
}

__device__ __forceinline__ float error_function(float x) {
    float a = fabsf(x), z = __fmul_rn(x, x);
    float p = __fmaf_rn(7.85386e-5f, z, -0.0008010193f);
    p = __fmaf_rn(p, z, 0.0051883277f);
    p = __fmaf_rn(p, z, -0.026853813f);
    p = __fmaf_rn(p, z, 0.112835854f);
    p = __fmaf_rn(p, z, -0.37612626f);
    float small = __fmaf_rn(x, __fmaf_rn(p, z, 0.12837917f), x);
    float b = a > 3.95f ? 3.95f : a;
    float l = __fmaf_rn(1.863794e-4f, b, -0.0029476604f);
    l = __fmaf_rn(l, b, 0.021838073f);
    l = __fmaf_rn(l, b, -0.103106774f);
    l = __fmaf_rn(l, b, -0.6381448f);
    l = __fmaf_rn(l, b, -1.1270893f);
    l = __fmaf_rn(l, b, -0.00034151977f);
    float large = __fadd_rn(1.0f, -exponential(l));
    return a < 1.0f ? small : copysignf(large, x);
}

#define RELU 0
#define SILU 1
#define GELU 2
#define GELU_TANH 3

template <int F>
__device__ __forceinline__ float activated(float x) {
    if (F == RELU) return x < 0.0f ? 0.0f : x;
    if (F == SILU) return __fmul_rn(x, sigmoid(x));
    if (F == GELU) return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, error_function(__fmul_rn(x, 0.70710677f))));
    float inner = __fmul_rn(0.7978846f, __fmaf_rn(__fmul_rn(__fmul_rn(x, x), x), 0.044715f, x));
    return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, hyperbolic_tangent(inner)));
}

// A scale and its inverse; both 0 unless the inverse is finite.
struct Scale {
    float scale, inverse;
};

__device__ __forceinline__ Scale usable_scale(float scale) {
    float inverse = __fdiv_rn(1.0f, scale);
    return scale > 0.0f && inverse <= LARGEST ? Scale{scale, inverse} : Scale{0.0f, 0.0f};
}

// A maximum from 1e-30 to 1e30 to the scale of 127 codes: quotient and inverse come from one step of Newton's, which rounds correctly there.
__device__ __forceinline__ Scale scale_in_range(float max) {
    const float inverse_127 = 0.007874016f;
    float scale = max * inverse_127;
    scale = __fmaf_rn(__fmaf_rn(-127.0f, scale, max), inverse_127, scale);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(scale));
    inverse = __fmaf_rn(inverse, -__fmaf_rn(scale, inverse, -1.0f), inverse);
    return Scale{scale, inverse};
}

// The same of any maximum.
__device__ __forceinline__ Scale scale_of(float max) {
    if (!(max > 1e-30f && max < 1e30f)) return usable_scale(__fdiv_rn(max, 127.0f));
    return scale_in_range(max);
}

// Rounds half to even; NaN gives 0.
__device__ __forceinline__ int code_of(float v, float inverse) {
    return max(-127, min(127, __float2int_rn(__fmul_rn(v, inverse))));
}

// The larger one; NaN counts for nothing.
__device__ __forceinline__ float larger(float max, float v) {
    return v > max ? v : max;
}

// Sixteen chains of a warp's first lanes, added pairwise: (0+8, 1+9, ...), (0+4, ...), (0+2, ...), (0+1); lane 0 has the sum.
__device__ __forceinline__ float sum_of_lanes(float chain) {
#pragma unroll
    for (int half = LANES / 2; half > 0; half /= 2) chain = __fadd_rn(chain, __shfl_down_sync(0xffffffffu, chain, half));
    return chain;
}

// f16 and bf16 bits to floats, exactly.
__device__ __forceinline__ float float_of_f16(u16 bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

__device__ __forceinline__ float float_of_bf16(u16 bits) {
    return __uint_as_float((u32)bits << 16);
}

// The nearest bfloat16, ties to even.
__device__ __forceinline__ u16 nearest_bf16(float v) {
    u16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
