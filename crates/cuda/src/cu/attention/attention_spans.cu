// Attention of single tokens: a CTA takes a span of 512 positions of a token's key/value head, its warps take turns with the pages; the
// heads of a group share what is read.
//
// Split tokens have their spans attended by different CTAs: each leaves reference, sum and output, and the one that arrives last joins
// them in order. With WALK a CTA takes all spans of a token one after the other.
//
// Over an INT8 cache both products run in the matrix units, keys and values in the place of the large operand, straight from memory to
// registers: lanes take 16 bytes of a row, so k is permuted, for both operands alike.
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
    return score + args.slopes[head] * (float)position;
#else
    return score;
#endif
}

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

// Reference and sum of what has joined so far, of the head that a lane of the first warp looks after.
struct State {
    float reference, sum;
};

// How the pages of a span join, and the span what came before it: a lane each head.
__device__ __forceinline__ State join_pages(Shared &shared, int first_page, int last_page, State &whole) {
    const int head = threadIdx.x;
    State span{-LARGEST, 0.0f};
    for (int p = first_page; p <= last_page; p++) {
        const Join join = join_of(span.reference, shared.reference[p][head]);
        span.sum = __fmaf_rn(shared.sum[p][head], join.added, span.sum * join.before);
        span.reference = join.reference;
        shared.before[p][head] = join.before;
        shared.factor[p][head] = shared.scale[p][head] * join.added;
    }
    const Join join = join_of(whole.reference, span.reference);
    whole.sum = __fmaf_rn(span.sum, join.added, whole.sum * join.before);
    whole.reference = join.reference;
    shared.whole_before[head] = join.before;
    shared.whole_added[head] = join.added;
    shared.whole_sum[head] = whole.sum;
    return span;
}

__device__ __forceinline__ float joined_element(const Shared &shared, int first_page, int last_page, int head, int d) {
    float out = 0.0f;
#pragma unroll
    for (int p = 0; p < SPAN_PAGES; p++) {
        if (p >= first_page && p <= last_page) out = __fmaf_rn(shared.out[p][head][d], shared.factor[p][head], out * shared.before[p][head]);
    }
    return out;
}

__device__ __forceinline__ void write_out(const AttentionArgs &args, const Item &item, int head, int d, float total, float sum) {
    float *row = args.out + (size_t)item.token * (args.kv_heads * GROUP * HEAD_DIM);
    row[(item.first_head + head) * HEAD_DIM + d] = total * __fdiv_rn(1.0f, sum) + 0.0f;
}

__device__ __forceinline__ void place_head(const AttentionArgs &args, Item &item, u32 tile) {
    item.tile = tile;
    item.kv_head = tile / HEAD_TILES;
    item.first_head = item.kv_head * GROUP + tile % HEAD_TILES * HEADS;
    item.heads = min(HEADS, GROUP - (int)(tile % HEAD_TILES) * HEADS);
    item.first = first_seen(item.position, args.window);
}

// One span; `first_page` and `last_page` become those that the token sees, counted from the span's first one.
__device__ __forceinline__ State attend_span(const AttentionArgs &args, Shared &shared, const Item &item, int span, bool new_queries, State &whole,
                                             int &first_page, int &last_page) {
    first_page = max(item.first / PAGE - span * SPAN_PAGES, 0);
    last_page = min(item.position / PAGE - span * SPAN_PAGES, SPAN_PAGES - 1);
    attend_pages(args, shared, item, span * SPAN_PAGES + first_page, span * SPAN_PAGES + last_page, new_queries);
    __syncthreads();
    State state{-LARGEST, 0.0f};
    if (threadIdx.x < item.heads) state = join_pages(shared, first_page, last_page, whole);
    __syncthreads();
    return state;
}

#if WALK

__device__ __forceinline__ void attend_item(const AttentionArgs &args, Shared &shared, const Item &item) {
    State whole{-LARGEST, 0.0f};
    float total[ELEMENTS];
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) total[i] = 0.0f;
    const int first_span = item.first / SPAN;
