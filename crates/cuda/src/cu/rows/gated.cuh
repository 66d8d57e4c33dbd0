// What gates: f(gate) * up, several elements at a time.
#pragma once
#include "float_rules.cuh"

// Divides exactly: one Newton step rounds correctly where neither x nor 1 / x is near the ends of the range (what __frcp_rn does
// behind a branch an element).
__device__ __forceinline__ float reciprocal_inside(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return __fmaf_rn(r, -__fmaf_rn(x, r, -1.0f), r);
}

// SiLU for |x| <= 80.
__device__ __forceinline__ float silu_inside(float x) {
    return __fmul_rn(x, reciprocal_inside(__fadd_rn(1.0f, exponential_inside(-x))));
}

// gate = f(gate) * up. SiLU has one branch for all elements instead of four for each.
template <int F, int COUNT>
__device__ __forceinline__ void gated(float (&gate)[COUNT], const float (&up)[COUNT]) {
    bool inside = F == SILU;
#pragma unroll
    for (int i = 0; i < COUNT; i++) inside = inside && fabsf(gate[i]) <= 80.0f;
    if (inside) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) gate[i] = __fmul_rn(silu_inside(gate[i]), up[i]);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++) gate[i] = __fmul_rn(activated<F>(gate[i]), up[i]);
    }
}
