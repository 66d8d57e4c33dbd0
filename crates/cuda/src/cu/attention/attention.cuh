// What the kernels of attention share: arguments, the step's words, places in the cache, and how parts of a softmax join.
#pragma once
#include "float_rules.cuh"

#ifndef FORMAT
#define FORMAT 2  // of the cache; 0: f32, 1: f16, 2: INT8 with a scale per token and head, 3: INT8 with a scale per layer
#endif
#ifndef HEAD_DIM
#define HEAD_DIM 128
#endif
#ifndef GROUP
#define GROUP 4  // query heads of a key/value head
#endif
#ifndef SOFT_CAP
#define SOFT_CAP 0
#endif
#ifndef ALIBI
#define ALIBI 0
#endif
#ifndef SINKS
#define SINKS 0
#endif

constexpr int PAGE = 64;  // positions
constexpr int SPAN_PAGES = 8;
constexpr int SPAN = PAGE * SPAN_PAGES;
constexpr int ROW = (HEAD_DIM + 15) / 16 * 16;  // codes of a cached key, and rows of a page's values, with zeros behind the head
// 1.5 * 2^23: an integer added to its bits is that integer added to the float, exactly, up to 2^22.
constexpr int ROUND_BITS = 0x4b400000;
constexpr float ROUND = 12582912.0f;

// Mirrors `AttentionArgs` of the host, by value.
struct AttentionArgs {
    float *out;      // [tokens, kv_heads * GROUP * HEAD_DIM]
    const float *x;  // [tokens, x_row], the queries' first column
    // Of the layer, by page and key/value head. Floats: keys [HEAD_DIM][64], values [64][HEAD_DIM]. INT8: keys [64][ROW], values
    // [ROW][64] with positions in the order of `value_place`.
    const u8 *keys, *values;
    const float *key_scales, *value_scales;  // [page][head][64]
    const float *slopes;                     // [heads], times log2 e
    const u32 *step;
    float *partial;        // [span][heads][HEAD_DIM]; zeros between launches
    float *partial_state;  // [span][heads][2]: reference and sum; of attention_ring [span][heads][parts][2], zeros between launches
    u32 *arrived;          // [span, or split token][heads, or tiles of heads][parts], zeros between launches
    u32 *drawn;            // items that CTAs have come for, 0 between launches
    void *passed;          // see attention_group.cuh
    u32 *passed_flags;     // zeros between launches
    float scale;           // times log2 e
    float key_scale, value_scale;
    int x_row, kv_heads;
    int window;  // 0: none
    // Of attention_ring with JOINED.
    int keys_first, values_first;  // of a token's new key and value, in floats behind x
    // Of attention_ring with JOINED, and of attention_prompt_sm90 where queries come as they are before rotation: [tokens, HEAD_DIM], cos, then sin.
    const float *angles;
    // With CODES, in the place of out.
    u32 *rows;           // [token][heads][HEAD_DIM], zeros between launches
    u32 *finished;       // [token]: parts of heads in rows, 0 between launches
    signed char *codes;  // [tokens, code_row]
    float *code_scales;  // [tokens]
    int *code_sums;      // [tokens]
    float code_scale;    // of all tokens, where it is above 0
    int code_row;
    float soft_cap;  // times log2 e, with SOFT_CAP
    int padding;
    const float *sinks;  // [heads], times log2 e, with SINKS
};

__device__ __forceinline__ float capped(const AttentionArgs &args, float score) {
#if SOFT_CAP
    return __fmul_rn(hyperbolic_tangent(score), args.soft_cap);
#else
    return score;
#endif
}

// First words of a step.
struct StepHead {
    u32 tokens, splits, spans, first_split;  // offsets in words
    u32 runs, first_run, run_tokens, token_tables;
    u32 pieces, first_piece;
};

// A token whose spans are attended apart.
struct SplitToken {
    u32 token, position, table, spans_before;
};

// A span of a split token, or all of its spans.
struct Piece {
    u32 token, position, table, place;

    // Of the token, among spans of all.
    __device__ __forceinline__ u32 first_slot() const {
        return place & 8191;
    }

    __device__ __forceinline__ int span() const {
        return place >> 13 & 8191;
    }

    // Pages that earlier steps have written whole.
    __device__ __forceinline__ int settled() const {
        return place >> 26 & 31;
    }

    __device__ __forceinline__ bool is_whole() const {
        return place >> 31;
    }
};

// Adjacent tokens of one sequence.
struct Run {
    u32 token, tokens_before, position, table;
};

__device__ __forceinline__ StepHead step_head(const u32 *step) {
    const uint4 a = ((const uint4 *)step)[0], b = ((const uint4 *)step)[1];
    return StepHead{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, step[8], step[9]};
}

__device__ __forceinline__ SplitToken split_token(const u32 *step, u32 first, u32 at) {
    const uint4 v = ((const uint4 *)(step + first))[at];
    return SplitToken{v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ Piece piece_of(const u32 *step, u32 first, u32 at) {
    const uint4 v = ((const uint4 *)(step + first))[at];
    return Piece{v.x, v.y, v.z, v.w};
}

__device__ __forceinline__ Run run_of(const u32 *step, u32 first, u32 at) {
    const uint4 v = ((const uint4 *)(step + first))[at];
    return Run{v.x, v.y, v.z, v.w};
}

// Where in its page a position's value lies: a thread's four scores of 16 positions are neighbours.
__device__ __forceinline__ int value_place(int position) {
    return position & 48 | (position & 6) << 1 | (position & 8) >> 2 | position & 1;
}

// What joins what came before: the larger reference, and what both sides are multiplied by.
struct Join {
    float reference, before, added;
};

__device__ __forceinline__ Join join_of(float mine, float other) {
    const float reference = larger(mine, other);
    return Join{reference, power_of_two(mine - reference), power_of_two(other - reference)};
}

// The sum of all numerators of a head, and what outputs are multiplied by before it divides them.
struct Whole {
    float before, sum;
};

// All spans meet the head's sink, which is a span of one score without an output.
__device__ __forceinline__ Whole with_sink(const AttentionArgs &args, int head, float reference, float sum) {
#if SINKS
    const float score = args.sinks[head], mine = ceilf(larger(-LARGEST, score));
    const Join join = join_of(reference, mine);
    return Whole{join.before, __fmaf_rn(power_of_two(score - mine), join.added, sum * join.before)};
#else
    return Whole{1.0f, sum};
#endif
}

__device__ __forceinline__ int first_seen(int position, int window) {
    return window > 0 ? max(0, position + 1 - window) : 0;
}

// 8-bit integers: D[16,8] = A[16,32] * B[32,8] + C.
__device__ __forceinline__ void multiply_codes(int (&d)[4], const u32 (&a)[4], u32 b0, u32 b1, const int (&c)[4]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]));
}

// Sums of products of codes below 2^22 begin at ROUND_BITS and need no conversion.
template <bool SMALL>
__device__ __forceinline__ float float_of_sum(int sum) {
    return SMALL ? __int_as_float(sum) - ROUND : (float)sum;
}

template <int LENGTH>
constexpr bool small_sums() {
    return LENGTH * 127 * 127 < 1 << 22;
}
