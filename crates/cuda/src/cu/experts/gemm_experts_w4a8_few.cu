// 4-bit weights of experts times few INT8 tokens each: as fast as the weights come from memory.
//
// A CTA takes 16, 32 or 64 rows of one expert's image and up to 8 * COLUMNS tokens, whose codes it copies to shared memory once. A strip of 16
// rows belongs to 1, 2 or 4 of its warps, which take the blocks of 128 k in turn, so that each has about as many as it keeps in flight and
// nearly all that a product of common size reads is asked for at once. Sums of a strip's warps meet in shared memory.
#include "w4a8.cuh"
#include "experts.cuh"

#ifndef COLUMNS
#define COLUMNS 1  // of eight tokens
#endif

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int CTAS = COLUMNS == 1 ? 6 : 5;  // that should fit a multiprocessor
constexpr int TOKENS = 8 * COLUMNS;
constexpr int STRIP_ROWS = 16;
constexpr int MOST_ROWS = WARPS * STRIP_ROWS;
constexpr int STRIPS = BLOCK_ROWS / STRIP_ROWS;
constexpr int STEPS = BLOCK_K / 32;
constexpr u32 ALL_LANES = 0xffffffffu;
// Blocks of a warp in flight; four scales a block leave registers for one less.
template <int GROUPS>
constexpr int DEPTH = GROUPS == 4 || COLUMNS > 1 ? 3 : 4;
// Dynamic shared memory: TOKENS rows of codes, each k_parts * 128 + 16 bytes. (The 16 keep eight rows in different banks.)
extern __shared__ __align__(16) u8 shared_codes[];

typedef int Sums[COLUMNS][4];

__device__ __forceinline__ uint4 load_once(const u8 *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

__device__ __forceinline__ u32 load_groups(const u8 *from) {
    u32 v;
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
    return v;
}

__device__ __forceinline__ void multiply_16x8(int (&sum)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The codes of all tokens of the CTA; `own` is what row a lane's token reads.
__device__ __forceinline__ void copy_codes(const ExpertArgs &args, const Work &work, u32 own, u32 shared, int pitch) {
    for (int row = 0; row < work.rows; row++) {
        const signed char *from = (const signed char *)args.a + (size_t)__shfl_sync(ALL_LANES, own, row) * args.row;
        for (int k = threadIdx.x * 16; k < args.k_parts * BLOCK_K; k += THREADS * 16) {
            const bool inside = k < args.row;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared + row * pitch + k), "l"(inside ? from + k : from),
                         "r"(inside ? 16 : 0)
                         : "memory");
        }
    }
}

// A warp's part of a strip. A block has GROUPS groups.
template <int GROUPS>
struct Strip {
    static constexpr int BYTES = BLOCK_WEIGHT_BYTES + 2 * BLOCK_ROWS * GROUPS;

    // A lane's nibbles (rows g and g + 8 of the strip) and their groups.
    struct Block {
        uint4 half[2];
        u32 scales[GROUPS];
    };

    const u8 *weights;  // this lane's, of block 0
    int scales_at, k_blocks;
    u32 codes[COLUMNS];  // the rows that this lane reads

    __device__ __forceinline__ Strip(const ExpertArgs &args, const Work &work, int strip, int lane, u32 shared, int pitch) {
        // Strips beyond N repeat the last one; they are not written.
        strip = min(strip, (args.n - 1) / STRIP_ROWS);
        const int in_block = strip % STRIPS;
        weights = work.expert.weights + (size_t)(strip / STRIPS) * args.k_parts * BYTES + in_block * 1024 + lane * 16;
        scales_at = BLOCK_WEIGHT_BYTES + in_block * (GROUPS * 32 - 1024) + lane / 4 * 4 - lane * 16;
        k_blocks = args.k_parts;
        // ldmatrix takes a row address of each lane: token lane % 8, k 16 * (lane / 8). Tokens behind the last one repeat it.
#pragma unroll
        for (int column = 0; column < COLUMNS; column++)
            codes[column] = shared + min(column * 8 + lane % 8, work.rows - 1) * pitch + lane / 8 * 16;
    }

    __device__ __forceinline__ void fetch(Block &to, int k_block) const {
        if (k_block >= k_blocks) return;
        const u8 *from = weights + (size_t)k_block * BYTES;
        to.half[0] = load_once(from);
        to.half[1] = load_once(from + 512);
#pragma unroll
        for (int sub = 0; sub < GROUPS; sub++) to.scales[sub] = load_groups(from + scales_at + sub * 32);
    }

    __device__ __forceinline__ void multiply(Sums &sums, const Block &block, int k_block) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 b[COLUMNS][4];
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(b[column][0]), "=r"(b[column][1]), "=r"(b[column][2]), "=r"(b[column][3])
                             : "r"(codes[column] + k_block * BLOCK_K + half * 64));
            const u32 words[4] = {block.half[half].x, block.half[half].y, block.half[half].z, block.half[half].w};
