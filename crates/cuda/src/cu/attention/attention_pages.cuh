// Spans of single tokens: scores, weights and values of a page (see attention_spans.cu).
#pragma once
#include "attention_items.cuh"

#if FORMAT >= 2

constexpr int CHUNKS = (ROW + 63) / 64;
constexpr int KEY_CHUNKS = CHUNKS < 2 ? CHUNKS : 2;                // in registers at once
constexpr int VALUE_TILES = ROW / 16 < 8 ? ROW / 16 : 8;           // of 16 rows, in registers at once
constexpr bool SMALL = small_sums<ROW>();

struct KeyBlock {
    uint4 v[KEY_CHUNKS][4][2];
};

struct ValueBlock {
    uint4 v[VALUE_TILES][2];
};

__device__ __forceinline__ void load_keys(KeyBlock &block, const u8 *keys, int first_chunk) {
    const int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < KEY_CHUNKS; c++) {
        const int column = (first_chunk + c) * 64 + quad * 16;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const int row = i / 2 * 16 + i % 2 * 8 + group;
            block.v[c][i / 2][i % 2] = column < ROW ? __ldcg((const uint4 *)(keys + row * ROW + column)) : make_uint4(0, 0, 0, 0);
        }
    }
}

__device__ __forceinline__ void load_values(ValueBlock &block, const u8 *values, int first_tile) {
    const int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int t = 0; t < VALUE_TILES; t++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = (first_tile + t) * 16 + half * 8 + group;
            block.v[t][half] = row < ROW ? __ldcg((const uint4 *)(values + row * PAGE + quad * 16)) : make_uint4(0, 0, 0, 0);
        }
    }
}

// 64 columns of k: rows `low` and `high` times the other operand's 16 bytes.
__device__ __forceinline__ void multiply_chunk(int (&sums)[4], uint4 low, uint4 high, uint4 b) {
    const u32 first[4] = {low.x, high.x, low.y, high.y}, second[4] = {low.z, high.z, low.w, high.w};
    multiply_codes(sums, first, b.x, b.y, sums);
    multiply_codes(sums, second, b.z, b.w, sums);
}

__device__ __forceinline__ void multiply_keys(const Shared &shared, int (&sums)[4][4], const KeyBlock &block, int first_chunk) {
    const int group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
#pragma unroll
    for (int c = 0; c < KEY_CHUNKS; c++) {
        if (first_chunk + c >= CHUNKS) break;
        const uint4 query = *(const uint4 *)&shared.queries[group][(first_chunk + c) * 64 + quad * 16];
#pragma unroll
        for (int m = 0; m < 4; m++) multiply_chunk(sums[m], block.v[c][m][0], block.v[c][m][1], query);
    }
}

// Codes and scale of a query, by a warp; zeros where the item has no such head.
__device__ __forceinline__ void prepare_query(const AttentionArgs &args, Shared &shared, const Item &item, int head) {
    const int lane = threadIdx.x % 32;
    constexpr int EACH = CHUNKS * 2;
    const float *q = args.x + (size_t)item.token * args.x_row + (item.first_head + head) * HEAD_DIM;
    float v[EACH], max = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        v[i] = head < item.heads && i * 32 + lane < HEAD_DIM ? q[i * 32 + lane] : 0.0f;
        max = fmaxf(max, fabsf(v[i]));
    }
#pragma unroll
    for (int other = 16; other > 0; other /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, other));
    const Scale scale = usable_scale(__fdiv_rn(max, 127.0f));
#pragma unroll
    for (int i = 0; i < EACH; i++) shared.queries[head][i * 32 + lane] = (u8)code_of(v[i], scale.inverse);
    if (lane == 0) shared.query_scale[head] = scale.scale;
}

__device__ __forceinline__ void prepare_queries(const AttentionArgs &args, Shared &shared, const Item &item) {
#pragma unroll
    for (int head = threadIdx.x / 32; head < 8; head += WARPS) prepare_query(args, shared, item, head);
}

// Scales of a page: a lane has those of positions `lane` and `lane + 32`.
struct PageScales {
    float key[2], value[2];
};

__device__ __forceinline__ PageScales load_scales(const AttentionArgs &args, size_t place) {
    PageScales scales;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const size_t at = place * PAGE + i * 32 + threadIdx.x % 32;
        scales.key[i] = FORMAT == 2 ? args.key_scales[at] : args.key_scale;
        scales.value[i] = FORMAT == 2 ? args.value_scales[at] : args.value_scale;
    }
    return scales;
}

