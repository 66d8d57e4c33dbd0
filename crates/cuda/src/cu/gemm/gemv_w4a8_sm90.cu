// D[M,N] = A[M,K] * B[N,K]^T for at most TILE_M <= 16 tokens, where the bytes of B decide: every weight is read once, 16 bytes a lane,
// straight into registers.
//
// A strip is 16 rows of B over all of K, so a strip needs no other CTA and 132 multiprocessors share even small layers evenly. The
// WARPS warps of a CTA take the 128-k blocks of a strip in turn and keep DEPTH blocks each in flight, across strips. A is copied to
// shared memory once (each warp copies the k it will read); the int32 sums of the warps meet in shared memory at the end of a strip.
// Weights are the row operand of mma m16n8k32 (u8 = w8 + 128), tokens its eight columns; columns past TILE_M repeat the last token.
#include "w4a8.cuh"

#ifndef TILE_M
#define TILE_M 1
#endif
#ifndef WARPS
#define WARPS 16
#endif
#ifndef DEPTH
#define DEPTH 2
#endif
#ifndef CTAS
#define CTAS 2  // CTAs that should fit a multiprocessor
#endif

constexpr int STRIP_ROWS = 16;
constexpr int STRIPS = BLOCK_ROWS / STRIP_ROWS;
constexpr int COLUMNS = (TILE_M + 7) / 8;  // of eight tokens
constexpr int STEPS = BLOCK_K / 32;
constexpr int SUMS = STRIP_ROWS * TILE_M;  // a strip's outputs
// Dynamic shared memory: TILE_M rows of A, each k_blocks * 128 + 16 bytes. (The 16 keep eight rows in different banks.)
extern __shared__ __align__(16) u8 shared_a[];

// One 128-k block of a strip: a lane's nibbles (rows g and g + 8) and their groups.
struct Weights {
    uint4 half[2];
    u32 scales[BLOCK_GROUPS];
};

__device__ __forceinline__ uint4 load_weights(const u8 *from, u64 policy) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from), "l"(policy));
    return v;
}

__device__ __forceinline__ u32 load_scales(const u8 *from) {
    u32 v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}

// Walks the blocks of one warp: k blocks warp, warp + WARPS, ... of strip after strip.
struct Walk {
    int strip, k_block;

    __device__ __forceinline__ bool step(const GemmArgs &args, int warp) {
        k_block += WARPS;
        if (k_block < args.k_blocks) return false;
        k_block = warp;
        strip += gridDim.x;
        return true;
    }
};

__device__ __forceinline__ void load(Weights &weights, const GemmArgs &args, const Walk &walk, int strips, int lane, u64 policy) {
    if (walk.strip >= strips || walk.k_block >= args.k_blocks) return;
    const u8 *block = args.b + ((size_t)(walk.strip / STRIPS) * args.k_blocks + walk.k_block) * BLOCK_BYTES;
    int in_block = walk.strip % STRIPS;
    weights.half[0] = load_weights(block + in_block * 1024 + lane * 16, policy);
    weights.half[1] = load_weights(block + in_block * 1024 + 512 + lane * 16, policy);
#pragma unroll
    for (int sub = 0; sub < BLOCK_GROUPS; sub++)
        weights.scales[sub] = load_scales(block + BLOCK_WEIGHT_BYTES + ((in_block * BLOCK_GROUPS + sub) * 8 + lane / 4) * 4);
}

// The k of A that this warp reads, rows past M and k past the row as zeros.
__device__ __forceinline__ void copy_tokens(const GemmArgs &args, u32 shared, int pitch, int warp, int lane) {
    for (int k_block = warp; k_block < args.k_blocks; k_block += WARPS)
#pragma unroll
        for (int i = lane; i < TILE_M * 8; i += 32) {
            int token = i / 8, k = k_block * BLOCK_K + i % 8 * 16;
            bool inside = token < args.m && k < args.lda;
            const signed char *from = args.a + (inside ? (size_t)token * args.lda + k : 0);
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared + token * pitch + k), "l"(from), "r"(inside ? 16 : 0) : "memory");
        }
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
}

