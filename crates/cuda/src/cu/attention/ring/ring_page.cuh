// A page in its stage: scores, weights and values, by one warp (see attention_ring.cu).
#pragma once
#include "page_ring.cuh"

constexpr bool SMALL = small_sums<ROW>();
constexpr int QUERY_PIECES = CHUNKS * 2;  // of 32 elements

// Elements of one head, a piece each, that are on their way.
struct Query {
    float v[QUERY_PIECES];
#if JOINED
    float cos[QUERY_PIECES / 2], sin[QUERY_PIECES / 2];
#endif
};

// Of a team.
__device__ __forceinline__ int warp_of_team() {
    return this_thread() / 32 % WARPS;
}

// Row of the smaller operand that a lane holds.
__device__ __forceinline__ int operand_head() {
    return COLUMNS == 1 ? this_thread() % 32 / 8 : this_thread() % 32 / 4;
}

#if JOINED
// The last two warps of a team take the newest key and value, beside a query where they have one.
constexpr bool SPARE = HEADS + 2 <= WARPS;
constexpr int KEY_WARP = WARPS - 2;

// What needs not wait for the launches in front: copies write the step, and what writes angles lets no kernel behind it begin.
__device__ __forceinline__ void load_angles(const AttentionArgs &args, const Item &item, Query &query) {
    const int lane = this_thread() % 32;
    const bool is_there = item.pages > 0;
    const float *angles = args.angles + (size_t)item.token * HEAD_DIM + lane;
#pragma unroll
    for (int i = 0; i < QUERY_PIECES / 2; i++) {
        query.cos[i] = is_there ? angles[i * 32] : 0.0f;
        query.sin[i] = is_there ? angles[HEAD_DIM / 2 + i * 32] : 0.0f;
    }
}

// Rotates the halves of a head; a lane holds both elements of each of its pairs.
__device__ __forceinline__ void rotate(float (&v)[QUERY_PIECES], const Query &by) {
#pragma unroll
    for (int i = 0; i < QUERY_PIECES / 2; i++) {
        const float low = v[i], high = v[i + QUERY_PIECES / 2];
        v[i] = __fadd_rn(__fmul_rn(low, by.cos[i]), -__fmul_rn(high, by.sin[i]));
        v[i + QUERY_PIECES / 2] = __fadd_rn(__fmul_rn(high, by.cos[i]), __fmul_rn(low, by.sin[i]));
    }
}

// Where this warp's key or value begins, in floats behind the token's first.
__device__ __forceinline__ int newest_at(const AttentionArgs &args, const Item &item) {
    return (warp_of_team() == KEY_WARP ? args.keys_first : args.values_first) + item.first_head / GROUP * HEAD_DIM;
}
#endif

__device__ __forceinline__ void load_head(const float *from, bool is_there, float (&v)[QUERY_PIECES]) {
    const int lane = this_thread() % 32;
#pragma unroll
    for (int i = 0; i < QUERY_PIECES; i++) v[i] = is_there && i * 32 + lane < HEAD_DIM ? __ldcg(from + i * 32 + lane) : 0.0f;
}

__device__ __forceinline__ void load_query(const AttentionArgs &args, const Item &item, bool is_told, Query &query) {
    const int head = warp_of_team();
    int at = (item.first_head + head) * HEAD_DIM;
    bool is_there = is_told && item.pages > 0 && head < item.heads;
#if JOINED
    if (SPARE && head >= KEY_WARP) {
        at = newest_at(args, item);
        is_there = is_told && item.pages > 0 && item.has_newest();
    }
#endif
    load_head(args.x + (size_t)item.token * args.x_row + at, is_there, query.v);
}

__device__ __forceinline__ float largest_magnitude(const float (&v)[QUERY_PIECES]) {
    float max = 0.0f;
#pragma unroll
    for (int i = 0; i < QUERY_PIECES; i++) max = fmaxf(max, fabsf(v[i]));
    return __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(max)));
}

#if JOINED
// The token's own key or value: its codes wait for their page.
__device__ __forceinline__ void place_newest(const AttentionArgs &args, Team &team, const float (&v)[QUERY_PIECES]) {
    const int lane = this_thread() % 32;
    const bool is_value = warp_of_team() != KEY_WARP;
    const Scale scale = usable_scale(FORMAT == 3 ? is_value ? args.value_scale : args.key_scale : __fdiv_rn(largest_magnitude(v), 127.0f));
#pragma unroll
    for (int i = 0; i < QUERY_PIECES; i++) team.newest[is_value][i * 32 + lane] = (u8)code_of(v[i], scale.inverse);
    if (lane == 0) team.newest_scale[is_value] = scale.scale;
}