// That of the thread's position in half an m of 16.
__device__ __forceinline__ float scale_at(const float (&scales)[2], int m, int half) {
    return FORMAT == 2 ? __shfl_sync(0xffffffffu, scales[m / 2], m % 2 * 16 + half * 8 + threadIdx.x % 32 / 4) : scales[0];
}

// Over the eight lanes that hold a head's positions.
__device__ __forceinline__ float largest_of_group(float v) {
#pragma unroll
    for (int other = 4; other < 32; other *= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, other));
    return v;
}

// Sums of products to the weights' codes of a page; leaves its reference, sum and scale.
__device__ __forceinline__ void weigh_page(const AttentionArgs &args, Shared &shared, const Item &item, int page, const PageScales &scales, const int (&sums)[4][4]) {
    const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4, slot = page % SPAN_PAGES;
#pragma unroll
    for (int c = 0; c < 2; c++) {
        const int head = quad * 2 + c;
        const float query_scale = shared.query_scale[head];
        float v[4][2], max = -LARGEST;
#pragma unroll
        for (int m = 0; m < 4; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int position = page * PAGE + m * 16 + half * 8 + group;
                float score = float_of_sum<SMALL>(sums[m][half * 2 + c]) * query_scale * scale_at(scales.key, m, half) * args.scale;
                score = biased(args, score, item.first_head + min(head, item.heads - 1), position);
                v[m][half] = is_seen(item, position) ? score : __uint_as_float(0xff800000);
                max = fmaxf(max, v[m][half]);
            }
        }
        const float reference = ceilf(largest_of_group(max));
        float chain[2] = {0.0f, 0.0f}, heaviest = 0.0f;
#pragma unroll
        for (int m = 0; m < 4; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const float numerator = power_of_two(v[m][half] - reference);
                chain[half] = chain[half] + numerator;
                v[m][half] = numerator * scale_at(scales.value, m, half);
                heaviest = fmaxf(heaviest, v[m][half]);
            }
        }
        float sum = chain[0] + chain[1];
#pragma unroll
        for (int other = 16; other > 2; other /= 2) sum = sum + __shfl_xor_sync(0xffffffffu, sum, other);
        const Scale scale = usable_scale(__fdiv_rn(largest_of_group(heaviest), 127.0f));
        u8 *weights = shared.weights[warp][head];
#pragma unroll
        for (int m = 0; m < 4; m++) {
#pragma unroll
            for (int half = 0; half < 2; half++) weights[value_place(m * 16 + half * 8 + group)] = (u8)code_of(v[m][half], scale.inverse);
        }
        if (group == 0) {
            shared.reference[slot][head] = reference;
            shared.sum[slot][head] = sum;
            shared.scale[slot][head] = scale.scale;
        }
        // One head after the other: registers hold the values.
        __syncwarp();
    }
}

__device__ __forceinline__ void multiply_values(Shared &shared, int slot, const ValueBlock &block, int first_tile) {
    const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / 4, quad = threadIdx.x % 4;
    const uint4 weights = *(const uint4 *)&shared.weights[warp][group][quad * 16];
#pragma unroll
    for (int t = 0; t < VALUE_TILES; t++) {
        if (first_tile + t >= ROW / 16) break;
        int sums[4] = {ROUND_BITS, ROUND_BITS, ROUND_BITS, ROUND_BITS};
        multiply_chunk(sums, block.v[t][0], block.v[t][1], weights);
        if (t % 2) __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int head = quad * 2 + i % 2, row = (first_tile + t) * 16 + i / 2 * 8 + group;
            if (head < HEADS) shared.out[slot][head][row] = float_of_sum<true>(sums[i]);
        }
    }
}

__device__ __forceinline__ size_t place_of(const AttentionArgs &args, const Item &item, int page) {
    return (size_t)item.pages[page] * args.kv_heads + item.kv_head;
}