#pragma unroll 1
    for (int span = first_span; span <= item.position / SPAN; span++) {
        int first_page, last_page;
        attend_span(args, shared, item, span, span == first_span, whole, first_page, last_page);
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++) {
            const int at = i * THREADS + threadIdx.x, head = at / HEAD_DIM;
            if (head >= item.heads) break;
            const float out = joined_element(shared, first_page, last_page, head, at % HEAD_DIM);
            total[i] = __fmaf_rn(out, shared.whole_added[head], total[i] * shared.whole_before[head]);
        }
    }
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) {
        const int at = i * THREADS + threadIdx.x, head = at / HEAD_DIM;
        if (head < item.heads) write_out(args, item, head, at % HEAD_DIM, total[i], shared.whole_sum[head]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_CTAS) attention_spans(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const StepHead step = step_head(args.step);
    const u32 tiles = args.kv_heads * HEAD_TILES;
    // The longest contexts first.
    for (u32 at = blockIdx.x; at < step.run_tokens * tiles; at += gridDim.x) {
        const u32 which = step.run_tokens - 1 - at / tiles;
        u32 low = 0, high = step.runs;  // of runs that begin at or before it, the last
        while (high - low > 1) {
            const u32 middle = (low + high) / 2;
            (run_of(args.step, step.first_run, middle).tokens_before <= which ? low : high) = middle;
        }
        const Run run = run_of(args.step, step.first_run, low);
        Item item;
        item.token = run.token + (which - run.tokens_before);
        item.position = run.position + (which - run.tokens_before);
        item.pages = args.step + run.table;
        place_head(args, item, at % tiles);
        attend_item(args, shared, item);
    }
}

#else

// All spans of a token that other CTAs have left, in order.
__device__ __forceinline__ void join_spans(const AttentionArgs &args, const Item &item) {
    const size_t heads = args.kv_heads * GROUP;
#pragma unroll 1
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        State whole{-LARGEST, 0.0f};
        float total = 0.0f;
#pragma unroll 4
        for (int span = item.first / SPAN; span <= item.position / SPAN; span++) {
            const size_t slot = (item.spans_before + span) * heads + item.first_head + head;
            const float2 state = __ldcg((const float2 *)args.partial_state + slot);
            const float out = __ldcg(args.partial + slot * HEAD_DIM + d);
            const Join join = join_of(whole.reference, state.x);
            whole.sum = __fmaf_rn(state.y, join.added, whole.sum * join.before);
            whole.reference = join.reference;
            total = __fmaf_rn(out, join.added, total * join.before);
        }
        write_out(args, item, head, d, total, whole.sum);
    }
}

__device__ __forceinline__ void leave_span(const AttentionArgs &args, Shared &shared, const Item &item, int span, State state, int first_page, int last_page) {
    const size_t slot = (size_t)(item.spans_before + span) * (args.kv_heads * GROUP) + item.first_head;
    if (threadIdx.x < item.heads) ((float2 *)args.partial_state)[slot + threadIdx.x] = make_float2(state.reference, state.sum);
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        args.partial[(slot + head) * HEAD_DIM + d] = joined_element(shared, first_page, last_page, head, d);
    }
    __threadfence();
    __syncthreads();
    u32 *arrived = args.arrived + item.entry * args.kv_heads * HEAD_TILES + item.tile;
    if (threadIdx.x == 0) shared.arrival = atomicAdd(arrived, 1u);
    __syncthreads();
    if (shared.arrival != item.position / SPAN - item.first / SPAN) return;
    __threadfence();
    if (threadIdx.x == 0) *arrived = 0;
    join_spans(args, item);
}

__device__ __forceinline__ void attend_item(const AttentionArgs &args, Shared &shared, const Item &item, int span) {
    State whole{-LARGEST, 0.0f};
    int first_page, last_page;
    const State state = attend_span(args, shared, item, span, true, whole, first_page, last_page);
    if (item.first / SPAN != item.position / SPAN) {
        leave_span(args, shared, item, span, state, first_page, last_page);
        return;
    }
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        const float out = joined_element(shared, first_page, last_page, head, d);
        write_out(args, item, head, d, __fmaf_rn(out, shared.whole_added[head], 0.0f * shared.whole_before[head]), shared.whole_sum[head]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_CTAS) attention_spans(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const StepHead step = step_head(args.step);
    const u32 tiles = args.kv_heads * HEAD_TILES;
    u32 low = 0;
    for (u32 at = blockIdx.x; at < step.spans * tiles; at += gridDim.x) {
        u32 high = step.splits;
        while (high - low > 1) {
            const u32 middle = (low + high) / 2;
            (split_token(args.step, step.first_split, middle).spans_before * tiles <= at ? low : high) = middle;
        }
        const SplitToken split = split_token(args.step, step.first_split, low);
        Item item;
        item.token = split.token;
        item.position = split.position;
        item.pages = args.step + split.table;
        item.entry = low;
        item.spans_before = split.spans_before;
        const u32 spans = split.position / SPAN + 1, inside = at - split.spans_before * tiles;
        place_head(args, item, inside / spans);
        const int span = inside % spans;
        if (span >= item.first / SPAN) attend_item(args, shared, item, span);
    }
}

#endif
