// gram += x^T x on the lower triangle: every 256 tokens are accumulated from 0 by fused multiply-adds in their order, then added once.
#include "float_rules.cuh"

constexpr u32 THREADS = 256;
constexpr u32 ROWS = 128, COLUMNS = 64;  // of a block's part
constexpr u32 EACH = 8, ACROSS = 4;      // rows and columns of a thread's part
constexpr u32 BLOCK_TOKENS = 256;
constexpr u32 STEP = 16;  // tokens in shared memory

struct GramArgs {
    float *gram;     // [k, k]
    const float *x;  // [tokens, k]
    u32 tokens, k;
};

struct Tiles {
    float rows[STEP][ROWS], columns[STEP][COLUMNS];
};

__shared__ Tiles tiles;

// Copies STEP tokens of `COUNT` columns of x from `column` on.
template <u32 COUNT>
__device__ __forceinline__ void load(const GramArgs &args, u32 token, u32 column, float (&tile)[STEP][COUNT]) {
    const u32 at = column + threadIdx.x % COUNT;
#pragma unroll
    for (u32 load = 0; load < STEP * COUNT / THREADS; load++) {
        const u32 t = load * (THREADS / COUNT) + threadIdx.x / COUNT;
        const bool there = token + t < args.tokens && at < args.k;
        tile[t][threadIdx.x % COUNT] = there ? args.x[(u64)(token + t) * args.k + at] : 0.0f;
    }
}

// A thread's rows are two groups of four, half a tile apart, so that a warp reads shared memory without conflicts.
__device__ __forceinline__ u32 row_of(u32 e) {
    return e / 4 * (ROWS / 2) + threadIdx.x / 16 * 4 + e % 4;
}

__device__ __forceinline__ void add_token(float (&acc)[EACH][ACROSS], u32 t) {
    const float4 low = *(const float4 *)&tiles.rows[t][row_of(0)], high = *(const float4 *)&tiles.rows[t][row_of(4)];
    const float4 four = *(const float4 *)&tiles.columns[t][threadIdx.x % 16 * ACROSS];
    const float row[EACH] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    const float column[ACROSS] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (u32 r = 0; r < EACH; r++)
#pragma unroll
        for (u32 c = 0; c < ACROSS; c++) acc[r][c] = __fmaf_rn(row[r], column[c], acc[r][c]);
}

__device__ __forceinline__ void add_tokens(const GramArgs &args, float (&acc)[EACH][ACROSS], u32 begin, u32 row, u32 column) {
    const u32 end = min(args.tokens, begin + BLOCK_TOKENS);
    for (u32 token = begin; token < end; token += STEP) {
        __syncthreads();
        load(args, token, row, tiles.rows);
        load(args, token, column, tiles.columns);
        __syncthreads();
        if (token + STEP <= end) {
#pragma unroll
            for (u32 t = 0; t < STEP; t++) add_token(acc, t);
        } else {
            // A token of zeros would change the sign of a zero.
#pragma unroll 1
            for (u32 t = 0; token + t < end; t++) add_token(acc, t);
        }
    }
}

__device__ __forceinline__ void add_once(const GramArgs &args, const float (&acc)[EACH][ACROSS], u32 row, u32 column) {
#pragma unroll
    for (u32 r = 0; r < EACH; r++)
#pragma unroll
        for (u32 c = 0; c < ACROSS; c++) {
            const u32 i = row + row_of(r), j = column + threadIdx.x % 16 * ACROSS + c;
            float *sum = args.gram + (u64)i * args.k + j;
            if (i < args.k && j <= i) *sum = __fadd_rn(*sum, acc[r][c]);
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gram(const GramArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u32 row = blockIdx.y * ROWS, column = blockIdx.x * COLUMNS;
    if (column >= row + ROWS) return;
    for (u32 begin = 0; begin < args.tokens; begin += BLOCK_TOKENS) {
        float acc[EACH][ACROSS] = {};
        add_tokens(args, acc, begin, row, column);
        add_once(args, acc, row, column);
    }
}