// One page, whose keys' first block has been asked for; asks for that of `next` as soon as registers are free.
__device__ __forceinline__ void attend_page(const AttentionArgs &args, Shared &shared, const Item &item, int page, size_t &place, KeyBlock &block, int next,
                                            int last_page) {
    const u8 *keys = args.keys + place * PAGE * ROW, *values = args.values + place * PAGE * ROW;
    const PageScales scales = load_scales(args, place);
    int sums[4][4];
#pragma unroll
    for (int i = 0; i < 16; i++) sums[i / 4][i % 4] = SMALL ? ROUND_BITS : 0;
    multiply_keys(shared, sums, block, 0);
#pragma unroll 1
    for (int chunk = KEY_CHUNKS; chunk < CHUNKS; chunk += KEY_CHUNKS) {
        load_keys(block, keys, chunk);
        multiply_keys(shared, sums, block, chunk);
    }
    ValueBlock tiles;
    load_values(tiles, values, 0);
    if (next <= last_page) place = place_of(args, item, next);
    weigh_page(args, shared, item, page, scales, sums);
    if (next <= last_page) load_keys(block, args.keys + place * PAGE * ROW, 0);
    multiply_values(shared, page % SPAN_PAGES, tiles, 0);
#pragma unroll 1
    for (int tile = VALUE_TILES; tile < ROW / 16; tile += VALUE_TILES) {
        load_values(tiles, values, tile);
        multiply_values(shared, page % SPAN_PAGES, tiles, tile);
    }
    __syncwarp();
}

// The pages of a span, with the queries made ready meanwhile.
__device__ __forceinline__ void attend_pages(const AttentionArgs &args, Shared &shared, const Item &item, int first_page, int last_page, bool new_queries) {
    KeyBlock block;
    int page = first_page + threadIdx.x / 32;
    size_t place = 0;
    if (page <= last_page) {
        place = place_of(args, item, page);
        load_keys(block, args.keys + place * PAGE * ROW, 0);
    }
    if (new_queries) prepare_queries(args, shared, item);
    __syncthreads();
#pragma unroll 1
    for (; page <= last_page; page += WARPS) attend_page(args, shared, item, page, place, block, page + WARPS, last_page);
}

#else

#if FORMAT == 0
typedef float Stored;
#else
typedef u16 Stored;
#endif
constexpr int VECTOR = HEAD_DIM >= 128 && HEAD_DIM % 4 == 0 ? 4 : HEAD_DIM >= 64 && HEAD_DIM % 2 == 0 ? 2 : 1;

__device__ __forceinline__ float float_of(float v) {
    return v;
}

__device__ __forceinline__ float float_of(u16 v) {
    return float_of_f16(v);
}

template <int COUNT>
struct alignas(COUNT * sizeof(Stored)) Stripe {
    Stored v[COUNT];
};

template <int COUNT>
__device__ __forceinline__ void load_stripe(float (&to)[COUNT], const Stored *from) {
    const Stripe<COUNT> stripe = *(const Stripe<COUNT> *)from;
#pragma unroll
    for (int i = 0; i < COUNT; i++) to[i] = float_of(stripe.v[i]);
}

__device__ __forceinline__ void prepare_queries(const AttentionArgs &args, Shared &shared, const Item &item) {
    const float *q = args.x + (size_t)item.token * args.x_row + item.first_head * HEAD_DIM;
    for (int i = threadIdx.x; i < HEADS * HEAD_DIM; i += THREADS)
        shared.queries[i / HEAD_DIM][i % HEAD_DIM] = i < item.heads * HEAD_DIM ? q[i] : 0.0f;
}

// Dot products of two positions with all heads, each one chain over the head.
__device__ __forceinline__ void multiply_keys(const Shared &shared, float (&dots)[HEADS][2], const Stored *keys) {
    constexpr int AHEAD = 8;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int h = 0; h < HEADS; h++) dots[h][0] = dots[h][1] = 0.0f;
    int d = 0;
#pragma unroll 1
    for (; d + AHEAD <= HEAD_DIM; d += AHEAD) {
        float k[AHEAD][2];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) load_stripe(k[i], keys + (d + i) * PAGE + lane * 2);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
#pragma unroll
            for (int h = 0; h < HEADS; h++) {
                const float q = shared.queries[h][d + i];
                dots[h][0] = __fmaf_rn(q, k[i][0], dots[h][0]);
                dots[h][1] = __fmaf_rn(q, k[i][1], dots[h][1]);
            }
        }
    }
#pragma unroll 1
    for (; d < HEAD_DIM; d++) {
        float k[2];
        load_stripe(k, keys + d * PAGE + lane * 2);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            dots[h][0] = __fmaf_rn(shared.queries[h][d], k[0], dots[h][0]);
            dots[h][1] = __fmaf_rn(shared.queries[h][d], k[1], dots[h][1]);
        }
    }
}

