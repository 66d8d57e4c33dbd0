// 4-bit weights of experts times few INT8 tokens each: as fast as the weights come from memory.
//
// A CTA takes a strip of 16 rows of one expert's image, all of K, and up to 8 * COLUMNS tokens. Its warps share the blocks of 128 k in turn;
// each keeps some of them in flight, weights in registers and the tokens' codes in its own slots of shared memory, so that nearly all that a
// product of common size reads is asked for at once. The sums of the warps meet in shared memory.
#include "w4a8.cuh"
#include "experts.cuh"

#ifndef COLUMNS
#define COLUMNS 1  // of eight tokens
#endif
#ifndef CTAS
#define CTAS (COLUMNS == 1 ? 6 : 5)  // that should fit a multiprocessor
#endif

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int TOKENS = 8 * COLUMNS;
constexpr int STRIP_ROWS = 16;
constexpr int STRIPS = BLOCK_ROWS / STRIP_ROWS;
constexpr int STEPS = BLOCK_K / 32;
constexpr int SLOT_BYTES = TOKENS * BLOCK_K;
constexpr int COPIES = 2 * COLUMNS;  // of 16 bytes, of a lane and a block
// Blocks of a warp in flight; four scales a block leave registers for one less.
constexpr int MOST_DEPTH = COLUMNS == 1 ? 4 : 3;
template <int GROUPS>
constexpr int DEPTH = GROUPS == 4 ? 3 : MOST_DEPTH;

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

// A warp's part of a strip. A block has GROUPS groups.
template <int GROUPS>
struct Strip {
    static constexpr int BYTES = BLOCK_WEIGHT_BYTES + 2 * BLOCK_ROWS * GROUPS;

    // A lane's nibbles (rows g and g + 8 of the strip) and their groups.
    struct Block {
        uint4 half[2];
        u32 scales[GROUPS];
    };

    const u8 *weights, *scales;         // this lane's, of block 0
    const signed char *codes[COPIES];   // this lane's 16 bytes of block 0, of every fourth token
    int k_blocks, codes_left, tokens_left;
    u32 slots, copy_to, read_from;      // where this lane's copies go, and the rows it reads

    __device__ __forceinline__ Strip(const ExpertArgs &args, const Work &work, int warp, int lane, u32 shared) {
        const int in_block = work.n_part % STRIPS;
        const u8 *block = work.expert.weights + (size_t)(work.n_part / STRIPS) * args.k_parts * BYTES;
        weights = block + in_block * 1024 + lane * 16;
        scales = block + BLOCK_WEIGHT_BYTES + in_block * GROUPS * 32 + lane / 4 * 4;
        k_blocks = args.k_parts;
        codes_left = args.row - lane % 8 * 16;
        tokens_left = work.rows - lane / 8;
        slots = shared + warp * (MOST_DEPTH * SLOT_BYTES);
        // Chunks of 16 bytes of a row change places by the row, so that the eight rows of a load lie in different banks.
        copy_to = lane / 8 * BLOCK_K + (lane % 8 ^ lane / 8) * 16;
        read_from = lane % 8 * BLOCK_K;
    }

    __device__ __forceinline__ void find_tokens(const ExpertArgs &args, const Work &work, int lane) {
#pragma unroll
        for (int i = 0; i < COPIES; i++)
            codes[i] = (const signed char *)args.a + (size_t)work.source(args, lane / 8 + 4 * i) * args.row + lane % 8 * 16;
    }

    __device__ __forceinline__ void fetch_weights(Block &to, int k_block) const {
        if (k_block >= k_blocks) return;
        const u8 *from = weights + (size_t)k_block * BYTES;
        to.half[0] = load_once(from);
        to.half[1] = load_once(from + 512);
#pragma unroll
        for (int sub = 0; sub < GROUPS; sub++) to.scales[sub] = load_groups(scales + (size_t)k_block * BYTES + sub * 32);
    }

