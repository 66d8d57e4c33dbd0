// Rows of a prompt's tile: which token each belongs to, scores of a page and weights by the rules, and how pages join (see attention_prompt.cu
// and attention_prompt_sm90.cu). A warp holds 16 rows, a thread two of them, and of each the positions of a product's operand.
//
// The file before this one says how many WARPS attend.
#pragma once
#include "attention.cuh"

constexpr int ROWS = WARPS * 16;
constexpr int TILE_TOKENS = ROWS / GROUP;
constexpr int TILES = ROW / 8;  // of eight elements of the output
constexpr bool SMALL = small_sums<ROW>();

// What is seldom asked for of the rows: registers hold the outputs.
struct Rows {
    float query_scale[ROWS];
    float plain_factor[ROWS];  // see attention_plain.cuh
    int last[ROWS];  // position it sees up to
    float whole_reference[ROWS], whole_sum[ROWS];
};

// Scales of a page's keys and values, in shared memory.
struct PageScales {
    const float *keys, *values;
};

struct Tile {
    int token, position, count;  // the first token, its position, tokens
    int kv_head;
    const u32 *pages;
};

__device__ __forceinline__ u32 shared_address(const void *p) {
    return (u32)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void copy_ahead(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void load_matrices(u32 (&v)[4], const u8 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(shared_address(row)));
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

// Looked up again and again where it is seldom needed: what follows from it shall not stay in registers.
__device__ __forceinline__ u32 thread_again() {
    u32 thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// The first of the thread's rows; the other is eight further on.
__device__ __forceinline__ int first_row() {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
}

// Token of the tile, or a negative number for rows that have none.
__device__ __forceinline__ int token_of_row(const Tile &tile, int row) {
    const int token = row / GROUP;
    return token < TILE_TOKENS && token < tile.count ? token : -1;
}

// Scores of the thread's positions: [8 positions][row * 2 + position % 2].
__device__ __forceinline__ void score_page(const AttentionArgs &args, const PageScales &scales, const Rows &rows, int page, int (&sums)[8][4],
                                           float (&v)[8][4], const float (&slopes)[2]) {
    const int quad = threadIdx.x % 4;
    const float query_scales[2] = {rows.query_scale[first_row()], rows.query_scale[first_row() + 8]};
#pragma unroll
    for (int t = 0; t < 8; t++) {
        const float2 key_scales =
            FORMAT == 2 ? *(const float2 *)(scales.keys + t * 8 + quad * 2) : make_float2(args.key_scale, args.key_scale);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[t][i] = float_of_sum<SMALL>(sums[t][i]) * query_scales[i / 2] * (i % 2 ? key_scales.y : key_scales.x) * args.scale;
            v[t][i] = capped(args, v[t][i]);
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
__device__ __forceinline__ PageJoin weigh_row(const AttentionArgs &args, const PageScales &scales, RowState &row, float (&v)[8][4], int first) {
    const int quad = threadIdx.x % 4;
    float max = -LARGEST;
#pragma unroll
    for (int t = 0; t < 8; t++) max = fmaxf(fmaxf(max, v[t][first]), v[t][first + 1]);
    const float reference = ceilf(largest_of_row(max));
    float chain[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}}, heaviest = 0.0f;
#pragma unroll
    for (int t = 0; t < 8; t++) {
        const float2 value_scales =
            FORMAT == 2 ? *(const float2 *)(scales.values + t * 8 + quad * 2) : make_float2(args.value_scale, args.value_scale);
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

// Tiles are counted with their key/value heads.
__device__ __forceinline__ Tile tile_at(const AttentionArgs &args, u32 at) {
    const StepHead step = step_head(args.step);
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

// The tile of this CTA: the longest contexts first.
__device__ __forceinline__ Tile find_tile(const AttentionArgs &args) {
    return tile_at(args, gridDim.x - 1 - blockIdx.x);
}
