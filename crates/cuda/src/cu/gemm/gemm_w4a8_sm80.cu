// D[M,N] = A[M,K] * B[N,K]^T for every card from Ampere on: cp.async into a ring of STAGES slots, mma.sync m16n8k32 with the unpacked
// weights (u8 = w8 + 128) as its row operand and tokens as its columns.
//
// A CTA does 64 * STRIPS rows of B times TILE_M tokens with 4 warps along B (16 * STRIPS rows each) and WARPS_M along the tokens. A
// warp's unpack of 16 rows by 32 k serves its TILE_M / WARPS_M / 8 products, and what ldmatrix brings of 16 tokens serves STRIPS strips: with
// two, shared memory takes 640 of 820 cycles a block of 128 k, with four 770 of 1,640. Activations lie in rows of 128 bytes whose
// 16-byte chunks are swizzled.
//
// Where tiles are too few for the multiprocessors, several CTAs do a part of K each for every tile: their int32 sums meet in the
// workspace by reductions, exact in any order, and the CTA that comes last writes the tile.
#include "w4a8.cuh"

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef WARPS_M
#define WARPS_M 2
#endif
#ifndef STRIPS
#define STRIPS 2
#endif
#ifndef STAGES
#define STAGES 3
#endif

constexpr int WARPS_N = 4;
constexpr int BLOCKS = STRIPS;  // of 64 rows a CTA
constexpr int TILE_N = BLOCKS * BLOCK_ROWS;
constexpr int THREADS = 32 * WARPS_N * WARPS_M;
constexpr int COLUMNS = TILE_M / WARPS_M / 8;      // of 8 tokens a warp
constexpr int STEPS = BLOCK_K / 32;
constexpr bool CUTS = STRIPS == 2;  // with four strips there are no registers left to meet with
constexpr int A_BYTES = TILE_M * BLOCK_K;
constexpr int B_BYTES = BLOCKS * BLOCK_BYTES;
// Dynamic shared memory: STAGES * STAGE_BYTES.
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
static_assert(COLUMNS % 2 == 0, "ldmatrix takes 16 tokens by 32 k; the epilogue pairs columns");
extern __shared__ __align__(128) u8 ring[];