    // Every block ends a group, an empty one past the end, so that the count of those under way stays put.
    __device__ __forceinline__ void fetch_codes(int slot, int k_block) const {
        if (k_block < k_blocks) {
#pragma unroll
            for (int i = 0; i < COPIES; i++) {
                const bool inside = 4 * i < tokens_left && k_block * BLOCK_K < codes_left;
                // Rows 4 and more of eight differ from rows 0 to 3 by one bit of what chunks are exchanged by.
                const u32 to = slots + slot * SLOT_BYTES + 4 * i * BLOCK_K + (copy_to ^ i % 2 * 64);
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(inside ? codes[i] + k_block * BLOCK_K : codes[i]),
                             "r"(inside ? 16 : 0)
                             : "memory");
            }
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    __device__ __forceinline__ void multiply(int (&sums)[COLUMNS][4], const Block &block, int slot, int lane) const {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 b[COLUMNS][4];
            const u32 at = slots + slot * SLOT_BYTES + read_from + ((half * 4 + lane / 8) ^ lane % 8) * 16;
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                             : "=r"(b[column][0]), "=r"(b[column][1]), "=r"(b[column][2]), "=r"(b[column][3])
                             : "r"(at + column * 8 * BLOCK_K)
                             : "memory");
            const u32 words[4] = {block.half[half].x, block.half[half].y, block.half[half].z, block.half[half].w};
#pragma unroll
            for (int step = 0; step < 2; step++) {
                const u32 scale = block.scales[(2 * half + step) * GROUPS / STEPS];
                const Group low = group_of(scale, 0), up = group_of(scale, 1);
                const u32 a[4] = {unpack_low(words[2 * step], low), unpack_low(words[2 * step + 1], up), unpack_high(words[2 * step], low),
                                  unpack_high(words[2 * step + 1], up)};
#pragma unroll
                for (int column = 0; column < COLUMNS; column++) multiply_16x8(sums[column], a, b[column][2 * step], b[column][2 * step + 1]);
            }
        }
    }
};

// What the sums of a strip are scaled by, fetched behind the weights and long before they are all there.
struct Scales {
    float s1[STRIP_ROWS], bias[STRIP_ROWS];
    float ta[TOKENS];
    int offset[TOKENS];  // 128 * a_sum

    __device__ __forceinline__ void load(const ExpertArgs &args, const Work &work) {
        const int i = threadIdx.x;
        if (i < STRIP_ROWS) {
            const int row = min(work.n_part * STRIP_ROWS + i, args.n - 1);
            s1[i] = work.expert.s1[row];
            bias[i] = work.bias(row);
        } else if (i >= 32 && i < 32 + TOKENS) {
            const u32 source = work.source(args, i - 32);
            ta[i - 32] = args.ta[source];
            offset[i - 32] = 128 * args.a_sum[source];
        }
    }
};

template <int GROUPS>
__device__ __forceinline__ void add_up(int (&sums)[COLUMNS][4], const ExpertArgs &args, const Work &work, u32 shared, Scales &scales) {
    constexpr int AHEAD = DEPTH<GROUPS>;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    Strip<GROUPS> strip(args, work, warp, lane, shared);
    typename Strip<GROUPS>::Block ring[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) strip.fetch_weights(ring[i], warp + i * WARPS);
    strip.find_tokens(args, work, lane);
#pragma unroll
    for (int i = 0; i < AHEAD; i++) strip.fetch_codes(i, warp + i * WARPS);
    scales.load(args, work);
    for (int start = warp; start < args.k_parts; start += AHEAD * WARPS) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int k_block = start + i * WARPS;
            if (k_block < args.k_parts) {
                asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1) : "memory");
                __syncwarp();
                strip.multiply(sums, ring[i], i, lane);
                __syncwarp();
                strip.fetch_weights(ring[i], k_block + AHEAD * WARPS);
                strip.fetch_codes(i, k_block + AHEAD * WARPS);
            }
        }
    }
}

// The sums of all warps, scaled, to `d` `[rows, n]` of the CTA.
__device__ __forceinline__ void write(float *d, int rows, int left, int n, const int (&sums)[COLUMNS][4], const Scales &scales) {
    __shared__ int parts[WARPS][TOKENS][STRIP_ROWS + 1];
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4 * COLUMNS; i++)
        parts[threadIdx.x / 32][i / 4 * 8 + lane % 4 * 2 + i % 2][lane / 4 + i / 2 % 2 * 8] = sums[i / 4][i % 4];
    __syncthreads();
    const int row = threadIdx.x % STRIP_ROWS;
    if (row >= left) return;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        const int token = threadIdx.x / STRIP_ROWS + 8 * i;
        if (token >= rows) return;
        int sum = -scales.offset[token];
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += parts[warp][token][row];
        d[(size_t)token * n + row] = scaled(sum, scales.ta[token], scales.s1[row], scales.bias[row]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) gemm_experts_w4a8_few(const ExpertArgs args) {
    __shared__ __align__(128) u8 slots[WARPS * MOST_DEPTH * SLOT_BYTES];
    __shared__ Scales scales;
    let_dependents_start();
    wait_for_producers();
    Work work;
    if (!work.find(args, TOKENS)) return;
    const u32 shared = (u32)__cvta_generic_to_shared(slots);
    int sums[COLUMNS][4] = {};
    if (work.expert.groups == 1)
        add_up<1>(sums, args, work, shared, scales);
    else if (work.expert.groups == 2)
        add_up<2>(sums, args, work, shared, scales);
    else
        add_up<4>(sums, args, work, shared, scales);
    const int row = work.n_part * STRIP_ROWS;
    write(args.d + (size_t)work.first * args.n + row, work.rows, args.n - row, args.n, sums, scales);
}
