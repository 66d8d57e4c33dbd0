// 4-bit weights of experts times many INT8 tokens each: tiles of 128 rows by TILE_M tokens, through a ring in shared memory.
//
// Four warps take 32 rows each, so that a warp's unpack of 16 rows by 32 k serves all tokens: 12 % faster than eight warps, four by two. Tokens
// are gathered as they are copied: each thread keeps where its rows begin. Codes lie in rows of 128 bytes whose 16-byte chunks are swizzled.
// Where at most half of the tokens are there, half of the products are left out.
#include "w4a8.cuh"
#include "experts.cuh"

#ifndef TILE_M
#define TILE_M 64
#endif
#ifndef STAGES
#define STAGES 4
#endif

constexpr int WARPS_N = 4;
constexpr int STRIPS = 2;  // of 16 rows, of a warp
constexpr int BLOCKS = 2;  // of 64 rows, of a CTA
constexpr int TILE_N = BLOCKS * BLOCK_ROWS;
constexpr int THREADS = 32 * WARPS_N;
constexpr int COLUMNS = TILE_M / 8;  // of 8 tokens
constexpr int STEPS = BLOCK_K / 32;
constexpr int A_BYTES = TILE_M * BLOCK_K;
// Dynamic shared memory: STAGES times, with 4 groups.
template <int GROUPS>
constexpr int STAGE_BYTES = A_BYTES + BLOCKS * (BLOCK_WEIGHT_BYTES + 2 * BLOCK_ROWS * GROUPS);
static_assert(COLUMNS % 4 == 0, "ldmatrix takes 16 tokens by 32 k, and half of the tokens are whole ones");
extern __shared__ __align__(128) u8 ring[];

struct Token {
    float ta;
    int offset;  // 128 * a_sum
};

