// Tiles of a prompt: their shared memory, scores, weights and outputs (see attention_prompt.cu).
#pragma once
#include "attention_stage.cuh"

// What is seldom asked for of the rows: registers hold the outputs.
struct Rows {
    float query_scale[ROWS];
    float plain_factor[ROWS];  // see attention_plain.cuh
    int last[ROWS];  // position it sees up to
    float whole_reference[ROWS], whole_sum[ROWS];
};

struct Shared {
    Stage stage[2];
    Rows rows;
    float total[WARPS][TILES * 4][32];  // before that a warp's queries, where they stay in registers
#if HEAD_DIM > 128
    u8 queries[WARPS][16][KEY_ROW];
#endif
};

extern __shared__ __align__(16) u8 shared_bytes[];

struct Tile {
    int token, position, count;  // the first token, its position, tokens
    int kv_head;
    const u32 *pages;
};

__device__ __forceinline__ void load_matrices(u32 (&v)[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(shared_address(row)));
}

// A maximum to the scale of 127 codes. Away from the ends of the range quotient and inverse come from one step of Newton's, which rounds
// correctly there.
__device__ __forceinline__ Scale scale_of(float max) {
    if (!(max > 1e-30f && max < 1e30f)) return usable_scale(__fdiv_rn(max, 127.0f));
    const float inverse_127 = 0.007874016f;
    float scale = max * inverse_127;
    scale = __fmaf_rn(__fmaf_rn(-127.0f, scale, max), inverse_127, scale);
    float inverse;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(scale));
    inverse = __fmaf_rn(inverse, -__fmaf_rn(scale, inverse, -1.0f), inverse);
    return Scale{scale, inverse};
}

// Over the four lanes that hold a row.
__device__ __forceinline__ float largest_of_row(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// What a thread holds of one of its two rows: the span.
struct RowState {
    float reference, sum;
};

// The first of the thread's rows; the other is eight further on.
__device__ __forceinline__ int first_row() {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
}

// Token of the tile, or a negative number for rows that have none.
__device__ __forceinline__ int token_of_row(const Tile &tile, int row) {
    const int token = row / GROUP;
    return token < TILE_TOKENS && token < tile.count ? token : -1;
}

// A warp's 16 queries in the places of the first operand: in registers, or in shared memory where heads are long.
struct Queries {
#if HEAD_DIM > 128
    const u8 *codes;
#else
    u32 v[STEPS][4];
#endif
};

__device__ __forceinline__ void load_query(u32 (&query)[4], const Queries &queries, int s) {
#if HEAD_DIM > 128
    load_matrices(query, queries.codes + s * 32);
#else
#pragma unroll
    for (int i = 0; i < 4; i++) query[i] = queries.v[s][i];
#endif
}

// A warp's queries to codes, and their scales.
__device__ __forceinline__ void prepare_queries(const AttentionArgs &args, u8 *codes, const Tile &tile, Queries &queries, Rows &rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float mine = 0.0f;
#pragma unroll 2
    for (int i = 0; i < 16; i++) {
        const int row = warp * 16 + i, token = token_of_row(tile, row);
        const float *q = args.x + (size_t)(tile.token + token) * args.x_row + (tile.kv_head * GROUP + row % GROUP) * HEAD_DIM;
        float v[STEPS], max = 0.0f;
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            v[s] = token >= 0 && s * 32 + lane < HEAD_DIM ? q[s * 32 + lane] : 0.0f;
            max = fmaxf(max, fabsf(v[s]));
        }
#pragma unroll
        for (int other = 16; other > 0; other /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, other));
        const Scale scale = usable_scale(__fdiv_rn(max, 127.0f));
#pragma unroll
        for (int s = 0; s < STEPS; s++) codes[i * KEY_ROW + s * 32 + lane] = (u8)code_of(v[s], scale.inverse);
        mine = lane == i ? scale.scale : mine;
    }
    __syncwarp();
    codes += lane % 16 * KEY_ROW + lane / 16 * 16;
#if HEAD_DIM > 128
    queries.codes = codes;
#else
#pragma unroll
    for (int s = 0; s < STEPS; s++) load_matrices(queries.v[s], codes + s * 32);
#endif
    if (lane < 16) rows.query_scale[warp * 16 + lane] = mine;
    __syncwarp();
}

// Sums of products of 16 queries and 64 keys.
__device__ __forceinline__ void multiply_keys(const Stage &stage, const Queries &queries, int (&sums)[8][4]) {
    const int lane = threadIdx.x % 32;
    const u8 *row = &stage.keys[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 16];
#pragma unroll
    for (int t = 0; t < 8; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[t][i] = SMALL ? ROUND_BITS : 0;
    }
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        u32 query[4];
        load_query(query, queries, s);
#pragma unroll
        for (int t = 0; t < 8; t += 2) {
            u32 keys[4];
            load_matrices(keys, row + t * 8 * KEY_ROW + s * 32);
            multiply_codes(sums[t], query, keys[0], keys[1], sums[t]);
            multiply_codes(sums[t + 1], query, keys[2], keys[3], sums[t + 1]);
        }
    }
}