__device__ __forceinline__ void copy_16(u32 to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

// What a thread copies of every slot: some rows of one 16-byte column of activations, and chunks of the blocks of weights.
struct Copies {
    static constexpr int ROWS = THREADS / 8, ROW_COPIES = (TILE_M + ROWS - 1) / ROWS;
    static constexpr int CHUNKS = BLOCK_BYTES / 16, B_COPIES = (BLOCKS * CHUNKS + THREADS - 1) / THREADS;
    const GemmArgs &args;
    const signed char *a;
    const u8 *b;
    int first_row, rows_left, column, last_block;
    u32 a_to;

    __device__ __forceinline__ Copies(const GemmArgs &args, int m, int n) : args(args) {
        first_row = threadIdx.x / 8;
        column = threadIdx.x % 8 * 16;
        rows_left = args.m - m - first_row;
        a = args.a + (size_t)(m + first_row) * args.lda + column;
        a_to = first_row * BLOCK_K + (threadIdx.x % 8 ^ first_row % 8) * 16;  // rows go by multiples of eight
        // Rows beyond N repeat the last block; the epilogue drops them.
        last_block = (args.n - 1) / BLOCK_ROWS - n / BLOCK_ROWS;
        b = args.b + (size_t)(n / BLOCK_ROWS) * args.k_blocks * BLOCK_BYTES;
    }

    __device__ __forceinline__ void start(u32 slot, int k_block) const {
        const bool k_inside = k_block * BLOCK_K + column < args.lda;
#pragma unroll
        for (int i = 0; i < ROW_COPIES; i++) {
            bool inside = k_inside && i * ROWS < rows_left;
            if (TILE_M % ROWS == 0 || first_row + i * ROWS < TILE_M)
                copy_16(slot + a_to + i * ROWS * BLOCK_K, inside ? a + (size_t)i * ROWS * args.lda + k_block * BLOCK_K : args.a, inside);
        }
        const u8 *from = b + (size_t)k_block * BLOCK_BYTES;
#pragma unroll
        for (int i = 0; i < B_COPIES; i++) {
            int at = threadIdx.x + i * THREADS, block = at / CHUNKS, chunk = at % CHUNKS;
            if (at < BLOCKS * CHUNKS)
                copy_16(slot + A_BYTES + at * 16, from + (size_t)min(block, last_block) * args.k_blocks * BLOCK_BYTES + chunk * 16, true);
        }
        commit();
    }

    __device__ __forceinline__ static void commit() {
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
};

struct Warp {
    int lane, rows, tokens;  // the warp's first row in the tile and first token in the tile
    int sums[STRIPS][COLUMNS][4];

    __device__ __forceinline__ void multiply(u32 stage);
    __device__ __forceinline__ void write(const GemmArgs &args, int m, int n) const;
    __device__ __forceinline__ void write_strip(const GemmArgs &args, int strip, int m, int row) const;
};

__device__ __forceinline__ void multiply_16x8(int (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// One slot: 128 k.
__device__ __forceinline__ void Warp::multiply(u32 stage) {
    const u32 block = stage + A_BYTES + rows / BLOCK_ROWS * BLOCK_BYTES;
    const int first_strip = rows % BLOCK_ROWS / 16;
    const u32 token_row = stage + (tokens + lane / 16 * 8 + lane % 8) * BLOCK_K;
    Group low[STRIPS], up[STRIPS];
    u32 words[STRIPS][4];
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 a[STRIPS][4];
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            const int in_block = first_strip + strip;
            if (step % (STEPS / BLOCK_GROUPS) == 0) {
                int sub = step * BLOCK_GROUPS / STEPS;
                u32 scale = load_shared_4(block + BLOCK_WEIGHT_BYTES + ((in_block * BLOCK_GROUPS + sub) * 8 + lane / 4) * 4);
                low[strip] = group_of(scale, 0), up[strip] = group_of(scale, 1);
            }
            if (step % 2 == 0) {
                uint4 v = load_shared_16(block + ((in_block * 2 + step / 2) * 32 + lane) * 16);
                words[strip][0] = v.x, words[strip][1] = v.y, words[strip][2] = v.z, words[strip][3] = v.w;
            }
            const u32 first = words[strip][2 * (step % 2)], second = words[strip][2 * (step % 2) + 1];
            a[strip][0] = unpack_low(first, low[strip]);
            a[strip][1] = unpack_low(second, up[strip]);
            a[strip][2] = unpack_high(first, low[strip]);
            a[strip][3] = unpack_high(second, up[strip]);
        }
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 2; pair++) {
            u32 b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                         : "r"(token_row + pair * 16 * BLOCK_K + ((step * 2 + lane / 8 % 2) ^ (lane % 8)) * 16));
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++) {
                multiply_16x8(sums[strip][2 * pair], a[strip], b[0], b[1]);
                multiply_16x8(sums[strip][2 * pair + 1], a[strip], b[2], b[3]);
            }
        }
    }
}

__device__ __forceinline__ u32 transposed(u32 matrix) {
    u32 v;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(v) : "r"(matrix));
    return v;
}

// 16 rows of B (a lane's are row + lane / 4 and 8 more) for all tokens of the warp.
__device__ __forceinline__ void Warp::write_strip(const GemmArgs &args, int strip, int m, int row) const {
    float s1[2], bias[2];
#pragma unroll
    for (int up = 0; up < 2; up++) {
        int at = min(row + up * 8 + lane / 4, args.n - 1);
        s1[up] = args.s1[at];
        bias[up] = args.bias ? args.bias[at] : -0.0f;
    }
    const bool wide = (OUT == OUT_F16 || OUT == OUT_BF16) && args.ldd % 2 == 0 && (u64)args.d % 4 == 0 && row + 16 <= args.n;
#pragma unroll
    for (int column = 0; column < COLUMNS; column++) {
        int token = m + column * 8 + lane % 4 * 2;
        float ta[2];
        int acc[4];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            int at = min(token + e, args.m - 1);
            ta[e] = args.ta[at];
            int offset = 128 * args.a_sum[at];
            acc[e] = sums[strip][column][e] - offset;
            acc[2 + e] = sums[strip][column][2 + e] - offset;
        }
        if (wide) {
            // Lanes hold two tokens of a row; transposed, two rows of a token.
            int to = m + column * 8 + lane / 4;
#pragma unroll
            for (int up = 0; up < 2; up++) {
                u32 pair = transposed(pack_half(scaled(acc[2 * up], ta[0], s1[up], bias[up]), scaled(acc[2 * up + 1], ta[1], s1[up], bias[up])));
                if (to < args.m) *(u32 *)((u16 *)args.d + (size_t)to * args.ldd + row + up * 8 + lane % 4 * 2) = pair;
            }
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int at = row + i / 2 * 8 + lane / 4;
                if (token + i % 2 < args.m && at < args.n) store_one(args, token + i % 2, at, acc[i], ta[i % 2], s1[i / 2], bias[i / 2]);
            }
        }
    }
}