__device__ __forceinline__ void copy_16(u32 to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

__device__ __forceinline__ void multiply_16x8(int (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// What a thread copies of every slot: 16-byte columns of some tokens, and chunks of the blocks of weights.
template <int GROUPS>
struct Copies {
    static constexpr int BYTES = BLOCK_WEIGHT_BYTES + 2 * BLOCK_ROWS * GROUPS;
    static constexpr int ROWS = THREADS / 8, ROW_COPIES = (TILE_M + ROWS - 1) / ROWS;
    static constexpr int CHUNKS = BYTES / 16, B_COPIES = (BLOCKS * CHUNKS + THREADS - 1) / THREADS;
    const signed char *a[ROW_COPIES];
    const u8 *b;
    size_t block_stride;
    int rows_left, codes_left, last_block;
    u32 a_to;

    __device__ __forceinline__ Copies(const ExpertArgs &args, const Work &work) {
        const int first_row = threadIdx.x / 8, column = threadIdx.x % 8 * 16;
#pragma unroll
        for (int i = 0; i < ROW_COPIES; i++)
            a[i] = (const signed char *)args.a + (size_t)work.source(args, first_row + i * ROWS) * args.row + column;
        rows_left = work.rows - first_row;
        codes_left = args.row - column;
        a_to = first_row * BLOCK_K + (threadIdx.x % 8 ^ first_row % 8) * 16;  // rows go by multiples of eight
        block_stride = (size_t)args.k_parts * BYTES;
        // Rows beyond N repeat the last block; they are not written.
        const int block = work.n_part * BLOCKS;
        last_block = (args.n - 1) / BLOCK_ROWS - block;
        b = work.expert.weights + block * block_stride;
    }

    __device__ __forceinline__ void start(u32 slot, int k_block) const {
        const bool k_inside = k_block * BLOCK_K < codes_left;
#pragma unroll
        for (int i = 0; i < ROW_COPIES; i++) {
            const bool inside = k_inside && i * ROWS < rows_left;
            copy_16(slot + a_to + i * ROWS * BLOCK_K, inside ? a[i] + k_block * BLOCK_K : a[i], inside);
        }
        const u8 *from = b + (size_t)k_block * BYTES;
#pragma unroll
        for (int i = 0; i < B_COPIES; i++) {
            const int at = threadIdx.x + i * THREADS, block = at / CHUNKS, chunk = at % CHUNKS;
            if (at < BLOCKS * CHUNKS) copy_16(slot + A_BYTES + at * 16, from + min(block, last_block) * block_stride + chunk * 16, true);
        }
    }
};

struct Warp {
    int lane, rows;  // the warp's first row in the tile
    int sums[STRIPS][COLUMNS][4];

    // One slot: 128 k of PAIRS * 16 tokens.
    template <int GROUPS, int PAIRS>
    __device__ __forceinline__ void multiply(u32 stage) {
        const u32 block = stage + A_BYTES + rows / BLOCK_ROWS * Copies<GROUPS>::BYTES;
        const int first_strip = rows % BLOCK_ROWS / 16;
        const u32 token_row = stage + (lane / 16 * 8 + lane % 8) * BLOCK_K;
        Group low[STRIPS], up[STRIPS];
        u32 words[STRIPS][4];
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            u32 a[STRIPS][4];
#pragma unroll
            for (int strip = 0; strip < STRIPS; strip++) {
                const int in_block = first_strip + strip;
                if (step % (STEPS / GROUPS) == 0) {
                    const int sub = step * GROUPS / STEPS;
                    const u32 scale = load_shared_4(block + BLOCK_WEIGHT_BYTES + ((in_block * GROUPS + sub) * 8 + lane / 4) * 4);
                    low[strip] = group_of(scale, 0), up[strip] = group_of(scale, 1);
                }
                if (step % 2 == 0) {
                    const uint4 v = load_shared_16(block + ((in_block * 2 + step / 2) * 32 + lane) * 16);
                    words[strip][0] = v.x, words[strip][1] = v.y, words[strip][2] = v.z, words[strip][3] = v.w;
                }
                const u32 first = words[strip][2 * (step % 2)], second = words[strip][2 * (step % 2) + 1];
                a[strip][0] = unpack_low(first, low[strip]);
                a[strip][1] = unpack_low(second, up[strip]);
                a[strip][2] = unpack_high(first, low[strip]);
                a[strip][3] = unpack_high(second, up[strip]);
            }
#pragma unroll
            for (int pair = 0; pair < PAIRS; pair++) {
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

    __device__ __forceinline__ void write(const ExpertArgs &args, const Work &work, const Token *scales) const {
#pragma unroll
        for (int i = 0; i < 2 * STRIPS; i++) {
            const int strip = i / 2, up = i % 2, row = work.n_part * TILE_N + rows + strip * 16 + up * 8 + lane / 4;
            if (row >= args.n) continue;
            const float s1 = work.expert.s1[row], bias = work.bias(row);
#pragma unroll
            for (int at = 0; at < 2 * COLUMNS; at++) {
                const int token = at / 2 * 8 + lane % 4 * 2 + at % 2;
                if (token >= work.rows) continue;
                const int acc = sums[strip][at / 2][up * 2 + at % 2] - scales[token].offset;
                args.d[(size_t)(work.first + token) * args.n + row] = scaled(acc, scales[token].ta, s1, bias);
            }
        }
    }
};

template <int GROUPS>
__device__ __forceinline__ void add_up(Warp &warp, const ExpertArgs &args, const Work &work) {
    const Copies<GROUPS> copies(args, work);
    const u32 start = (u32)__cvta_generic_to_shared(ring), last_slot = start + (STAGES - 1) * STAGE_BYTES<GROUPS>;
    // Every step ends a group, an empty one past the end, so that the count of those under way stays put.
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < args.k_parts) copies.start(start + stage * STAGE_BYTES<GROUPS>, stage);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    u32 slot = start, ahead_slot = last_slot;
#pragma unroll 1
    for (int k_block = 0; k_block < args.k_parts; k_block++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        if (k_block + STAGES - 1 < args.k_parts) copies.start(ahead_slot, k_block + STAGES - 1);
        asm volatile("cp.async.commit_group;" ::: "memory");
        if (work.rows > TILE_M / 2)
            warp.multiply<GROUPS, COLUMNS / 2>(slot);
        else
            warp.multiply<GROUPS, COLUMNS / 4>(slot);
        ahead_slot = slot;
        slot = slot == last_slot ? start : slot + STAGE_BYTES<GROUPS>;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 3) gemm_experts_w4a8_tiled(const ExpertArgs args) {
    __shared__ Token scales[TILE_M];
    let_dependents_start();
    wait_for_producers();
    Work work;
    if (!work.find(args, TILE_M)) return;
    if (threadIdx.x < TILE_M) {
        const u32 source = work.source(args, threadIdx.x);
        scales[threadIdx.x] = Token{args.ta[source], 128 * args.a_sum[source]};
    }
    Warp warp;
    warp.lane = threadIdx.x % 32;
    warp.rows = threadIdx.x / 32 * (16 * STRIPS);
#pragma unroll
    for (int i = 0; i < STRIPS * COLUMNS * 4; i++) warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = 0;
    if (work.expert.groups == 1)
        add_up<1>(warp, args, work);
    else if (work.expert.groups == 2)
        add_up<2>(warp, args, work);
    else
        add_up<4>(warp, args, work);
    __syncthreads();
    warp.write(args, work, scales);
}
