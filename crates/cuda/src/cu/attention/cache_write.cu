// Keys and values of a step into the paged cache: a warp takes the key or the value of a token's head. With ROPE keys are rotated on
// their way, and further warps rotate a query head in place.
//
// An INT8 page holds values by element, so one token's lie 64 bytes apart. Where a step has all of sixteen adjacent positions, the warp
// of the first takes the values of all, and writes sixteen bytes where it would write one.
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
    return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(max)));
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

#if ROPE
// Cosines and sines of the pairs that a lane rotates.
struct Rotation {
    float cos[EACH / 2], sin[EACH / 2];
};

__device__ __forceinline__ Rotation rotation_of(const float *angles, int lane) {
    Rotation by;
#pragma unroll
    for (int i = 0; i < EACH / 2; i++) {
        by.cos[i] = angles[i * 32 + lane];
        by.sin[i] = angles[HEAD_DIM / 2 + i * 32 + lane];
    }
    return by;
}

// Rotates the halves of a head; a lane holds both elements of each of its pairs.
__device__ __forceinline__ void rotate(float (&v)[EACH], const Rotation &by) {
#pragma unroll
    for (int i = 0; i < EACH / 2; i++) {
        const float low = v[i], high = v[i + EACH / 2];
        v[i] = __fadd_rn(__fmul_rn(low, by.cos[i]), -__fmul_rn(high, by.sin[i]));
        v[i + EACH / 2] = __fadd_rn(__fmul_rn(high, by.cos[i]), __fmul_rn(low, by.sin[i]));
    }
}
#endif

// What a warp takes: a head of a token's keys or values, or, behind those, of its queries.
struct Task {
    int token, head;
    bool is_value, is_query;
};

__device__ __forceinline__ Task task_of(const CacheWriteArgs &args, int warp) {
    const int written = 2 * args.kv_heads, heads = written + (ROPE ? args.heads : 0);
    const int token = warp / heads, of_token = warp % heads;
    const bool is_query = of_token >= written;
    return Task{token, is_query ? of_token - written : of_token / 2, !is_query && of_token % 2, is_query};
}

__device__ __forceinline__ void load_head(const float *x, float (&v)[EACH], int lane) {
#pragma unroll
    for (int i = 0; i < EACH; i++) v[i] = i * 32 + lane < HEAD_DIM ? x[i * 32 + lane] : 0.0f;
}

// A key or a value into its page.
__device__ __forceinline__ void write(const CacheWriteArgs &args, const Task &task, u32 page, int inside, const float (&v)[EACH], int lane) {
    const size_t place = (size_t)page * args.kv_heads + task.head;
    u8 *to = task.is_value ? args.values : args.keys;
#if FORMAT >= 2
    const float given = task.is_value ? args.value_scale : args.key_scale;
    const Scale scale = usable_scale(FORMAT == 3 ? given : __fdiv_rn(largest_magnitude(v), 127.0f));
    to += place * PAGE * ROW + (task.is_value ? value_place(inside) : inside * ROW);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) to[task.is_value ? d * PAGE : d] = (u8)code_of(v[i], scale.inverse);
    }
    if (FORMAT == 2 && lane == 0) (task.is_value ? args.value_scales : args.key_scales)[place * PAGE + inside] = scale.scale;
#else
    const size_t first = place * PAGE * HEAD_DIM + (task.is_value ? inside * HEAD_DIM : inside);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) store(to, first + (task.is_value ? d : d * PAGE), v[i]);
    }
#endif
}

#if FORMAT >= 2
constexpr int SIXTEEN = 16;  // positions whose values are neighbours in a page

// Tokens of a step that are sixteen adjacent positions of a sequence, beginning at a multiple of sixteen.
struct Sixteen {
    bool is_whole;
    int first;  // token
};