// Lane l has positions 2 l and 2 l + 1: chains of 16 positions apart are eight lanes apart.
__device__ __forceinline__ float sum_of_page(const float (&numerators)[2]) {
    float chain[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        chain[i] = numerators[i];
#pragma unroll
        for (int step = 8; step < 32; step += 8) chain[i] = chain[i] + __shfl_down_sync(0xffffffffu, numerators[i], step);
#pragma unroll
        for (int half = 4; half > 0; half /= 2) chain[i] = chain[i] + __shfl_down_sync(0xffffffffu, chain[i], half);
    }
    return chain[0] + chain[1];
}

__device__ __forceinline__ void weigh_page(const AttentionArgs &args, Shared &shared, const Item &item, int page, const float (&dots)[HEADS][2]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, slot = page % SPAN_PAGES;
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float v[2], max = -LARGEST;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int position = page * PAGE + lane * 2 + i;
            const float score = biased(args, dots[h][i] * args.scale, item.first_head + min(h, item.heads - 1), position);
            v[i] = is_seen(item, position) ? score : __uint_as_float(0xff800000);
            max = fmaxf(max, v[i]);
        }
#pragma unroll
        for (int other = 16; other > 0; other /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, other));
        const float reference = ceilf(max);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            v[i] = power_of_two(v[i] - reference);
            shared.numerators[warp][lane * 2 + i][h] = v[i];
        }
        const float sum = sum_of_page(v);
        if (lane == 0) {
            shared.reference[slot][h] = reference;
            shared.sum[slot][h] = sum;
            shared.scale[slot][h] = 1.0f;
        }
    }
    __syncwarp();
}

// One chain over the positions that are seen, for each head and element.
__device__ __forceinline__ void multiply_values(Shared &shared, const Item &item, int page, const Stored *values) {
    constexpr int AHEAD = 8;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int from = max(item.first - page * PAGE, 0), to = min(item.position - page * PAGE, PAGE - 1);
#pragma unroll 1
    for (int d = lane * VECTOR; d < HEAD_DIM; d += 32 * VECTOR) {
        float out[HEADS][VECTOR];
#pragma unroll
        for (int i = 0; i < HEADS * VECTOR; i++) out[i / VECTOR][i % VECTOR] = 0.0f;
        int j = from;
#pragma unroll 1
        for (; j + AHEAD <= to + 1; j += AHEAD) {
            float v[AHEAD][VECTOR];
#pragma unroll
            for (int a = 0; a < AHEAD; a++) load_stripe(v[a], values + (j + a) * HEAD_DIM + d);
#pragma unroll
            for (int a = 0; a < AHEAD; a++) {
#pragma unroll
                for (int i = 0; i < HEADS * VECTOR; i++) {
                    const int h = i / VECTOR, e = i % VECTOR;
                    out[h][e] = __fmaf_rn(shared.numerators[warp][j + a][h], v[a][e], out[h][e]);
                }
            }
        }
#pragma unroll 1
        for (; j <= to; j++) {
            float v[VECTOR];
            load_stripe(v, values + j * HEAD_DIM + d);
#pragma unroll
            for (int i = 0; i < HEADS * VECTOR; i++) {
                const int h = i / VECTOR, e = i % VECTOR;
                out[h][e] = __fmaf_rn(shared.numerators[warp][j][h], v[e], out[h][e]);
            }
        }
#pragma unroll
        for (int i = 0; i < HEADS * VECTOR; i++) shared.out[page % SPAN_PAGES][i / VECTOR][d + i % VECTOR] = out[i / VECTOR][i % VECTOR];
    }
}

__device__ __forceinline__ void attend_pages(const AttentionArgs &args, Shared &shared, const Item &item, int first_page, int last_page, bool new_queries) {
    if (new_queries) prepare_queries(args, shared, item);
    __syncthreads();
#pragma unroll 1
    for (int page = first_page + threadIdx.x / 32; page <= last_page; page += WARPS) {
        const size_t place = ((size_t)item.pages[page] * args.kv_heads + item.kv_head) * PAGE * HEAD_DIM;
        float dots[HEADS][2];
        multiply_keys(shared, dots, (const Stored *)args.keys + place);
        weigh_page(args, shared, item, page, dots);
        multiply_values(shared, item, page, (const Stored *)args.values + place);
        __syncwarp();
    }
}

#endif