// Both at position `inside` of a page, which lies at these addresses.
__device__ __forceinline__ void write_newest(const Team &team, int inside, u8 *keys, u8 *values, float *key_scales, float *value_scales) {
    const int lane = this_thread() % 32;
#pragma unroll
    for (int i = 0; i < QUERY_PIECES; i++) {
        const int d = i * 32 + lane;
        keys[inside * ROW + d] = team.newest[0][d];
        values[d * PAGE + value_place(inside)] = team.newest[1][d];
    }
    if (FORMAT == 2 && lane < 2) (lane == 0 ? key_scales : value_scales)[inside] = team.newest_scale[lane];
}

// They go into their page once it has arrived, for it may have been copied before, and into the cache, once for all tiles of heads.
__device__ __forceinline__ void put_newest(const AttentionArgs &args, const Team &team, const Item &item, Stage &stage, size_t place) {
    const int inside = item.position % PAGE;
    write_newest(team, inside, stage.keys, stage.values, stage.key_scales, stage.value_scales);
    if (HEAD_TILES == 1 || item.first_head % GROUP == 0)
        write_newest(team, inside, (u8 *)args.keys + place * (PAGE * ROW), (u8 *)args.values + place * (PAGE * ROW),
                     (float *)args.key_scales + place * PAGE, (float *)args.value_scales + place * PAGE);
    // The stage's next page is copied behind this.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    __syncwarp();
}
#endif

// Its codes and scale; with JOINED also the newest key and value.
__device__ __forceinline__ void place_query(const AttentionArgs &args, Team &team, const Item &item, Query &query) {
    const int head = warp_of_team(), lane = this_thread() % 32;
#if JOINED
    const bool is_newest = head >= KEY_WARP && item.has_newest();
    if (head < HEADS || head == KEY_WARP) rotate(query.v, query);
    if (SPARE && is_newest) place_newest(args, team, query.v);
#endif
    if (head < HEADS) {
        const Scale scale = usable_scale(__fdiv_rn(largest_magnitude(query.v), 127.0f));
#pragma unroll
        for (int i = 0; i < QUERY_PIECES; i++) team.queries[head][i * 32 + lane] = (u8)code_of(query.v[i], scale.inverse);
        if (lane == 0) team.query_scale[head] = scale.scale;
    }
#if JOINED
    if (SPARE || !is_newest) return;
    load_head(args.x + (size_t)item.token * args.x_row + newest_at(args, item), true, query.v);
    if (head == KEY_WARP) rotate(query.v, query);
    place_newest(args, team, query.v);
#endif
}

// Sums of a product of sixteen rows with eight columns: rows of a lane's group, and those eight further on. Steps of 32 of k may be moved
// by the compiler.
struct Product {
    int sums[4];

    __device__ __forceinline__ void start(int v) {
        sums[0] = sums[1] = sums[2] = sums[3] = v;
    }

    __device__ __forceinline__ void add(u32 low, u32 high, u32 next_low, u32 next_high, u32 b, u32 next_b) {
        asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
            : "r"(low), "r"(high), "r"(next_low), "r"(next_high), "r"(b), "r"(next_b));
    }
};

// A lane's part of two rows, eight apart, and 64 of k.
struct RowPair {
    uint4 low, high;
};

// Several products with the same smaller operand, in turn: none waits for its own sums.
template <int COUNT>
__device__ __forceinline__ void multiply_rows(Product (&products)[COUNT], const RowPair (&rows)[COUNT], uint4 b) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) products[i].add(rows[i].low.x, rows[i].high.x, rows[i].low.y, rows[i].high.y, b.x, b.y);
#pragma unroll
    for (int i = 0; i < COUNT; i++) products[i].add(rows[i].low.z, rows[i].high.z, rows[i].low.w, rows[i].high.w, b.z, b.w);
}

// Behind a row's end come bytes of the next one: the query is zero there.
__device__ __forceinline__ void multiply_keys(const Team &team, const u8 *keys, Product (&products)[4]) {
    const int group = this_thread() % 32 / 4, quad = this_thread() % 4;
#pragma unroll
    for (int m = 0; m < 4; m++) products[m].start(SMALL ? ROUND_BITS : 0);
#pragma unroll
    for (int c = 0; c < CHUNKS; c++) {
        const uint4 query = *(const uint4 *)&team.queries[operand_head()][c * 64 + quad * 16];
        RowPair rows[4];
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const u8 *low = keys + (m * 16 + group) * ROW + c * 64 + quad * 16;
            rows[m] = RowPair{*(const uint4 *)low, *(const uint4 *)(low + 8 * ROW)};
        }
        multiply_rows(products, rows, query);
    }
}

// Over the eight lanes that hold a head's positions.
__device__ __forceinline__ float largest_of_group(float v) {
#pragma unroll
    for (int other = 4; other < 32; other *= 2) v = fmaxf(v, __shfl_xor_sync(ALL_LANES, v, other));
    return v;
}

