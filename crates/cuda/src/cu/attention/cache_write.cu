// Keys and values of a step into the paged cache: a warp takes keys of a token, or values of a head. With ROPE keys are rotated on their
// way, and further warps rotate a query head in place: of all tokens, or of those whose spans are attended apart.
//
// An INT8 page holds values by element, so one token's lie 64 bytes apart. Where a step has all of sixteen adjacent positions, the warp
// of the first takes the values of all, and writes sixteen bytes where it would write one.
//
// In steps of many tokens a warp takes more: what it looks up before it reads takes longer than reading.
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
    int heads, spans_only;  // query heads; whether only queries of tokens whose spans are attended apart are rotated
    // What a warp takes.
    int key_heads;     // of a token: 1, or KEY_HEADS, which divide their number
    int value_tokens;  // of a head, up to 16; 1 where the cache holds floats
};

constexpr int EACH = (HEAD_DIM + 31) / 32;  // elements of a lane
constexpr int KEY_HEADS = EACH <= 4 ? 4 : 1;

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

// Where a token's keys and values go.
struct Place {
    u32 page, inside;
};

__device__ __forceinline__ Place place_of(const CacheWriteArgs &args, const StepHead &step, u32 token) {
    const u32 position = args.step[16 + token];
    return Place{args.step[args.step[step.token_tables + token] + position / PAGE], position % PAGE};
}

__device__ __forceinline__ void load_head(const float *x, float (&v)[EACH], int lane) {
#pragma unroll
    for (int i = 0; i < EACH; i++) v[i] = i * 32 + lane < HEAD_DIM ? x[i * 32 + lane] : 0.0f;
}

// A key or a value into its page.
template <bool IS_VALUE>
__device__ __forceinline__ void write(const CacheWriteArgs &args, int head, const Place &at, const float (&v)[EACH], int lane) {
    const size_t place = (size_t)at.page * args.kv_heads + head;
    u8 *to = IS_VALUE ? args.values : args.keys;
#if FORMAT >= 2
    const float given = IS_VALUE ? args.value_scale : args.key_scale;
    const Scale scale = usable_scale(FORMAT == 3 ? given : __fdiv_rn(largest_magnitude(v), 127.0f));
    to += place * PAGE * ROW + (IS_VALUE ? value_place(at.inside) : at.inside * ROW);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) to[IS_VALUE ? d * PAGE : d] = (u8)code_of(v[i], scale.inverse);
    }
    if (FORMAT == 2 && lane == 0) (IS_VALUE ? args.value_scales : args.key_scales)[place * PAGE + at.inside] = scale.scale;
#else
    const size_t first = place * PAGE * HEAD_DIM + (IS_VALUE ? at.inside * HEAD_DIM : at.inside);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int d = i * 32 + lane;
        if (d < HEAD_DIM) store(to, first + (IS_VALUE ? d : d * PAGE), v[i]);
    }
#endif
}

// Adjacent heads of a token's keys.
template <int HEADS>
__device__ __forceinline__ void write_keys(const CacheWriteArgs &args, const StepHead &step, u32 token, int head, int lane) {
    const Place at = place_of(args, step, token);
#if ROPE
    const Rotation by = rotation_of(args.angles + (size_t)token * HEAD_DIM, lane);
#endif
    const float *x = args.keys_x + (size_t)token * args.x_row + head * HEAD_DIM;
    wait_for_producers();
    float v[HEADS][EACH];
#pragma unroll
    for (int i = 0; i < HEADS; i++) load_head(x + i * HEAD_DIM, v[i], lane);
#pragma unroll
    for (int i = 0; i < HEADS; i++) {
#if ROPE
        rotate(v[i], by);
#endif
        write<false>(args, head + i, at, v[i], lane);
    }
}

