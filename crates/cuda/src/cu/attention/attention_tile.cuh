// Tiles of a prompt: their shared memory, scores, weights and outputs (see attention_prompt.cu).
#pragma once
#include "attention_stage.cuh"
#include "attention_plain.cuh"

struct Shared {
    Stage stage[2];
    Rows rows;
    float total[WARPS][TILES * 4][32];  // before that a warp's queries, where they stay in registers
#if HEAD_DIM > 128
    u8 queries[WARPS][16][KEY_ROW];
#endif
};

extern __shared__ __align__(16) u8 shared_bytes[];

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

// The same that begin where floats are normal (see attention_plain.cuh).
__device__ __forceinline__ void multiply_keys_from_seam(const Stage &stage, const Queries &queries, int (&sums)[8][4]) {
    const int lane = threadIdx.x % 32;
    const u8 *row = &stage.keys[lane / 16 * 8 + lane % 8][lane / 8 % 2 * 16];
    const int seam[4] = {SEAM_BITS, SEAM_BITS, SEAM_BITS, SEAM_BITS};
#pragma unroll
    for (int t = 0; t < 8; t += 2) {
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            u32 query[4], keys[4];
            load_query(query, queries, s);
            load_matrices(keys, row + t * 8 * KEY_ROW + s * 32);
            if (s == 0) {
                multiply_codes(sums[t], query, keys[0], keys[1], seam);
                multiply_codes(sums[t + 1], query, keys[2], keys[3], seam);
            } else {
                multiply_codes(sums[t], query, keys[0], keys[1], sums[t]);
                multiply_codes(sums[t + 1], query, keys[2], keys[3], sums[t + 1]);
            }
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

// A page whose scores lie near each other. False: nothing has changed, the page goes by the rules.
__device__ __forceinline__ bool take_plain_page(const AttentionArgs &args, const Stage &stage, const Queries &queries, const Rows &kept,
                                                RowState (&rows)[2], float (&out)[TILES][4]) {
    int sums[8][4];
    u32 weights[2][4];
    PageJoin joins[2];
    multiply_keys_from_seam(stage, queries, sums);
    if (!weigh_plain_page<false>(threadIdx.x, args, stage.scales(), kept, SEAM, sums, rows, weights, joins)) return false;
    multiply_values(stage, weights, joins, out);
    return true;
}

// A page by the rules.
__device__ __forceinline__ void take_page(const AttentionArgs &args, const Stage &stage, const Queries &queries, const Rows &kept, RowState (&rows)[2],
                                          int page, bool whole, const float (&slopes)[2], float (&out)[TILES][4]) {
    int sums[8][4];
    float v[8][4];
    u32 weights[2][4];
    multiply_keys(stage, queries, sums);
    score_page(args, stage.scales(), kept, page, sums, v, slopes);
    if (!whole) hide_unseen(kept, args.window, page, v);
    PageJoin joins[2];
    joins[0] = weigh_row(args, stage.scales(), rows[0], v, 0);
    joins[1] = weigh_row(args, stage.scales(), rows[1], v, 2);
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
        const Whole whole = with_sink(args, tile.kv_head * GROUP + row % GROUP, rows.whole_reference[row], rows.whole_sum[row]);
        const float inverse = __fdiv_rn(1.0f, whole.sum);
        float *out = args.out + ((size_t)(tile.token + token) * args.kv_heads * GROUP + tile.kv_head * GROUP + row % GROUP) * HEAD_DIM;
#pragma unroll
        for (int i = 0; i < TILES * 2; i++) {
            const int d = i / 2 * 8 + quad * 2 + i % 2;
            if (d < HEAD_DIM) out[d] = total[i / 2 * 4 + r * 2 + i % 2][lane] * whole.before * inverse + 0.0f;
        }
    }
}