__device__ __forceinline__ Sixteen sixteen_of(const u32 *step, const StepHead &head, int token, u32 position) {
    const int first = token - (int)(position % SIXTEEN), last = first + SIXTEEN - 1;
    if (first < 0 || last >= (int)head.tokens) return {false, first};
    const u32 *positions = step + 16, *tables = step + head.token_tables;
    const bool adjacent = positions[last] - positions[first] == SIXTEEN - 1 && positions[first] % SIXTEEN == 0;
    return {adjacent && tables[first] == tables[last], first};
}

// Four tokens' values as bytes of a word for each element of a lane, in the order of `value_place`: positions `at`, `at` + 1, `at` + 8,
// `at` + 9 of sixteen.
__device__ __forceinline__ void code_four(const CacheWriteArgs &args, const float *x, int at, float *scales, u32 (&words)[EACH], int lane) {
    float v[4][EACH];
#pragma unroll
    for (int t = 0; t < 4; t++) load_head(x + (size_t)(at + t % 2 + t / 2 * 8) * args.x_row, v[t], lane);
#pragma unroll
    for (int e = 0; e < EACH; e++) words[e] = 0;
#pragma unroll
    for (int t = 0; t < 4; t++) {
        const Scale scale = usable_scale(FORMAT == 3 ? args.value_scale : __fdiv_rn(largest_magnitude(v[t]), 127.0f));
#pragma unroll
        for (int e = 0; e < EACH; e++) words[e] |= (u32)(u8)code_of(v[t][e], scale.inverse) << 8 * t;
        if (FORMAT == 2 && lane == 0) scales[at + t % 2 + t / 2 * 8] = scale.scale;
    }
}

// Values of sixteen tokens from `x` on into their page.
__device__ __forceinline__ void write_sixteen(const CacheWriteArgs &args, const float *x, const Task &task, u32 page, int inside, int lane) {
    const size_t place = (size_t)page * args.kv_heads + task.head;
    float *scales = args.value_scales + place * PAGE + inside;
    u32 words[4][EACH];
#pragma unroll
    for (int four = 0; four < 4; four++) code_four(args, x, 2 * four, scales, words[four], lane);
    u8 *to = args.values + place * PAGE * ROW + inside;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int d = e * 32 + lane;
        if (d < HEAD_DIM) *(uint4 *)(to + d * PAGE) = make_uint4(words[0][e], words[1][e], words[2][e], words[3][e]);
    }
}
#endif

// Copies write the step, and what writes its angles lets no other kernel begin: both are read before those that come first are done.
extern "C" __global__ void __launch_bounds__(128) cache_write(const CacheWriteArgs args) {
    let_dependents_start();
    const StepHead step = step_head(args.step);
    const int lane = threadIdx.x % 32;
    const Task task = task_of(args, blockIdx.x * 4 + threadIdx.x / 32);
    if (task.token >= step.tokens) return;
    const u32 position = args.step[16 + task.token];
    const u32 page = args.step[args.step[step.token_tables + task.token] + position / PAGE];
    const float *x = task.is_value ? args.values_x : args.keys_x;
#if FORMAT >= 2
    const Sixteen sixteen = task.is_value ? sixteen_of(args.step, step, task.token, position) : Sixteen{false, 0};
    if (sixteen.is_whole && task.token != sixteen.first) return;
#endif
#if ROPE
    if (task.is_query) x = args.queries_x;
    const Rotation by = rotation_of(args.angles + (size_t)task.token * HEAD_DIM, lane);
#endif
    x += (size_t)task.token * args.x_row + task.head * HEAD_DIM;
    wait_for_producers();
#if FORMAT >= 2
    if (sixteen.is_whole) {
        write_sixteen(args, x, task, page, position % PAGE, lane);
        return;
    }
#endif
    float v[EACH];
    load_head(x, v, lane);
#if ROPE
    if (!task.is_value) rotate(v, by);
    if (task.is_query) {
#pragma unroll
        for (int i = 0; i < EACH; i++) ((float *)x)[i * 32 + lane] = v[i];
        return;
    }
#endif
    write(args, task, page, position % PAGE, v, lane);
}
