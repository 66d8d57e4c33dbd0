// What a CTA of gemm_w4a8_sm90 is: its sizes, its shared memory, the order of its work, and the thread that loads.
#pragma once
#ifndef TILE_M
#define TILE_M 256
#endif
#ifndef WARP_GROUPS
#define WARP_GROUPS 2
#endif
#ifndef SUBTILES
#define SUBTILES 1
#endif
#ifndef STAGES
#define STAGES 5
#endif
#ifndef CLUSTER
#define CLUSTER 1
#endif
#ifndef SPLIT_K
#define SPLIT_K 1
#endif
#ifndef FLOAT_SCALES
#define FLOAT_SCALES 0  // 1: gemm_w4f_sm90
#endif
#include "wgmma.cuh"

constexpr int TILE_N = BLOCK_ROWS * WARP_GROUPS * SUBTILES;
constexpr int THREADS = 128 * (WARP_GROUPS + 1);
constexpr int ACC = TILE_M / 2;
constexpr int STEPS = BLOCK_K / 32;
// A slot of the ring holds K_BLOCKS blocks of k: two where products are short, to wait and count half as often (5 % at 64 tokens, 13 % for
// one warp group at 16). Below 64 tokens more groups keep up with one, and start sooner.
#ifndef K_BLOCKS
#define K_BLOCKS (FLOAT_SCALES || STAGES >= 6 && WARP_GROUPS <= 3 && (TILE_M == 64 || TILE_M < 64 && (WARP_GROUPS == 1 || CLUSTER > 1)) ? 2 : 1)
#endif
constexpr int SLOTS = STAGES / K_BLOCKS;
constexpr int A_BLOCK_BYTES = TILE_M * BLOCK_K;
constexpr int A_BYTES = K_BLOCKS * A_BLOCK_BYTES;
constexpr int B_BYTES = K_BLOCKS * ((WARP_GROUPS * SUBTILES * BLOCK_BYTES + 127) / 128 * 128);
// 16-bit outputs of larger tiles leave through shared memory, CHUNK tokens of a warp group at a time.
constexpr int OUT_TOKENS = TILE_M / SPLIT_K;
constexpr bool STAGED = OUT_TOKENS % 16 == 0 && (OUT == OUT_F16 || OUT == OUT_BF16);
constexpr int CHUNK = OUT_TOKENS % 64 == 0 ? 64 : OUT_TOKENS % 32 == 0 ? 32 : 16;
constexpr int STAGING_BYTES = STAGED ? WARP_GROUPS * CHUNK * 128 : 0;
constexpr int PENDING = 2;  // k steps in flight
// The launch bounds leave each thread 65,536 / THREADS registers; the groups trade within that pool.
constexpr int CONSUMER_REGISTERS = WARP_GROUPS <= 2 ? (TILE_M >= 192 ? 232 : 224) : WARP_GROUPS == 3 ? 152 : WARP_GROUPS == 4 ? 104 : WARP_GROUPS == 5 ? 80 : WARP_GROUPS == 6 ? 72 : 64;
constexpr int PRODUCER_REGISTERS = WARP_GROUPS <= 2 ? (TILE_M >= 192 ? 40 : 56) : WARP_GROUPS == 3 ? 56 : WARP_GROUPS == 4 ? 64 : WARP_GROUPS == 5 ? 80 : WARP_GROUPS == 6 ? 72 : 64;

// What a lane adds up over K.
#if FLOAT_SCALES
typedef float Sum;
#else
typedef int Sum;
#endif

struct Token {
    float ta;
    int offset;  // 128 * a_sum
};

// What a thread fetches for the epilogue of a tile before its main loop hides the loads.
struct Scales {
    float s1[2], bias[2];  // of one subtile
    Token tokens[(OUT_TOKENS + 127) / 128];
};

// Offsets from the 1,024-byte aligned start of dynamic shared memory.
constexpr int B_AT = SLOTS * A_BYTES;
constexpr int STAGING_AT = B_AT + SLOTS * B_BYTES;
// Sums from the other parts: [part][warp group][subtile][four sums][thread].
constexpr int OUT_ACC = ACC / SPLIT_K;
constexpr int SUMS_BYTES = SUBTILES * OUT_ACC * 128 * 4;
constexpr int SUMS_AT = STAGING_AT + STAGING_BYTES;
constexpr int TOKENS_AT = SUMS_AT + (SPLIT_K - 1) * WARP_GROUPS * SUMS_BYTES;
constexpr int FULL_AT = TOKENS_AT + WARP_GROUPS * OUT_TOKENS * (int)sizeof(Token);
constexpr int EMPTY_AT = FULL_AT + 8 * SLOTS;
constexpr int SUMS_FULL_AT = EMPTY_AT + 8 * SLOTS;
constexpr int SUMS_EMPTY_AT = SUMS_FULL_AT + 8 * WARP_GROUPS;
constexpr int LAST_AT = SUMS_EMPTY_AT + 8 * WARP_GROUPS;
static_assert(OUT_ACC % 4 == 0, "parts of K share tokens by eight");
#ifdef SHARED_BYTES
static_assert(LAST_AT + 4 * WARP_GROUPS + 1023 <= SHARED_BYTES, "the host asks for too little shared memory");
#endif
// Dynamic shared memory: LAST_AT + 4 * WARP_GROUPS, and up to 1,023 bytes to align it.

// The place of this CTA in its cluster: neighbouring rows of B, then parts of K.
__device__ __forceinline__ int n_part() {
    return blockIdx.x % CLUSTER;
}

__device__ __forceinline__ int k_part() {
    return blockIdx.x / CLUSTER % SPLIT_K;
}

