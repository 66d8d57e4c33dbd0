// INT8 weights times many INT8 tokens: tiles of 128 rows by TILE_M tokens, through a ring in shared memory.
//
// Four warps take 64 rows by TILE_M / 2 tokens each. The weights lie as the lanes take them and are copied as they lie; tokens lie in rows of
// 128 k, where every second row has its halves exchanged, so that no two lanes of a load meet in a bank.
#include "async_copy.cuh"
#include "w8a8.cuh"

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef STAGES
#define STAGES 3
#endif

constexpr int THREADS = 128;
constexpr int STRIPS = 4;              // of a warp
constexpr int COLUMNS = TILE_M / 16;   // of eight tokens, of a warp
constexpr int TILE_N = 2 * STRIPS * STRIP_ROWS;
constexpr int CHUNKS = 2;              // of a stage
constexpr int STAGE_K = CHUNKS * CHUNK_K;
constexpr int STRIP_BYTES = CHUNKS * CHUNK_BYTES;
constexpr int W_BYTES = 2 * STRIPS * STRIP_BYTES;
constexpr int STAGE_BYTES = W_BYTES + TILE_M * STAGE_K;  // dynamic shared memory: STAGES times
constexpr int ROWS_APART = THREADS / 8;
static_assert(STRIP_BYTES == 16 * THREADS, "a thread copies 16 bytes of a strip");
extern __shared__ __align__(128) u8 ring[];

struct Copies {
    const u8 *w;           // this thread's bytes of the first strip
    const signed char *a;  // this thread's bytes of its first token
    size_t strip_stride;
    int last_strip, chunks, tokens_left, lda, column;
    u32 a_to;

    __device__ __forceinline__ Copies(const W8Args &args, int m, int n) {
        chunks = args.chunks, lda = args.lda;
        strip_stride = (size_t)chunks * CHUNK_BYTES;
        w = args.w + n / STRIP_ROWS * strip_stride + threadIdx.x * 16;
        // Rows beyond N repeat the last strip; they are not written.
        last_strip = (args.n - 1) / STRIP_ROWS - n / STRIP_ROWS;
        const int token = threadIdx.x / 8;
        column = threadIdx.x % 8 * 16;
        tokens_left = args.m - m - token;
        a = args.a + (size_t)(m + token) * lda + column;
        a_to = W_BYTES + token * STAGE_K + (threadIdx.x % 8 ^ token % 2 * 4) * 16;
    }

    __device__ __forceinline__ void start(const W8Args &args, u32 slot, int stage) const {
        const bool w_inside = stage * CHUNKS + (int)threadIdx.x / 64 < chunks;
        const u8 *from = w_inside ? w + (size_t)stage * STRIP_BYTES : args.w;
#pragma unroll
        for (int i = 0; i < 2 * STRIPS; i++)
            copy_16(slot + i * STRIP_BYTES + threadIdx.x * 16, w_inside ? from + min(i, last_strip) * strip_stride : from, w_inside);
        const bool a_inside = stage * STAGE_K + column < lda;
#pragma unroll
        for (int i = 0; i < TILE_M / ROWS_APART; i++) {
            const bool inside = a_inside && i * ROWS_APART < tokens_left;
            const signed char *token = inside ? a + (size_t)i * ROWS_APART * lda + stage * STAGE_K : args.a;
            copy_16(slot + a_to + i * ROWS_APART * STAGE_K, token, inside);
        }
    }
};

struct Warp {
    int lane, rows, tokens;  // first ones of the warp in the tile
    int sums[STRIPS][COLUMNS][4];

    __device__ __forceinline__ void multiply(u32 slot) {
        const u32 w = slot + rows / STRIP_ROWS * STRIP_BYTES + lane * 16;
        const u32 a = slot + W_BYTES + (tokens + lane / 4) * STAGE_K;
#pragma unroll
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            uint4 codes[COLUMNS];
            const u32 at = a + (chunk * 4 + lane % 4 ^ lane / 4 % 2 * 4) * 16;
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) codes[i] = load_shared_16(at + i * 8 * STAGE_K);
#pragma unroll
            for (int step = 0; step < 2; step++) {
                uint4 weights[STRIPS];
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++)
                    weights[strip] = load_shared_16(w + strip * STRIP_BYTES + chunk * CHUNK_BYTES + step * STEP_BYTES);
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
                    for (int i = 0; i < COLUMNS; i++)
                        multiply_16x8(sums[strip][i], weights[strip], step ? codes[i].z : codes[i].x, step ? codes[i].w : codes[i].y);
            }
        }
    }

    __device__ __forceinline__ void write(const W8Args &args, int m, int n) const {
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++)
#pragma unroll
            for (int up = 0; up < 2; up++) {
                const int row = n + rows + strip * STRIP_ROWS + up * 8 + lane / 4;
                if (row >= args.n) continue;
                const float s1 = args.s1[row], bias = bias_of(args, row);
#pragma unroll
                for (int i = 0; i < 2 * COLUMNS; i++) {
                    const int token = m + tokens + i / 2 * 8 + lane % 4 * 2 + i % 2;
                    if (token < args.m)
                        args.d[(size_t)token * args.n + row] = scaled(sums[strip][i / 2][up * 2 + i % 2], args.ta[token], s1, bias);
                }
            }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 2) gemm_w8a8_tiled(const W8Args args) {
    let_dependents_start();
    wait_for_producers();
    const int m_tiles = (args.m + TILE_M - 1) / TILE_M;
    const int m = blockIdx.x % m_tiles * TILE_M, n = blockIdx.x / m_tiles * TILE_N;
    const int stages = (args.chunks + CHUNKS - 1) / CHUNKS;
    const u32 start = shared_address(ring), last_slot = start + (STAGES - 1) * STAGE_BYTES;
    const Copies copies(args, m, n);
    Warp warp;
    warp.lane = threadIdx.x % 32;
    warp.rows = threadIdx.x / 32 % 2 * (STRIPS * STRIP_ROWS);
    warp.tokens = threadIdx.x / 64 * (TILE_M / 2);
#pragma unroll
    for (int i = 0; i < STRIPS * COLUMNS * 4; i++) warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = 0;

    // Every stage ends a group, an empty one past the end, so that the count of those under way stays put.
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages) copies.start(args, start + stage * STAGE_BYTES, stage);
        end_group();
    }
    u32 slot = start, ahead_slot = last_slot;
#pragma unroll 1
    for (int stage = 0; stage < stages; stage++) {
        wait_for_groups<STAGES - 2>();
        __syncthreads();
        if (stage + STAGES - 1 < stages) copies.start(args, ahead_slot, stage + STAGES - 1);
        end_group();
        warp.multiply(slot);
        ahead_slot = slot;
        slot = slot == last_slot ? start : slot + STAGE_BYTES;
    }
    warp.write(args, m, n);
}