#pragma unroll
            for (int step = 0; step < 2; step++) {
                const u32 scale = block.scales[(2 * half + step) * GROUPS / STEPS];
                const Group low = group_of(scale, 0), up = group_of(scale, 1);
                const u32 a[4] = {unpack_low(words[2 * step], low), unpack_low(words[2 * step + 1], up), unpack_high(words[2 * step], low),
                                  unpack_high(words[2 * step + 1], up)};
#pragma unroll
                for (int column = 0; column < COLUMNS; column++)
                    multiply_16x8(sums[column], a, b[column][2 * step], b[column][2 * step + 1]);
            }
        }
    }
};

// What the sums are scaled by.
struct Scales {
    float s1[MOST_ROWS], bias[MOST_ROWS];
    float ta[TOKENS];
    int offset[TOKENS];  // 128 * a_sum
};

// A thread's part of it, asked for early and stored behind the products: it comes after the weights that were asked for before.
struct OwnScales {
    float first = 0.0f, second = 0.0f;

    __device__ __forceinline__ void load_tokens(const ExpertArgs &args, u32 own) {
        if (threadIdx.x / 32 != WARPS - 1) return;
        first = args.ta[own];
        second = __int_as_float(128 * args.a_sum[own]);
    }

    __device__ __forceinline__ void load_rows(const ExpertArgs &args, const Work &work, int rows) {
        if (threadIdx.x >= rows) return;
        const int row = min(work.n_part * rows + (int)threadIdx.x, args.n - 1);
        first = work.expert.s1[row];
        second = work.bias(row);
    }

    __device__ __forceinline__ void store(Scales &to, int rows) const {
        const int token = threadIdx.x - 32 * (WARPS - 1);
        if (threadIdx.x < rows) to.s1[threadIdx.x] = first, to.bias[threadIdx.x] = second;
        if (token >= 0 && token < TOKENS) to.ta[token] = first, to.offset[token] = __float_as_int(second);
    }
};
static_assert(MOST_ROWS <= 32 * (WARPS - 1), "rows and tokens have threads of their own");

template <int GROUPS>
__device__ __forceinline__ void add_up(Sums &sums, const ExpertArgs &args, const Work &work, u32 own, OwnScales &scales) {
    constexpr int AHEAD = DEPTH<GROUPS>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, apart = 1 << args.shares, first = warp % apart;
    const int pitch = args.k_parts * BLOCK_K + 16;
    const u32 shared = (u32)__cvta_generic_to_shared(shared_codes);
    const Strip<GROUPS> strip(args, work, (work.n_part * WARPS + warp) >> args.shares, lane, shared, pitch);
    typename Strip<GROUPS>::Block ring[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) strip.fetch(ring[i], first + i * apart);
    copy_codes(args, work, own, shared, pitch);
    scales.load_tokens(args, own);
    scales.load_rows(args, work, MOST_ROWS >> args.shares);
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
#pragma unroll 1
    for (int start = first; start < args.k_parts; start += AHEAD * apart) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int k_block = start + i * apart;
            if (k_block >= args.k_parts) break;
            strip.multiply(sums, ring[i], k_block);
            strip.fetch(ring[i], k_block + AHEAD * apart);
        }
    }
}

// The sums of all warps, scaled, to `d` `[tokens, n]` of the CTA, of which `left` rows are left.
__device__ __forceinline__ void write(float *d, int tokens, int left, const ExpertArgs &args, const Sums &sums, const OwnScales &own) {
    __shared__ int parts[WARPS][TOKENS][STRIP_ROWS + 1];
    __shared__ Scales scales;
    own.store(scales, MOST_ROWS >> args.shares);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4 * COLUMNS; i++)
        parts[threadIdx.x / 32][i / 4 * 8 + lane % 4 * 2 + i % 2][lane / 4 + i / 2 % 2 * 8] = sums[i / 4][i % 4];
    __syncthreads();
    const int rows_bits = 6 - args.shares;  // 64, 32 or 16 rows
    for (int i = threadIdx.x; i < tokens << rows_bits; i += THREADS) {
        const int token = i >> rows_bits, row = i & ((1 << rows_bits) - 1), first = row / STRIP_ROWS << args.shares;
        if (row >= left) continue;
        int sum = -scales.offset[token];
        for (int share = 0; share < 1 << args.shares; share++) sum += parts[first + share][token][row % STRIP_ROWS];
        d[(size_t)token * args.n + row] = scaled(sum, scales.ta[token], scales.s1[row], scales.bias[row]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) gemm_experts_w4a8_few(const ExpertArgs args) {
    let_dependents_start();
    wait_for_producers();
    Work work;
    if (!work.find_rows(args, TOKENS)) return;
    // On its way with the expert's place, before the weights, whose codes wait for it.
    const u32 own = work.source(args, threadIdx.x % 32);
    if (!work.find_expert(args)) return;
    Sums sums = {};
    OwnScales scales;
    if (work.expert.groups == 1)
        add_up<1>(sums, args, work, own, scales);
    else if (work.expert.groups == 2)
        add_up<2>(sums, args, work, own, scales);
    else
        add_up<4>(sums, args, work, own, scales);
    const int row = work.n_part * (MOST_ROWS >> args.shares);
    write(args.d + (size_t)work.first * args.n + row, work.rows, args.n - row, args, sums, scales);
}
