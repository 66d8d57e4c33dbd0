// INT8 weights times INT8 tokens on Hopper: tiles of 128 rows by TILE_M tokens. CTAs stay, and a warp fills a ring of stages that goes on
// from tile to tile; two warp groups take 64 rows each, weights from registers, tokens from shared memory.
//
// Weights are copied as they lie (see w8_image.cuh), tokens as w8a8_tokens has laid them.
#define WGMMA_A "s8"
#include "wgmma.cuh"
#include "w8_image.cuh"

#ifndef STAGES
#define STAGES 4
#endif

constexpr int GROUPS = 2;
constexpr int STRIPS = 4 * GROUPS;  // of a tile
constexpr int TILE_N = STRIPS * STRIP_ROWS;
constexpr int THREADS = 128 * (GROUPS + 1);
constexpr int STAGE_K = 2 * CHUNK_K;
constexpr int STRIP_BYTES = 2 * CHUNK_BYTES;  // of a stage
constexpr int A_BYTES = TILE_M * STAGE_K;
constexpr int W_AT = STAGES * A_BYTES;
constexpr int FULL_AT = W_AT + STAGES * STRIPS * STRIP_BYTES;
constexpr int EMPTY_AT = FULL_AT + 8 * STAGES;

// Mirrors `GroupArgs` of the host, by value.
struct GroupArgs {
    W8Args product;    // its tokens are those of w8a8_tokens
    int m_tiles, tiles, stages, rows;  // of tokens, of all, of K; tokens with the zeros behind them
};

extern __shared__ __align__(1024) u8 shared_bytes[];

// Where in the ring.
struct Place {
    int stage;
    u32 phase;

    __device__ __forceinline__ void step() {
        if (++stage == STAGES) stage = 0, phase ^= 1;
    }
};

// By a warp: a lane copies a strip, and the first lane the tokens too.
__device__ __forceinline__ void bring_tiles(const GroupArgs &args, u32 base) {
    const W8Args &product = args.product;
    const int lane = threadIdx.x % 32, last_strip = (product.n - 1) / STRIP_ROWS;
    const size_t strip_stride = (size_t)product.chunks * CHUNK_BYTES;
    const u64 once = policy_evict_first(), again = policy_evict_last();
    Place place{0, 1};
    for (int tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
        const int m = tile % args.m_tiles * TILE_M, first_strip = tile / args.m_tiles * STRIPS;
        // Rows beyond N repeat the last strip; they are not written.
        const u8 *weights = product.w + min(first_strip + lane, last_strip) * strip_stride;
        const u8 *tokens = (const u8 *)product.a + (size_t)m * STAGE_K;
        for (int stage = 0; stage < args.stages; stage++, place.step()) {
            const u32 full = base + FULL_AT + 8 * place.stage;
            // The second chunk of the last stage may be missing: what lies there meets zeros.
            const u32 bytes = min(product.chunks - 2 * stage, 2) * CHUNK_BYTES;
            barrier_wait(base + EMPTY_AT + 8 * place.stage, place.phase);
            if (lane == 0) {
                barrier_expect(full, A_BYTES + STRIPS * bytes);
                copy_bulk(base + place.stage * A_BYTES, tokens + (size_t)stage * args.rows * STAGE_K, A_BYTES, full, again);
            }
            __syncwarp();
            if (lane < STRIPS)
                copy_bulk(base + W_AT + (place.stage * STRIPS + lane) * STRIP_BYTES, weights + (size_t)stage * STRIP_BYTES, bytes, full,
                          args.m_tiles > 1 ? again : once);
        }
    }
}

// A warp group's sums of a tile.
__device__ __forceinline__ void multiply(const GroupArgs &args, u32 base, Place &place, int (&sums)[TILE_M / 2]) {
    const int lane = threadIdx.x % 32, strip = threadIdx.x / 32;
#pragma unroll 1
    for (int stage = 0; stage < args.stages; stage++, place.step()) {
        barrier_wait(base + FULL_AT + 8 * place.stage, place.phase);
        const u32 from = base + W_AT + (place.stage * STRIPS + strip) * STRIP_BYTES + lane * 16;
        const u64 tokens = wgmma_descriptor(base + place.stage * A_BYTES);
        u32 weights[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++) {
            const uint4 v = load_shared_16(from + step * STEP_BYTES);
            weights[step][0] = v.x, weights[step][1] = v.y, weights[step][2] = v.z, weights[step][3] = v.w;
        }
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++) wgmma(sums, weights[step], tokens + step * 2, stage > 0 || step > 0);
        wgmma_commit();
        wgmma_wait<0>();
        if (lane == 0) barrier_arrive(base + EMPTY_AT + 8 * place.stage);
    }
}

__device__ __forceinline__ void write(const W8Args &args, int m, int n, const int (&sums)[TILE_M / 2]) {
    const int lane = threadIdx.x % 32, first_token = m + lane % 4 * 2;
#pragma unroll
    for (int up = 0; up < 2; up++) {
        const int row = n + threadIdx.x / 32 * STRIP_ROWS + up * 8 + lane / 4;
        if (row >= args.n) continue;
        const float s1 = args.s1[row], bias = bias_of(args, row);
#pragma unroll
        for (int i = 0; i < TILE_M / 4; i++) {
            const int token = first_token + i / 2 * 8 + i % 2;
            if (token < args.m) args.d[(size_t)token * args.n + row] = scaled(sums[i / 2 * 4 + up * 2 + i % 2], args.ta[token], s1, bias);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) gemm_w8a8_sm90(const GroupArgs args) {
    const u32 base = shared_address(shared_bytes);
    let_dependents_start();
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(base + FULL_AT + 8 * stage, 1);
            barrier_init(base + EMPTY_AT + 8 * stage, STRIPS);
        }
        fence_barrier_init();
    }
    __syncthreads();
    wait_for_producers();
    if (threadIdx.x >= 128 * GROUPS) {
        registers_give<40>();
        if (threadIdx.x < 128 * GROUPS + 32) bring_tiles(args, base);
        return;
    }
    registers_take<232>();
    Place place{0, 0};
    for (int tile = blockIdx.x; tile < args.tiles; tile += gridDim.x) {
        int sums[TILE_M / 2];
        multiply(args, base, place, sums);
        write(args.product, tile % args.m_tiles * TILE_M, tile / args.m_tiles * TILE_N, sums);
    }
}