// Scores of a head, from sums of products.
__device__ __forceinline__ void score_page(const AttentionArgs &args, const Team &team, const Item &item, const Stage &stage, int page, int column,
                                           const Product (&products)[4], float (&v)[8]) {
    const int group = this_thread() % 32 / 4, head = this_thread() % 4 * COLUMNS + column;
    const float query_scale = team.query_scale[head];
#if ALIBI
    const float slope = args.slopes[item.first_head + min(head, item.heads - 1)];
#endif
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float key_scale = FORMAT == 2 ? stage.key_scales[i * 8 + group] : args.key_scale;
        v[i] = float_of_sum<SMALL>(products[i / 2].sums[i % 2 * 2 + column]) * query_scale * key_scale * args.scale;
        v[i] = capped(args, v[i]);
#if ALIBI
        v[i] = v[i] + slope * (float)(page * PAGE + i * 8 + group);
#endif
    }
    if (page * PAGE >= item.first && page * PAGE + PAGE - 1 <= item.position) return;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const int position = page * PAGE + i * 8 + group;
        if (position < item.first || position > item.position) v[i] = __uint_as_float(0xff800000);
    }
}

// Scores to the weights' codes; leaves the page's reference, sum and scale.
__device__ __forceinline__ void weigh_page(const AttentionArgs &args, Team &team, const Stage &stage, int slot, int column, float (&v)[8]) {
    const int warp = warp_of_team(), group = this_thread() % 32 / 4, head = this_thread() % 4 * COLUMNS + column;
    float max = -LARGEST;
#pragma unroll
    for (int i = 0; i < 8; i++) max = fmaxf(max, v[i]);
    const float reference = ceilf(largest_of_group(max));
    float chain[2] = {0.0f, 0.0f}, heaviest = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float numerator = power_of_two(v[i] - reference);
        chain[i % 2] = chain[i % 2] + numerator;
        v[i] = numerator * (FORMAT == 2 ? stage.value_scales[i * 8 + group] : args.value_scale);
        heaviest = fmaxf(heaviest, v[i]);
    }
    float sum = chain[0] + chain[1];
#pragma unroll
    for (int other = 16; other > 2; other /= 2) sum = sum + __shfl_xor_sync(ALL_LANES, sum, other);
    const Scale scale = usable_scale(__fdiv_rn(largest_of_group(heaviest), 127.0f));
    u8 *weights = &team.weights[warp][head][value_place(group)];
    // None is below zero, and none beyond 127 times the scale by more than roundings.
#pragma unroll
    for (int i = 0; i < 8; i++) weights[value_place(i * 8)] = (u8)__float2int_rn(__fmul_rn(v[i], scale.inverse));
    if (group == 0) {
        team.reference[slot][head] = reference;
        team.sum[slot][head] = sum;
        team.scale[slot][head] = scale.scale;
    }
}

__device__ __forceinline__ void multiply_values(Team &team, const u8 *values, int slot) {
    constexpr int TILES = ROW / 16, TOGETHER = TILES % 4 == 0 ? 4 : TILES % 2 == 0 ? 2 : 1;
    const int warp = warp_of_team(), group = this_thread() % 32 / 4, quad = this_thread() % 4;
    const uint4 weights = *(const uint4 *)&team.weights[warp][operand_head()][quad * 16];
#pragma unroll
    for (int first = 0; first < TILES; first += TOGETHER) {
        Product products[TOGETHER];
        RowPair rows[TOGETHER];
#pragma unroll
        for (int t = 0; t < TOGETHER; t++) {
            const u8 *low = values + ((first + t) * 16 + group) * PAGE + quad * 16;
            rows[t] = RowPair{*(const uint4 *)low, *(const uint4 *)(low + 8 * PAGE)};
            products[t].start(ROUND_BITS);
        }
        multiply_rows(products, rows, weights);
#pragma unroll
        for (int i = 0; i < 4 * TOGETHER; i++) {
            const int column = i % 2, head = quad * COLUMNS + column, row = (first + i / 4) * 16 + i % 4 / 2 * 8 + group;
            if (column < COLUMNS && head < HEADS) team.out[slot][head][row] = float_of_sum<true>(products[i / 4].sums[i % 4]);
        }
    }
}

// This warp's one of `pages` pages of a span, which begin at page number `first` of the item.
__device__ __forceinline__ void attend_page(const AttentionArgs &args, Shared &shared, Team &team, const Item item, int first, int pages) {
    const int slot = warp_of_team();
    if (slot >= pages) return;
    const u32 number = item.number + first + slot, at = number % STAGES;
    Stage &stage = shared.stages[at];
    barrier_wait(shared.full[number % FULLS], number / FULLS);
#if JOINED
    if (item.first_page + first + slot == item.position / PAGE) put_newest(args, team, item, stage, shared.pages[at]);
#endif
    Product products[4];
    multiply_keys(team, stage.keys, products);
#pragma unroll
    for (int column = 0; column < COLUMNS; column++) {
        float v[8];
        score_page(args, team, item, stage, item.first_page + first + slot, column, products, v);
        weigh_page(args, team, stage, slot, column, v);
    }
    __syncwarp();
    multiply_values(team, stage.values, slot);
    __syncwarp();
    if (this_thread() % 32 == 0) barrier_arrive(shared.empty[at]);
}