// Scores of the thread's positions: [8 positions][row * 2 + position % 2].
__device__ __forceinline__ void score_page(const AttentionArgs &args, const Stage &stage, const Rows &rows, int page, int (&sums)[8][4],
                                           float (&v)[8][4], const float (&slopes)[2]) {
    const int quad = threadIdx.x % 4;
    const float query_scales[2] = {rows.query_scale[first_row()], rows.query_scale[first_row() + 8]};
#pragma unroll
    for (int t = 0; t < 8; t++) {
        const float2 key_scales =
            FORMAT == 2 ? *(const float2 *)&stage.key_scales[t * 8 + quad * 2] : make_float2(args.key_scale, args.key_scale);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[t][i] = float_of_sum<SMALL>(sums[t][i]) * query_scales[i / 2] * (i % 2 ? key_scales.y : key_scales.x) * args.scale;
#if ALIBI
            v[t][i] = v[t][i] + slopes[i / 2] * (float)(page * PAGE + t * 8 + quad * 2 + i % 2);
#endif
        }
    }
}

__device__ __forceinline__ void hide_unseen(const Rows &rows, int window, int page, float (&v)[8][4]) {
    const int first = page * PAGE + threadIdx.x % 4 * 2;
    const int last[2] = {rows.last[first_row()], rows.last[first_row() + 8]};
    const int seen[2] = {first_seen(last[0], window), first_seen(last[1], window)};
#pragma unroll
    for (int t = 0; t < 8; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int position = first + t * 8 + i % 2;
            if (position < seen[i / 2] || position > last[i / 2]) v[t][i] = __uint_as_float(0xff800000);
        }
    }
}

// How a page joins a row's span.
struct PageJoin {
    float before, factor;
};

// A row's scores to the bits of floats whose low bytes are its weights' codes.
__device__ __forceinline__ PageJoin weigh_row(const AttentionArgs &args, const Stage &stage, RowState &row, float (&v)[8][4], int first) {
    const int quad = threadIdx.x % 4;
    float max = -LARGEST;
#pragma unroll
    for (int t = 0; t < 8; t++) max = fmaxf(fmaxf(max, v[t][first]), v[t][first + 1]);
    const float reference = ceilf(largest_of_row(max));
    float chain[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}}, heaviest = 0.0f;
#pragma unroll
    for (int t = 0; t < 8; t++) {
        const float2 value_scales =
            FORMAT == 2 ? *(const float2 *)&stage.value_scales[t * 8 + quad * 2] : make_float2(args.value_scale, args.value_scale);
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const float numerator = power_of_two(v[t][first + c] - reference);
            chain[t % 2][c] = chain[t % 2][c] + numerator;
            v[t][first + c] = numerator * (c ? value_scales.y : value_scales.x);
            heaviest = fmaxf(heaviest, v[t][first + c]);
        }
    }
    float sums[2];
#pragma unroll
    for (int c = 0; c < 2; c++) {
        sums[c] = chain[0][c] + chain[1][c];
        sums[c] = sums[c] + __shfl_xor_sync(0xffffffffu, sums[c], 2);
        sums[c] = sums[c] + __shfl_xor_sync(0xffffffffu, sums[c], 1);
    }
    const Scale scale = scale_of(largest_of_row(heaviest));
#pragma unroll
    for (int t = 0; t < 8; t++) {
#pragma unroll
        for (int c = 0; c < 2; c++) v[t][first + c] = v[t][first + c] * scale.inverse + ROUND;
    }
    const Join join = join_of(row.reference, reference);
    row.sum = __fmaf_rn(sums[0] + sums[1], join.added, row.sum * join.before);
    row.reference = join.reference;
    return PageJoin{join.before, scale.scale * join.added};
}

__device__ __forceinline__ u32 low_bytes(float a, float b, float c, float d) {
    const u32 low = __byte_perm(__float_as_uint(a), __float_as_uint(b), 0x0040);
    const u32 high = __byte_perm(__float_as_uint(c), __float_as_uint(d), 0x0040);
    return __byte_perm(low, high, 0x5410);
}

__device__ __forceinline__ void pack_weights(const float (&v)[8][4], u32 (&weights)[2][4]) {
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int t = s * 4 + i / 2 * 2, c = i % 2 * 2;
            weights[s][i] = low_bytes(v[t][c], v[t][c + 1], v[t + 1][c], v[t + 1][c + 1]);
        }
    }
}