// Slots that all of K fills; the last may lack a block, whose activations are zeros.
__device__ __forceinline__ int slots_of(const GemmArgs &args) {
    return (args.k_blocks + K_BLOCKS - 1) / K_BLOCKS;
}

// A tile and the part of its K, in slots, that this CTA does.
struct Piece {
    int tile, k_begin, k_end;
};

// The pieces of this CTA (all CTAs of a cluster do the same k at neighbouring rows of B).
struct Schedule {
    const GemmArgs &args;
    int m_tiles, tiles, k_slots, sk_tiles, clusters, cluster, unit, unit_end, next;

    __device__ Schedule(const GemmArgs &args) : args(args) {
        int n_tiles = (args.n + TILE_N * CLUSTER - 1) / (TILE_N * CLUSTER);
        m_tiles = (args.m + TILE_M - 1) / TILE_M;
        tiles = n_tiles * m_tiles;
        k_slots = slots_of(args);
        sk_tiles = args.sk_tiles / CLUSTER;
        clusters = gridDim.x / (CLUSTER * SPLIT_K);
        cluster = blockIdx.x / (CLUSTER * SPLIT_K);
        long long units = (long long)sk_tiles * k_slots;
        unit = (int)(units * cluster / clusters);
        unit_end = (int)(units * (cluster + 1) / clusters);
        next = sk_tiles + cluster;
    }

    __device__ bool step(Piece &piece) {
        if (unit < unit_end) {
            piece.tile = unit / k_slots;
            piece.k_begin = unit - piece.tile * k_slots;
            piece.k_end = min(k_slots, piece.k_begin + unit_end - unit);
            unit += piece.k_end - piece.k_begin;
            return true;
        }
        piece.tile = next;
        piece.k_begin = k_slots * k_part() / SPLIT_K;
        piece.k_end = k_slots * (k_part() + 1) / SPLIT_K;
        next += clusters;
        return piece.tile < tiles;
    }

    // Token tiles go fastest inside groups of raster_m, so that a wave reads few distinct rows of either operand.
    __device__ void locate(int tile, int &m, int &n) const {
        int width = args.raster_m > 0 ? min(args.raster_m, m_tiles) : m_tiles;
        int n_tiles = tiles / m_tiles;
        int group = tile / (width * n_tiles);
        int rest = tile - group * width * n_tiles;
        width = min(width, m_tiles - group * (args.raster_m > 0 ? args.raster_m : m_tiles));
        n = (rest / width * CLUSTER + n_part()) * TILE_N;
        m = (group * args.raster_m + rest % width) * TILE_M;
    }
};

struct Ring {
    u32 slot = 0, phase = 0;

    __device__ __forceinline__ void step() {
        if (++slot == SLOTS) {
            slot = 0;
            phase ^= 1;
        }
    }
};

__device__ __forceinline__ void load_slot(const TensorMap *a_map, const GemmArgs &args, u32 base, u32 slot, int m, int n, int k_slot, u64 a_policy,
                                          u64 b_policy) {
    const u32 full = base + FULL_AT + 8 * slot;
    const u32 k_bytes = min(K_BLOCKS, args.k_blocks - k_slot * K_BLOCKS) * BLOCK_BYTES;
    barrier_expect(full, A_BYTES + WARP_GROUPS * SUBTILES * k_bytes);
    u32 b = base + B_AT + slot * B_BYTES;
    int blocks = (args.n + BLOCK_ROWS - 1) / BLOCK_ROWS;
#pragma unroll
    for (int i = 0; i < WARP_GROUPS * SUBTILES; i++) {
        // Rows beyond N repeat the last block; the epilogue drops them.
        size_t block = (size_t)min(n / BLOCK_ROWS + i, blocks - 1) * args.k_blocks + k_slot * K_BLOCKS;
        copy_bulk(b + i * K_BLOCKS * BLOCK_BYTES, args.b + block * BLOCK_BYTES, k_bytes, full, b_policy);
    }
#pragma unroll
    for (int i = 0; i < K_BLOCKS; i++) {
        u32 a = base + slot * A_BYTES + i * A_BLOCK_BYTES;
        int k = (k_slot * K_BLOCKS + i) * BLOCK_K;
#if CLUSTER > 1
        u16 mask = ((1 << CLUSTER) - 1) << (k_part() * CLUSTER);
        copy_box_multicast(a + n_part() * (A_BLOCK_BYTES / CLUSTER), a_map, k, m + n_part() * (TILE_M / CLUSTER), full, mask, a_policy);
#else
        copy_box(a, a_map, k, m, full, a_policy);
#endif
    }
}

// The pieces of this CTA one after the other, with where the tile of each begins.
struct Pieces {
    Schedule schedule;
    Piece piece;
    bool more;
    int m = 0, n = 0;

    __device__ __forceinline__ Pieces(const GemmArgs &args) : schedule(args) {
        next();
    }

    __device__ __forceinline__ void next() {
        more = schedule.step(piece);
        if (more) schedule.locate(piece.tile, m, n);
    }
};

__device__ void produce(const TensorMap *a_map, const GemmArgs &args, u32 base, Pieces &pieces) {
    Ring ring;
    u64 a_policy = policy_evict_last();
    // Weights that one token tile reads are read once.
    u64 b_policy = args.m <= TILE_M ? policy_evict_first() : policy_evict_normal();
    for (; pieces.more; pieces.next()) {
#pragma unroll 1
        for (int k_slot = pieces.piece.k_begin; k_slot < pieces.piece.k_end; k_slot++) {
            barrier_wait(base + EMPTY_AT + 8 * ring.slot, ring.phase ^ 1);
            load_slot(a_map, args, base, ring.slot, pieces.m, pieces.n, k_slot, a_policy, b_policy);
            ring.step();
        }
    }
}
