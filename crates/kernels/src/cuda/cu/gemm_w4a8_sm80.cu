// D[M,N] = A[M,K] * B[N,K]^T for every card from Ampere on: cp.async into a ring of STAGES slots, mma.sync m16n8k32 with the unpacked
// weights (u8 = w8 + 128) as its row operand and tokens as its columns.
//
// A CTA does 128 rows of B times TILE_M tokens with 4 warps along B (32 rows each) and WARPS_M along the tokens. A warp's unpack of
// 16 rows by 32 k serves its TILE_M / WARPS_M / 8 products. Activations lie in rows of 128 bytes whose 16-byte chunks are swizzled.
#include "w4a8.cuh"

#ifndef TILE_M
#define TILE_M 128
#endif
#ifndef WARPS_M
#define WARPS_M 2
#endif
#ifndef STAGES
#define STAGES 3
#endif

constexpr int WARPS_N = 4;
constexpr int TILE_N = 2 * BLOCK_ROWS;
constexpr int THREADS = 32 * WARPS_N * WARPS_M;
constexpr int STRIPS = 2;                          // of 16 rows a warp
constexpr int COLUMNS = TILE_M / WARPS_M / 8;      // of 8 tokens a warp
constexpr int STEPS = BLOCK_K / 32;
constexpr int A_BYTES = TILE_M * BLOCK_K;
constexpr int B_BYTES = 2 * BLOCK_BYTES;
// Dynamic shared memory: STAGES * STAGE_BYTES.
constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
static_assert(COLUMNS % 2 == 0, "ldmatrix takes 8 tokens by 64 k; the epilogue pairs columns");
extern __shared__ __align__(128) u8 ring[];

__device__ __forceinline__ void copy_16(u32 to, const void *from, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copy_stage(const GemmArgs &args, u32 stage, int m, int n, int k_block) {
    for (int i = threadIdx.x; i < TILE_M * 8; i += THREADS) {
        int row = i / 8, chunk = i % 8, k = k_block * BLOCK_K + chunk * 16;
        bool inside = m + row < args.m && k < args.lda;
        copy_16(stage + row * BLOCK_K + (chunk ^ (row % 8)) * 16, args.a + (inside ? (size_t)(m + row) * args.lda + k : 0), inside);
    }
    const int last = (args.n - 1) / BLOCK_ROWS;
    for (int i = threadIdx.x; i < B_BYTES / 16; i += THREADS) {
        int half = i / (BLOCK_BYTES / 16), chunk = i % (BLOCK_BYTES / 16);
        // Rows beyond N repeat the last block; the epilogue drops them.
        size_t block = (size_t)min(n / BLOCK_ROWS + half, last) * args.k_blocks + k_block;
        copy_16(stage + A_BYTES + i * 16, args.b + block * BLOCK_BYTES + chunk * 16, true);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
}

struct Warp {
    int lane, rows, tokens;  // the warp's first row in the 128 and first token in the tile
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

__device__ __forceinline__ void Warp::multiply(u32 stage) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        u32 a[2][STRIPS][4];
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            u32 block = stage + A_BYTES + rows / BLOCK_ROWS * BLOCK_BYTES;
            int in_block = rows % BLOCK_ROWS / 16 + strip;
            uint4 v = load_shared_16(block + ((in_block * 2 + half) * 32 + lane) * 16);
            const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int step = 0; step < 2; step++) {
                int sub = (2 * half + step) * BLOCK_GROUPS / STEPS;
                u32 scale = load_shared_4(block + BLOCK_WEIGHT_BYTES + ((in_block * BLOCK_GROUPS + sub) * 8 + lane / 4) * 4);
                Group low = group_of(scale, 0), up = group_of(scale, 1);
                a[step][strip][0] = unpack_low(words[2 * step], low);
                a[step][strip][1] = unpack_low(words[2 * step + 1], up);
                a[step][strip][2] = unpack_high(words[2 * step], low);
                a[step][strip][3] = unpack_high(words[2 * step + 1], up);
            }
        }
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            int row = tokens + column * 8 + lane % 8, chunk = half * 4 + lane / 8;
            u32 b[4];
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                         : "r"(stage + row * BLOCK_K + (chunk ^ (row % 8)) * 16));
#pragma unroll
            for (int step = 0; step < 2; step++)
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++)
                    multiply_16x8(sums[strip][column], a[step][strip], b[2 * step], b[2 * step + 1]);
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

extern "C" __global__ void __launch_bounds__(THREADS) gemm_w4a8_sm80(const GemmArgs args) {
    const int m_tiles = (args.m + TILE_M - 1) / TILE_M;
    const int m = blockIdx.x % m_tiles * TILE_M, n = blockIdx.x / m_tiles * TILE_N;
    const u32 start = (u32)__cvta_generic_to_shared(ring);
    let_dependents_start();
    wait_for_producers();
    Warp warp;
    warp.lane = threadIdx.x % 32;
    warp.rows = threadIdx.x / 32 % WARPS_N * 32;
    warp.tokens = threadIdx.x / 32 / WARPS_N * (TILE_M / WARPS_M);
#pragma unroll
    for (int i = 0; i < STRIPS * COLUMNS * 4; i++) warp.sums[i / (COLUMNS * 4)][i / 4 % COLUMNS][i % 4] = 0;

    // Every step commits a group, empty past the end, so that the count of pending groups stays put.
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < args.k_blocks)
            copy_stage(args, start + stage * STAGE_BYTES, m, n, stage);
        else
            asm volatile("cp.async.commit_group;" ::: "memory");
    }
    for (int k_block = 0; k_block < args.k_blocks; k_block++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
        __syncthreads();
        int ahead = k_block + STAGES - 1;
        if (ahead < args.k_blocks)
            copy_stage(args, start + ahead % STAGES * STAGE_BYTES, m, n, ahead);
        else
            asm volatile("cp.async.commit_group;" ::: "memory");
        warp.multiply(start + k_block % STAGES * STAGE_BYTES);
    }
    warp.write(args, m, n);
}
