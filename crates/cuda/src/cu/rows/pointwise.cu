// Functions of single elements: an activation, an activation that gates, a sum, the nearest bfloat16.
#include "input_type.cuh"

#define ACTIVATE 0  // x = f(x)
#define GATE 1      // out = f(x[0..c]) * x[c..2c]
#define ADD 2       // x += y
#define SOFT_CAP 3  // x = tanh(x / cap) * cap
#define ROUND 4     // x = bf16(x)

#ifndef MODE
#define MODE ADD
#endif
#ifndef FUNCTION
#define FUNCTION SILU
#endif
#define CLAMPED 4  // among the functions: with a limit

__device__ __forceinline__ float float_of(float v) {
    return v;
}

__device__ __forceinline__ float float_of(u16 bits) {
    return float_of_bf16(bits);
}

// Mirrors `PointwiseArgs` of the host, by value.
struct PointwiseArgs {
    float *out;   // [m, columns]; x where it is changed in place
    const In *x;  // [m, columns], [m, 2 columns] where it gates, y where it is added
    int columns;
    float cap;  // or the limit of a function
};

#if FUNCTION == CLAMPED
__device__ __forceinline__ float function(float x, float limit) {
    x = x > limit ? limit : x;
    return __fmul_rn(x, sigmoid(__fmul_rn(1.702f, x)));
}

// What meets a gate.
__device__ __forceinline__ float gated_by(float up, float limit) {
    up = up > limit ? limit : up;
    return __fadd_rn(up < -limit ? -limit : up, 1.0f);
}
#else
__device__ __forceinline__ float function(float x, float) {
    return activated<FUNCTION>(x);
}

__device__ __forceinline__ float gated_by(float up, float) {
    return up;
}
#endif

extern "C" __global__ void __launch_bounds__(256) pointwise(const PointwiseArgs args) {
    let_dependents_start();
    wait_for_producers();
    const int c = blockIdx.y * blockDim.x + threadIdx.x;
    if (c >= args.columns) return;
    float *out = args.out + (size_t)blockIdx.x * args.columns + c;
#if MODE == ACTIVATE
    *out = function(*out, args.cap);
#elif MODE == GATE
    const In *x = args.x + (size_t)blockIdx.x * 2 * args.columns + c;
    *out = __fmul_rn(function(float_of(x[0]), args.cap), gated_by(float_of(x[args.columns]), args.cap));
#elif MODE == SOFT_CAP
    *out = __fmul_rn(hyperbolic_tangent(__fmul_rn(*out, __fdiv_rn(1.0f, args.cap))), args.cap);
#elif MODE == ROUND
    *out = float_of_bf16(nearest_bf16(*out));
#else
    *out = __fadd_rn(*out, float_of(args.x[(size_t)blockIdx.x * args.columns + c]));
#endif
}