__device__ __forceinline__ void write_value(const CacheWriteArgs &args, u32 token, int head, const Place &at, int lane) {
    float v[EACH];
    load_head(args.values_x + (size_t)token * args.x_row + head * HEAD_DIM, v, lane);
    write<true>(args, head, at, v, lane);
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

// Values of sixteen tokens from `token` on into their page.
__device__ __forceinline__ void write_sixteen(const CacheWriteArgs &args, const StepHead &step, u32 token, int head, int lane) {
    const Place at = place_of(args, step, token);
    const float *x = args.values_x + (size_t)token * args.x_row + head * HEAD_DIM;
    const size_t place = (size_t)at.page * args.kv_heads + head;
    float *scales = args.value_scales + place * PAGE + at.inside;
    u32 words[4][EACH];
#pragma unroll
    for (int four = 0; four < 4; four++) code_four(args, x, 2 * four, scales, words[four], lane);
    u8 *to = args.values + place * PAGE * ROW + at.inside;
#pragma unroll
    for (int e = 0; e < EACH; e++) {
        const int d = e * 32 + lane;
        if (d < HEAD_DIM) *(uint4 *)(to + d * PAGE) = make_uint4(words[0][e], words[1][e], words[2][e], words[3][e]);
    }
}
#endif

// A head's values of some adjacent tokens.
__device__ __forceinline__ void write_values(const CacheWriteArgs &args, const StepHead &step, u32 first, int head, int lane) {
    const Place at = place_of(args, step, first);
#if FORMAT >= 2
    const u32 token = first + lane;
    const bool is_mine = lane < args.value_tokens && token < step.tokens;
    Sixteen sixteen{false, 0};
    if (is_mine) sixteen = sixteen_of(args.step, step, token, args.step[16 + token]);
    u32 sixteens = __ballot_sync(0xffffffffu, sixteen.is_whole && sixteen.first == (int)token);
    u32 singles = __ballot_sync(0xffffffffu, is_mine && !sixteen.is_whole);
    wait_for_producers();
    for (; sixteens != 0; sixteens &= sixteens - 1) write_sixteen(args, step, first + __ffs(sixteens) - 1, head, lane);
    for (; singles != 0; singles &= singles - 1) {
        const u32 single = first + __ffs(singles) - 1;
        write_value(args, single, head, single == first ? at : place_of(args, step, single), lane);
    }
#else
    wait_for_producers();
    write_value(args, first, head, at, lane);
#endif
}

#if ROPE
// A query head in place, of a token or of one whose spans are attended apart.
__device__ __forceinline__ void rotate_query(const CacheWriteArgs &args, const StepHead &step, u32 at, int head, int lane) {
    if (at >= (args.spans_only ? step.splits : step.tokens)) return;
    const u32 token = args.spans_only ? split_token(args.step, step.first_split, at).token : at;
    const Rotation by = rotation_of(args.angles + (size_t)token * HEAD_DIM, lane);
    float *x = args.queries_x + (size_t)token * args.x_row + head * HEAD_DIM;
    wait_for_producers();
    float v[EACH];
    load_head(x, v, lane);
    rotate(v, by);
#pragma unroll
    for (int i = 0; i < EACH; i++) x[i * 32 + lane] = v[i];
}
#endif

// Copies write the step, and what writes its angles lets no other kernel begin: both are read before those that come first are done.
extern "C" __global__ void __launch_bounds__(128) cache_write(const CacheWriteArgs args) {
    let_dependents_start();
    const StepHead step = step_head(args.step);
    const int lane = threadIdx.x % 32;
    u32 warp = blockIdx.x * 4 + threadIdx.x / 32;
    const u32 parts = args.kv_heads / args.key_heads, keys = step.tokens * parts;
    if (warp < keys) {
        const int head = warp % parts * args.key_heads;
        if (args.key_heads == KEY_HEADS) {
            write_keys<KEY_HEADS>(args, step, warp / parts, head, lane);
        } else {
            write_keys<1>(args, step, warp / parts, head, lane);
        }
        return;
    }
    warp -= keys;
    const u32 values = (step.tokens + args.value_tokens - 1) / args.value_tokens * args.kv_heads;
    if (warp < values) {
        write_values(args, step, warp / args.kv_heads * args.value_tokens, warp % args.kv_heads, lane);
        return;
    }
#if ROPE
    if (args.heads > 0) rotate_query(args, step, (warp - values) / args.heads, (warp - values) % args.heads, lane);
#endif
}