__device__ __forceinline__ void Warp::write(const GemmArgs &args, int m, int n) const {
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) write_strip(args, strip, m + tokens, n + rows + strip * 16);
}

// Adds this CTA's sums to the tile's in the workspace; true for the last of `parts`, which then holds all of them. The workspace is zero
// again afterwards.
__device__ __forceinline__ bool meet(const GemmArgs &args, Warp &warp, int tile, int tiles, int parts) {
    __shared__ int last;
    int *sums = (int *)args.workspace + (size_t)tile * (TILE_M * TILE_N) + threadIdx.x;
    int *count = (int *)args.workspace + (size_t)tiles * (TILE_M * TILE_N) + tile;
    constexpr int OWN = STRIPS * COLUMNS * 4;
#pragma unroll
    for (int i = 0; i < OWN; i++) atomicAdd(sums + i * THREADS, warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4]);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(count, 1) == parts - 1;
        if (last) *count = 0;
        __threadfence();
    }
    __syncthreads();
    if (!last) return false;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = __ldcg(sums + i * THREADS);
        sums[i * THREADS] = 0;
    }
    return true;
}

extern "C" __global__ void __launch_bounds__(THREADS, STRIPS == 2 && COLUMNS < 8 ? 2 : 1) gemm_w4a8_sm80(const GemmArgs args) {
    const int m_tiles = (args.m + TILE_M - 1) / TILE_M;
    const int tiles = m_tiles * ((args.n + TILE_N - 1) / TILE_N), tile = blockIdx.x % tiles;
    const int parts = CUTS ? gridDim.x / tiles : 1, part = blockIdx.x / tiles;
    const int k_begin = (int)((long long)args.k_blocks * part / parts), k_end = (int)((long long)args.k_blocks * (part + 1) / parts);
    const int m = tile % m_tiles * TILE_M, n = tile / m_tiles * TILE_N;
    const u32 start = (u32)__cvta_generic_to_shared(ring);
    let_dependents_start();
    wait_for_producers();
    const Copies copies(args, m, n);
    Warp warp;
    warp.lane = threadIdx.x % 32;
    warp.rows = threadIdx.x / 32 % WARPS_N * (16 * STRIPS);
    warp.tokens = threadIdx.x / 32 / WARPS_N * (TILE_M / WARPS_M);
#pragma unroll
    for (int i = 0; i < STRIPS * COLUMNS * 4; i++) warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = 0;

    // Every step commits a group, empty past the end, so that the count of pending groups stays put.
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (k_begin + stage < k_end)
            copies.start(start + stage * STAGE_BYTES, k_begin + stage);
        else
            Copies::commit();
    }
    u32 slot = start, ahead_slot = start + (STAGES - 1) * STAGE_BYTES;
#pragma unroll 1
    for (int k_block = k_begin; k_block < k_end; k_block++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        int ahead = k_block + STAGES - 1;
        if (ahead < k_end)
            copies.start(ahead_slot, ahead);
        else
            Copies::commit();
        warp.multiply(slot);
        ahead_slot = slot;
        slot = slot == start + (STAGES - 1) * STAGE_BYTES ? start : slot + STAGE_BYTES;
    }
    if (!CUTS || parts == 1 || meet(args, warp, tile, tiles, parts)) warp.write(args, m, n);
}