// The span's outputs, brought to the new reference, plus weights times values.
__device__ __forceinline__ void multiply_values(const Stage &stage, const u32 (&weights)[2][4], const PageJoin (&joins)[2], float (&out)[TILES][4]) {
    const int lane = threadIdx.x % 32;
    const u8 *row = &stage.values[lane % 8][lane / 8 * 16];
    if (!__all_sync(0xffffffffu, joins[0].before == 1.0f && joins[1].before == 1.0f)) {
#pragma unroll
        for (int i = 0; i < TILES * 4; i++) out[i / 4][i % 4] = out[i / 4][i % 4] * joins[i / 2 % 2].before;
    }
    const int round[4] = {ROUND_BITS, ROUND_BITS, ROUND_BITS, ROUND_BITS};
    constexpr int BATCH = TILES % 4 == 0 ? 4 : 2;  // products in flight
    u32 values[BATCH][4];
#pragma unroll
    for (int i = 0; i < BATCH; i++) load_matrices(values[i], row + i * 8 * VALUE_ROW);
#pragma unroll
    for (int t = 0; t < TILES; t += BATCH) {
        int sums[BATCH][4];
        // Not all of them at once: registers hold the outputs.
        if (t > 0) __syncwarp();
#pragma unroll
        for (int i = 0; i < BATCH; i++) multiply_codes(sums[i], weights[0], values[i][0], values[i][1], round);
#pragma unroll
        for (int i = 0; i < BATCH; i++) multiply_codes(sums[i], weights[1], values[i][2], values[i][3], sums[i]);
#pragma unroll
        for (int i = 0; i < BATCH && t + BATCH < TILES; i++) load_matrices(values[i], row + (t + BATCH + i) * 8 * VALUE_ROW);
#pragma unroll
        for (int i = 0; i < BATCH * 4; i++) {
            float &o = out[t + i / 4][i % 4];
            o = __fmaf_rn(float_of_sum<true>(sums[i / 4][i % 4]), joins[i / 2 % 2].factor, o);
        }
    }
}

// A page by the rules.
__device__ __forceinline__ void take_page(const AttentionArgs &args, const Stage &stage, const Queries &queries, const Rows &kept, RowState (&rows)[2],
                                          int page, bool whole, const float (&slopes)[2], float (&out)[TILES][4]) {
    int sums[8][4];
    float v[8][4];
    u32 weights[2][4];
    multiply_keys(stage, queries, sums);
    score_page(args, stage, kept, page, sums, v, slopes);
    if (!whole) hide_unseen(kept, args.window, page, v);
    PageJoin joins[2];
    joins[0] = weigh_row(args, stage, rows[0], v, 0);
    joins[1] = weigh_row(args, stage, rows[1], v, 2);
    pack_weights(v, weights);
    multiply_values(stage, weights, joins, out);
}

// The span joins the whole, and the next one begins.
__device__ __forceinline__ void join_span(float (&total)[TILES * 4][32], Rows &kept, RowState (&rows)[2], float (&out)[TILES][4]) {
    const int lane = threadIdx.x % 32;
    Join joins[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first_row() + r * 8;
        joins[r] = join_of(kept.whole_reference[row], rows[r].reference);
        const float sum = __fmaf_rn(rows[r].sum, joins[r].added, kept.whole_sum[row] * joins[r].before);
        __syncwarp();  // four lanes read what they all write
        kept.whole_sum[row] = sum;
        kept.whole_reference[row] = joins[r].reference;
        rows[r].reference = -LARGEST;
        rows[r].sum = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) {
        // Not all of them at once: registers hold the outputs.
        if (i % 8 == 0) __syncwarp();
        float &whole = total[i][lane];
        whole = __fmaf_rn(out[i / 4][i % 4], joins[i / 2 % 2].added, whole * joins[i / 2 % 2].before);
        out[i / 4][i % 4] = 0.0f;
    }
}

__device__ __forceinline__ void write_rows(const AttentionArgs &args, const Tile &tile, const float (&total)[TILES * 4][32], const Rows &rows) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8, token = token_of_row(tile, row);
        if (token < 0) continue;
        const float inverse = __fdiv_rn(1.0f, rows.whole_sum[row]);
        float *out = args.out + ((size_t)(tile.token + token) * args.kv_heads * GROUP + tile.kv_head * GROUP + row % GROUP) * HEAD_DIM;
#pragma unroll
        for (int i = 0; i < TILES * 2; i++) {
            const int d = i / 2 * 8 + quad * 2 + i % 2;
            if (d < HEAD_DIM) out[d] = total[i / 2 * 4 + r * 2 + i % 2][lane] * inverse + 0.0f;
        }
    }
}

// The tile of this CTA: the longest contexts first.
__device__ __forceinline__ Tile find_tile(const AttentionArgs &args) {
    const StepHead step = step_head(args.step);
    const u32 at = gridDim.x - 1 - blockIdx.x;
    u32 left = at / args.kv_heads;
    Tile tile{0, 0, 0, (int)(at % args.kv_heads), args.step};
    for (u32 r = 0; r < step.runs; r++) {
        const Run run = run_of(args.step, step.first_run, r);
        const u32 end = r + 1 < step.runs ? run_of(args.step, step.first_run, r + 1).tokens_before : step.run_tokens;
        const u32 count = end - run.tokens_before, tiles = (count + TILE_TOKENS - 1) / TILE_TOKENS;
        if (left < tiles) {
            const u32 first = left * TILE_TOKENS;
            tile.token = run.token + first;
            tile.position = run.position + first;
            tile.count = min((int)(count - first), TILE_TOKENS);
            tile.pages = args.step + run.table;
            return tile;
        }
        left -= tiles;
    }
    return tile;
}