__device__ __forceinline__ void multiply(int (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void multiply_block(int (&sums)[COLUMNS][4], const Weights &weights, u32 tokens, int pitch) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 b[COLUMNS][4];
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[column][0]), "=r"(b[column][1]), "=r"(b[column][2]), "=r"(b[column][3])
                         : "r"(tokens + column * 8 * pitch + half * 64));
        const u32 words[4] = {weights.half[half].x, weights.half[half].y, weights.half[half].z, weights.half[half].w};
#pragma unroll
        for (int step = 0; step < 2; step++) {
            u32 scale = weights.scales[(2 * half + step) * BLOCK_GROUPS / STEPS];
            Group low = group_of(scale, 0), up = group_of(scale, 1);
            u32 a[4] = {unpack_low(words[2 * step], low), unpack_low(words[2 * step + 1], up), unpack_high(words[2 * step], low),
                        unpack_high(words[2 * step + 1], up)};
#pragma unroll
            for (int column = 0; column < COLUMNS; column++) multiply(sums[column], a, b[column][2 * step], b[column][2 * step + 1]);
        }
    }
}

// Hands the warp's sums over, [token][row], and starts anew.
__device__ __forceinline__ void hand_over(int (&sums)[COLUMNS][4], int *to, int lane) {
#pragma unroll
    for (int column = 0; column < COLUMNS; column++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int token = column * 8 + lane % 4 * 2 + i % 2;
            if (token < TILE_M) to[token * STRIP_ROWS + i / 2 * 8 + lane / 4] = sums[column][i];
            sums[column][i] = 0;
        }
}

// The writing threads start at `first`, which moves on: no warp pays for every strip's loads.
__device__ __forceinline__ void write(const GemmArgs &args, const int *from, int strip, int first) {
    for (int i = (threadIdx.x - first) % (WARPS * 32u); i < SUMS; i += WARPS * 32) {
        int token = i / STRIP_ROWS, row = strip * STRIP_ROWS + i % STRIP_ROWS;
        if (token >= args.m || row >= args.n) continue;
        int acc = -128 * args.a_sum[token];
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) acc += from[warp * SUMS + i];
        store_one(args, token, row, acc, args.ta[token], args.s1[row], args.bias ? args.bias[row] : -0.0f);
    }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, CTAS) gemv_w4a8_sm90(const GemmArgs args) {
    __shared__ int handed[2][WARPS * SUMS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int strips = (args.n + STRIP_ROWS - 1) / STRIP_ROWS, pitch = args.k_blocks * BLOCK_K + 16;
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));

    let_dependents_start();
    Walk ahead{(int)blockIdx.x, warp}, here = ahead;
    Weights ring[DEPTH];
#pragma unroll
    for (int i = 0; i < DEPTH; i++) {
        load(ring[i], args, ahead, strips, lane, policy);
        ahead.step(args, warp);
    }
    wait_for_producers();
    const u32 shared = (u32)__cvta_generic_to_shared(shared_a);
    copy_tokens(args, shared, pitch, warp, lane);
    // ldmatrix takes a row address of each lane: token lane % 8, k 16 * (lane / 8).
    const u32 tokens = shared + min(lane % 8, TILE_M - 1) * pitch + lane / 8 * 16;

    int sums[COLUMNS][4] = {};
    int parity = 0, first = 0;
    while (here.strip < strips) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            if (here.strip >= strips) break;
            const int strip = here.strip;
            if (here.k_block < args.k_blocks) multiply_block(sums, ring[i], tokens + here.k_block * BLOCK_K, pitch);
            load(ring[i], args, ahead, strips, lane, policy);
            ahead.step(args, warp);
            if (!here.step(args, warp)) continue;
            hand_over(sums, handed[parity] + warp * SUMS, lane);
            __syncthreads();
            write(args, handed[parity], strip, first);
            parity ^= 1;
            first += (SUMS + 31) / 32 * 32;
        }
    }
}
