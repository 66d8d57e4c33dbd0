// Keys and values of a step into the paged cache: a warp takes the key or the value of a token's head. With ROPE keys are rotated on
// their way, and further warps rotate a query head in place.
#include "attention.cuh"

#ifndef ROPE
#define ROPE 0  // 1: heads are multiples of 64 and rotated whole
#endif

// Mirrors `CacheWriteArgs` of the host, by value.
struct CacheWriteArgs {
    const float *keys_x, *values_x;  // the first columns of keys and values, rows of x_row floats
    u8 *keys, *values;               // of the layer
    float *key_scales, *value_scales;
    const u32 *step;
    float key_scale, value_scale;  // of the layer, with FORMAT 3
    int x_row, kv_heads;
    // With ROPE.
    float *queries_x;     // the first column of queries
    const float *angles;  // [tokens, HEAD_DIM]: cos, then sin
    int heads, padding;
};

constexpr int EACH = (HEAD_DIM + 31) / 32;  // elements of a lane

#if FORMAT >= 2
__device__ __forceinline__ float largest_magnitude(const float (&v)[EACH]) {
    float max = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) max = fmaxf(max, fabsf(v[i]));
#pragma unroll
    for (int other = 16; other > 0; other /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, other));
    return max;
}
#else
__device__ __forceinline__ u16 f16_of(float v) {
    const float most = 65504.0f;
    v = v > most ? most : v < -most ? -most : v;
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}

__device__ __forceinline__ void store(u8 *to, size_t at, float v) {
#if FORMAT == 0
    ((float *)to)[at] = v;
#else
    ((u16 *)to)[at] = f16_of(v);
#endif
}
#endif

// Rotates the halves of a head; a lane holds both elements of each of its pairs.
__device__ __forceinline__ void rotate(float (&v)[EACH], const float *angles, int lane) {
#pragma unroll
    for (int i = 0; i < EACH / 2; i++) {
        const float cos = angles[i * 32 + lane], sin = angles[HEAD_DIM / 2 + i * 32 + lane];
        const float low = v[i], high = v[i + EACH / 2];
        v[i] = __fadd_rn(__fmul_rn(low, cos), -__fmul_rn(high, sin));
        v[i + EACH / 2] = __fadd_rn(__fmul_rn(high, cos), __fmul_rn(low, sin));
    }
}

#if ROPE
__device__ __forceinline__ void rotate_query(const CacheWriteArgs &args, int token, int head, int lane) {
    float *x = args.queries_x + (size_t)token * args.x_row + head * HEAD_DIM;
    float v[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) v[i] = x[i * 32 + lane];
    rotate(v, args.angles + (size_t)token * HEAD_DIM, lane);
#pragma unroll
    for (int i = 0; i < EACH; i++) x[i * 32 + lane] = v[i];
}
#endif

extern "C" __global__ void __launch_bounds__(128) cache_write(const CacheWriteArgs args) {
    let_dependents_start();
    wait_for_producers();
    const StepHead step = step_head(args.step);
    const int lane = threadIdx.x % 32, at = blockIdx.x * 4 + threadIdx.x / 32;
#if ROPE
    const int warps = 2 * args.kv_heads + args.heads, token = at / warps, of_token = at % warps;
    if (token >= step.tokens) return;
    if (of_token >= 2 * args.kv_heads) return rotate_query(args, token, of_token - 2 * args.kv_heads, lane);
    const int head = of_token / 2;
#else
    const int token = at / (2 * args.kv_heads), head = at / 2 % args.kv_heads;
    if (token >= step.tokens) return;
#endif
#if ROPE
    const bool is_value = of_token % 2;
#else
    const bool is_value = at % 2;
#endif
    const float *x = (is_value ? args.values_x : args.keys_x) + (size_t)token * args.x_row + head * HEAD_DIM;
    float v[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) v[i] = i * 32 + lane < HEAD_DIM ? x[i * 32 + lane] : 0.0f;
#if ROPE
    if (!is_value) rotate(v, args.angles + (size_t)token * HEAD_DIM, lane);
#endif
    const u32 position = args.step[16 + token];
    const u32 page = args.step[args.step[step.token_tables + token] + position / PAGE];
    const int inside = position % PAGE;
    const size_t place = (size_t)page * args.kv_heads + head;
    u8 *to = is_value ? args.values : args.keys;
#if FORMAT >= 2
    const float given = is_value ? args.value_scale : args.key_scale;
    const Scale scale = usable_scale(FORMAT == 3 ? given : __fdiv_rn(largest_magnitude(v), 127.0f));
    to += place * PAGE * ROW + (is_value ? value_place(inside) : inside * ROW);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) to[is_value ? d * PAGE : d] = (u8)code_of(v[i], scale.inverse);
    }
    if (FORMAT == 2 && lane == 0) (is_value ? args.value_scales : args.key_scales)[place * PAGE + inside] = scale.scale;
#else
    const size_t first = place * PAGE * HEAD_DIM + (is_value ? inside * HEAD_DIM : inside);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) store(to, first + (is_value ? d : d * PAGE), v[i]);
    }
#endif
}
