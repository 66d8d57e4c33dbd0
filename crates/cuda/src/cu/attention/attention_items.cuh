// Spans of single tokens: their shared memory and items (see attention_spans.cu).
#pragma once
#include "attention.cuh"

#ifndef WALK
#define WALK 0
#endif
#ifndef MIN_CTAS
#define MIN_CTAS 3
#endif

constexpr int WARPS = 4, THREADS = WARPS * 32;
constexpr int MOST_HEADS = HEAD_DIM > 256 ? 4 : 8;
constexpr int HEADS = GROUP < MOST_HEADS ? GROUP : MOST_HEADS;  // of an item
constexpr int HEAD_TILES = (GROUP + HEADS - 1) / HEADS;
constexpr int OUT_ROW = ROW + 4;
constexpr int ELEMENTS = (HEADS * HEAD_DIM + THREADS - 1) / THREADS;  // of a thread
constexpr int QUERY_ROW = ((ROW + 63) / 64 | 1) * 64;                 // bytes of an INT8 query; 64 more than banks repeat
constexpr int WEIGHT_ROW = PAGE + 16;
constexpr int HEADS_PAD = (HEADS + 3) / 4 * 4;

extern __shared__ __align__(16) u8 shared_bytes[];

struct Shared {
    float out[SPAN_PAGES][HEADS][OUT_ROW];  // of pages
#if FORMAT >= 2
    u8 weights[WARPS][8][WEIGHT_ROW];
    u8 queries[8][QUERY_ROW];
#else
    float numerators[WARPS][PAGE][HEADS_PAD];
    float queries[HEADS][ROW];
#endif
    float reference[SPAN_PAGES][8], sum[SPAN_PAGES][8], scale[SPAN_PAGES][8];  // of pages
    float before[SPAN_PAGES][8], factor[SPAN_PAGES][8];                        // how pages join
    float whole_before[8], whole_added[8], whole_sum[8];        // how the span joins
    float query_scale[8];
    u32 arrival;
};

struct Item {
    int token, position, first, heads, kv_head, first_head;
    const u32 *pages;
    u32 entry, spans_before, tile;
};

__device__ __forceinline__ bool is_seen(const Item &item, int position) {
    return position >= item.first && position <= item.position;
}

__device__ __forceinline__ float biased(const AttentionArgs &args, float score, int head, int position) {
#if ALIBI
    return capped(args, score) + args.slopes[head] * (float)position;
#else
    return capped(args, score);
#endif
}
