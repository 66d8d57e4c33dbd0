// D[M,N] = A[M,K] * B[N,K]^T on Hopper: D^T = B * A^T, so that the 4-bit weights are wgmma's register operand.
//
// A CTA owns TILE_N = 64 * WARP_GROUPS * SUBTILES rows of B times TILE_M tokens. A producer thread fills a ring of STAGES slots, each
// 128 k: activations by TMA (multicast to the CLUSTER CTAs that share the tokens), packed weights by one bulk copy a 64-row block.
// A consumer warp group reads its 16 bytes a lane, spends 2.5 instructions on four weights and issues wgmma straight from the
// registers; a k step's unpack runs under the products of the two steps before it. Unpacked weights touch no memory.
//
// SPLIT_K > 1: as many CTAs of a cluster do a part of K each and pass int32 sums through distributed shared memory; each writes its
// share of the tokens. No workspace.
// Otherwise: the first sk_tiles tiles are cut into equal K ranges over all CTAs (their int32 parts meet in the workspace by reductions,
// which are exact in any order; the CTA that completes a tile writes it), the other tiles go whole, round robin.
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
#include "wgmma.cuh"

constexpr int TILE_N = BLOCK_ROWS * WARP_GROUPS * SUBTILES;
constexpr int THREADS = 128 * (WARP_GROUPS + 1);
constexpr int ACC = TILE_M / 2;
constexpr int STEPS = BLOCK_K / 32;
constexpr int A_BYTES = TILE_M * BLOCK_K;
constexpr int B_BYTES = (WARP_GROUPS * SUBTILES * BLOCK_BYTES + 127) / 128 * 128;
constexpr int STAGE_BYTES = A_BYTES + WARP_GROUPS * SUBTILES * BLOCK_BYTES;
// 16-bit outputs of larger tiles leave through shared memory, CHUNK tokens of a warp group at a time.
constexpr int OUT_TOKENS = TILE_M / SPLIT_K;
constexpr bool STAGED = OUT_TOKENS % 16 == 0 && (OUT == OUT_F16 || OUT == OUT_BF16);
constexpr int CHUNK = OUT_TOKENS % 64 == 0 ? 64 : OUT_TOKENS % 32 == 0 ? 32 : 16;
constexpr int STAGING_BYTES = STAGED ? WARP_GROUPS * CHUNK * 128 : 0;
constexpr int PENDING = 2;
// The launch bounds leave each thread 65,536 / THREADS registers; the groups trade within that pool.
constexpr int CONSUMER_REGISTERS = WARP_GROUPS <= 2 ? 224 : WARP_GROUPS == 3 ? 152 : WARP_GROUPS == 4 ? 104 : WARP_GROUPS == 5 ? 80 : 64;
constexpr int PRODUCER_REGISTERS = WARP_GROUPS <= 2 ? 56 : WARP_GROUPS == 3 ? 56 : WARP_GROUPS == 4 ? 64 : WARP_GROUPS == 5 ? 80 : 64;

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
constexpr int B_AT = STAGES * A_BYTES;
constexpr int STAGING_AT = B_AT + STAGES * B_BYTES;
// Sums from the SPLIT_K - 1 other parts: [part][warp group][subtile][four sums][thread].
constexpr int OUT_ACC = ACC / SPLIT_K;
constexpr int SUMS_BYTES = SUBTILES * OUT_ACC * 128 * 4;
constexpr int SUMS_AT = STAGING_AT + STAGING_BYTES;
constexpr int TOKENS_AT = SUMS_AT + (SPLIT_K - 1) * WARP_GROUPS * SUMS_BYTES;
constexpr int FULL_AT = TOKENS_AT + WARP_GROUPS * TILE_M * (int)sizeof(Token);
constexpr int EMPTY_AT = FULL_AT + 8 * STAGES;
constexpr int SUMS_FULL_AT = EMPTY_AT + 8 * STAGES;
constexpr int SUMS_EMPTY_AT = SUMS_FULL_AT + 8 * WARP_GROUPS;
constexpr int LAST_AT = SUMS_EMPTY_AT + 8 * WARP_GROUPS;
static_assert(OUT_ACC % 4 == 0, "parts of K share tokens by eight");
// Dynamic shared memory: LAST_AT + 4 * WARP_GROUPS, and up to 1,023 bytes to align it.

// The place of this CTA in its cluster: neighbouring rows of B, then parts of K.
__device__ __forceinline__ int n_part() {
    return blockIdx.x % CLUSTER;
}

__device__ __forceinline__ int k_part() {
    return blockIdx.x / CLUSTER % SPLIT_K;
}

// A tile and the part of its K blocks that this CTA does.
struct Piece {
    int tile, k_begin, k_end;
};

// The pieces of this CTA (all CTAs of a cluster do the same k at neighbouring rows of B).
struct Schedule {
    const GemmArgs &args;
    int m_tiles, tiles, sk_tiles, clusters, cluster, unit, unit_end, next;

    __device__ Schedule(const GemmArgs &args) : args(args) {
        int n_tiles = (args.n + TILE_N * CLUSTER - 1) / (TILE_N * CLUSTER);
        m_tiles = (args.m + TILE_M - 1) / TILE_M;
        tiles = n_tiles * m_tiles;
        sk_tiles = args.sk_tiles / CLUSTER;
        clusters = gridDim.x / (CLUSTER * SPLIT_K);
        cluster = blockIdx.x / (CLUSTER * SPLIT_K);
        long long units = (long long)sk_tiles * args.k_blocks;
        unit = (int)(units * cluster / clusters);
        unit_end = (int)(units * (cluster + 1) / clusters);
        next = sk_tiles + cluster;
    }

    __device__ bool step(Piece &piece) {
        if (unit < unit_end) {
            piece.tile = unit / args.k_blocks;
            piece.k_begin = unit - piece.tile * args.k_blocks;
            piece.k_end = min(args.k_blocks, piece.k_begin + unit_end - unit);
            unit += piece.k_end - piece.k_begin;
            return true;
        }
        piece.tile = next;
        piece.k_begin = args.k_blocks * k_part() / SPLIT_K;
        piece.k_end = args.k_blocks * (k_part() + 1) / SPLIT_K;
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
    u32 stage = 0, phase = 0;

    __device__ void step() {
        if (++stage == STAGES) {
            stage = 0;
            phase ^= 1;
        }
    }
};

__device__ __forceinline__ void load_stage(const TensorMap *a_map, const GemmArgs &args, u32 base, u32 stage, int m, int n, int k_block,
                                           u64 a_policy, u64 b_policy) {
    u32 full = base + FULL_AT + 8 * stage;
    barrier_expect(full, STAGE_BYTES);
    u32 b = base + B_AT + stage * B_BYTES;
    int blocks = (args.n + BLOCK_ROWS - 1) / BLOCK_ROWS;
#pragma unroll
    for (int i = 0; i < WARP_GROUPS * SUBTILES; i++) {
        // Rows beyond N repeat the last block; the epilogue drops them.
        size_t block = (size_t)min(n / BLOCK_ROWS + i, blocks - 1) * args.k_blocks + k_block;
        copy_bulk(b + i * BLOCK_BYTES, args.b + block * BLOCK_BYTES, BLOCK_BYTES, full, b_policy);
    }
    u32 a = base + stage * A_BYTES;
#if CLUSTER > 1
    u16 mask = ((1 << CLUSTER) - 1) << (k_part() * CLUSTER);
    copy_box_multicast(a + n_part() * (A_BYTES / CLUSTER), a_map, k_block * BLOCK_K, m + n_part() * (TILE_M / CLUSTER), full, mask, a_policy);
#else
    copy_box(a, a_map, k_block * BLOCK_K, m, full, a_policy);
#endif
}

__device__ void produce(const TensorMap *a_map, const GemmArgs &args, u32 base) {
    Schedule schedule(args);
    Ring ring;
    Piece piece;
    u64 a_policy = policy_evict_last();
    // Weights that one token tile reads are read once.
    u64 b_policy = args.m <= TILE_M ? policy_evict_first() : policy_evict_normal();
    while (schedule.step(piece)) {
        int m, n;
        schedule.locate(piece.tile, m, n);
#pragma unroll 1
        for (int k_block = piece.k_begin; k_block < piece.k_end; k_block++) {
            barrier_wait(base + EMPTY_AT + 8 * ring.stage, ring.phase ^ 1);
            load_stage(a_map, args, base, ring.stage, m, n, k_block, a_policy, b_policy);
            ring.step();
        }
    }
}

__device__ __forceinline__ uint4 load_shared_16(u32 address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

__device__ __forceinline__ u32 load_shared_4(u32 address) {
    u32 v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}

// One 64-row block's part of a lane: nibbles of 16 rows (2 a lane) by 128 k and their groups.
struct Fragment {
    u32 words[2 * STEPS];
    u32 scales[BLOCK_GROUPS];

    __device__ __forceinline__ void load(u32 block, int warp, int lane) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint4 v = load_shared_16(block + ((warp * 2 + half) * 32 + lane) * 16);
            words[4 * half] = v.x;
            words[4 * half + 1] = v.y;
            words[4 * half + 2] = v.z;
            words[4 * half + 3] = v.w;
        }
#pragma unroll
        for (int sub = 0; sub < BLOCK_GROUPS; sub++)
            scales[sub] = load_shared_4(block + BLOCK_WEIGHT_BYTES + ((warp * BLOCK_GROUPS + sub) * 8 + lane / 4) * 4);
    }

    __device__ __forceinline__ void unpack(int step, u32 (&a)[4]) const {
        u32 scale = scales[step * BLOCK_GROUPS / STEPS];
        Group low = group_of(scale, 0), up = group_of(scale, 1);
        a[0] = unpack_low(words[2 * step], low);
        a[1] = unpack_low(words[2 * step + 1], up);
        a[2] = unpack_high(words[2 * step], low);
        a[3] = unpack_high(words[2 * step + 1], up);
    }
};

__device__ __forceinline__ void release(u32 base, u32 stage, int lane) {
    u32 empty = base + EMPTY_AT + 8 * stage;
#if CLUSTER > 1
    if (lane < CLUSTER) barrier_arrive(empty, k_part() * CLUSTER + lane);
#else
    if (lane == 0) barrier_arrive(empty);
#endif
}

struct Consumer {
    const GemmArgs &args;
    u32 base;
    int group, warp, lane;
    Ring ring;
    int acc[SUBTILES][ACC];
    u32 a[STEPS][SUBTILES][4];

    __device__ __forceinline__ Consumer(const GemmArgs &args, u32 base)
        : args(args), base(base), group(threadIdx.x / 128), warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32) {}

    __device__ __forceinline__ void multiply(int k_count) {
        u32 previous = 0;
        if (k_count == 0) {
#pragma unroll
            for (int i = 0; i < SUBTILES * ACC; i++) acc[i / ACC][i % ACC] = 0;
        }
#pragma unroll 1
        for (int i = 0; i < k_count; i++) {
            barrier_wait(base + FULL_AT + 8 * ring.stage, ring.phase);
            Fragment fragment[SUBTILES];
#pragma unroll
            for (int sub = 0; sub < SUBTILES; sub++)
                fragment[sub].load(base + B_AT + ring.stage * B_BYTES + (group * SUBTILES + sub) * BLOCK_BYTES, warp, lane);
            u64 tokens = wgmma_descriptor(base + ring.stage * A_BYTES);
#pragma unroll
            for (int step = 0; step < STEPS; step++) {
#pragma unroll
                for (int sub = 0; sub < SUBTILES; sub++) fragment[sub].unpack(step, a[step][sub]);
                wgmma_fence();
#pragma unroll
                for (int sub = 0; sub < SUBTILES; sub++) wgmma(acc[sub], a[step][sub], tokens + 2 * step, i > 0 || step > 0);
                wgmma_commit();
                wgmma_wait<PENDING>();
                if (step == PENDING - 1 && i > 0) release(base, previous, lane);
            }
            previous = ring.stage;
            ring.step();
        }
        wgmma_wait<0>();
        if (k_count > 0) release(base, previous, lane);
    }

    __device__ __forceinline__ Token *tokens() const;
    __device__ __forceinline__ void load_tokens(Scales &scales, int m) const;
    __device__ __forceinline__ void load_rows(Scales &scales, int n) const;
    __device__ __forceinline__ void share_tokens(const Scales &scales) const;
    __device__ __forceinline__ bool reduce(int sk_tile, int k_count, int m_valid);
    __device__ __forceinline__ void exchange(int tile_idx);
    __device__ __forceinline__ void write_staged(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]);
    __device__ __forceinline__ void write_direct(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]);
    __device__ void run();
};

extern __shared__ u8 shared_bytes[];

__device__ __forceinline__ u8 *shared_at(u32 offset) {
    u32 start = shared_address(shared_bytes);
    return shared_bytes + ((start + 1023) / 1024 * 1024 - start) + offset;
}

__device__ __forceinline__ Token *Consumer::tokens() const {
    return (Token *)shared_at(TOKENS_AT) + group * TILE_M;
}

__device__ __forceinline__ void Consumer::load_tokens(Scales &scales, int m) const {
#pragma unroll
    for (int i = 0; i < (OUT_TOKENS + 127) / 128; i++) {
        int token = min(m + i * 128 + (int)threadIdx.x % 128, args.m - 1);
        scales.tokens[i] = Token{args.ta[token], 128 * args.a_sum[token]};
    }
}

__device__ __forceinline__ void Consumer::load_rows(Scales &scales, int n) const {
#pragma unroll
    for (int up = 0; up < 2; up++) {
        int row = min(n + warp * 16 + up * 8 + lane / 4, args.n - 1);
        scales.s1[up] = args.s1[row];
        scales.bias[up] = args.bias ? args.bias[row] : -0.0f;
    }
}

// Puts the tokens' scales where the whole warp group reads them.
__device__ __forceinline__ void Consumer::share_tokens(const Scales &scales) const {
#pragma unroll
    for (int i = 0; i < (OUT_TOKENS + 127) / 128; i++)
        if (i * 128 + threadIdx.x % 128 < OUT_TOKENS) tokens()[i * 128 + threadIdx.x % 128] = scales.tokens[i];
    group_sync(1 + group);
}

// Adds this CTA's part of a shared tile to the workspace; true for the warp group that completes the sum, which then holds all of it.
__device__ __forceinline__ bool Consumer::reduce(int sk_tile, int k_count, int m_valid) {
    int *sums = (int *)args.workspace + (size_t)sk_tile * (TILE_M * TILE_N) + group * SUBTILES * ACC * 128 + threadIdx.x % 128;
    int *count = (int *)args.workspace + (size_t)args.sk_tiles * (TILE_M * TILE_N) + sk_tile * WARP_GROUPS + group;
    int *last = (int *)shared_at(LAST_AT) + group;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < ACC; i++)
            if (i / 4 * 8 + lane % 4 * 2 + i % 2 < m_valid)
                asm volatile("red.relaxed.gpu.global.add.s32 [%0], %1;" ::"l"(sums + (sub * ACC + i) * 128), "r"(acc[sub][i]) : "memory");
    group_sync(1 + group);
    if (threadIdx.x % 128 == 0) {
        // The barrier put the group's reductions before this thread; its fences carry them to the device and back.
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        int before = atomicAdd(count, k_count);
        *last = before + k_count == args.k_blocks;
        if (*last) *count = 0;
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    group_sync(1 + group);
    if (!*last) return false;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < ACC; i++)
            if (i / 4 * 8 + lane % 4 * 2 + i % 2 < m_valid) {
                int *sum = sums + (sub * ACC + i) * 128;
                asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(acc[sub][i]) : "l"(sum) : "memory");
                asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" ::"l"(sum), "r"(0) : "memory");
            }
    return true;
}

// Sends each part of K its tokens' sums and adds what the other parts send: acc then begins with this CTA's share.
__device__ __forceinline__ void Consumer::exchange(int tile_idx) {
    const int thread = threadIdx.x % 128;
    const u32 full = base + SUMS_FULL_AT + 8 * group;
    if (thread == 0) barrier_expect(full, (SPLIT_K - 1) * SUMS_BYTES);
    if (tile_idx > 0) barrier_wait(base + SUMS_EMPTY_AT + 8 * group, (tile_idx - 1) % 2);
    int own[SUBTILES][OUT_ACC];
#pragma unroll
    for (int part = 0; part < SPLIT_K; part++) {
        const int from = (k_part() + SPLIT_K - part - 1) % SPLIT_K;  // our slot at `part`: parts after it come first
        u32 to = remote_address(base + SUMS_AT + (from * WARP_GROUPS + group) * SUMS_BYTES + thread * 16, part * CLUSTER + n_part());
        u32 barrier = remote_address(full, part * CLUSTER + n_part());
#pragma unroll
        for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
            for (int i = 0; i < OUT_ACC; i += 4) {
                const int *v = &acc[sub][part * OUT_ACC + i];
                if (part == k_part()) {
#pragma unroll
                    for (int e = 0; e < 4; e++) own[sub][i + e] = v[e];
                } else {
                    store_remote(to + (sub * OUT_ACC + i) * 512, v, barrier);
                }
            }
    }
    barrier_wait(full, tile_idx % 2);
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < OUT_ACC; i += 4) {
#pragma unroll
            for (int slot = 0; slot < SPLIT_K - 1; slot++) {
                uint4 v = load_shared_16(base + SUMS_AT + (slot * WARP_GROUPS + group) * SUMS_BYTES + (sub * OUT_ACC + i) * 512 + thread * 16);
                own[sub][i] += (int)v.x;
                own[sub][i + 1] += (int)v.y;
                own[sub][i + 2] += (int)v.z;
                own[sub][i + 3] += (int)v.w;
            }
#pragma unroll
            for (int e = 0; e < 4; e++) acc[sub][i + e] = own[sub][i + e];
        }
    // The others may send the next tile's.
    group_sync(1 + group);
    if (thread < SPLIT_K && thread != k_part()) barrier_arrive(base + SUMS_EMPTY_AT + 8 * group, thread * CLUSTER + n_part());
}

__device__ __forceinline__ void Consumer::write_direct(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]) {
#pragma unroll
    for (int i = 0; i < OUT_ACC; i++) {
        int at = i / 4 * 8 + lane % 4 * 2 + i % 2, up = i / 2 % 2;
        int row = n + warp * 16 + up * 8 + lane / 4;
        Token token = tokens()[at];
        if (m + at < args.m && row < args.n) store_one(args, m + at, row, acc[sub][i] - token.offset, token.ta, s1[up], bias[up]);
    }
}

// The transposing store puts CHUNK tokens by 64 rows of B (128 bytes) into shared memory, swizzled; rows of 128 bytes go out.
__device__ __forceinline__ void Consumer::write_staged(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]) {
    u32 staging = base + STAGING_AT + group * (CHUNK * 128);
    const bool wide = args.ldd % 8 == 0 && (u64)args.d % 16 == 0;
#pragma unroll
    for (int chunk = 0; chunk < OUT_TOKENS / CHUNK; chunk++) {
        if (m + chunk * CHUNK >= args.m) break;
#pragma unroll
        for (int j = 0; j < CHUNK / 8; j += 2) {
            u32 packed[4];
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int up = q % 2, eight = chunk * (CHUNK / 8) + j + q / 2;
                const Token *token = tokens() + eight * 8 + lane % 4 * 2;
                const int *pair = &acc[sub][eight * 4 + up * 2];
                packed[q] = pack_half(scaled(pair[0] - token[0].offset, token[0].ta, s1[up], bias[up]),
                                      scaled(pair[1] - token[1].offset, token[1].ta, s1[up], bias[up]));
            }
            int row = (j + lane / 16) * 8 + lane % 8, column = warp * 2 + lane / 8 % 2;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                             staging + row * 128 + (column ^ (row % 8)) * 16),
                         "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                         : "memory");
        }
        group_sync(1 + group);
#pragma unroll
        for (int i = threadIdx.x % 128; i < CHUNK * 8; i += 128) {
            int row = i / 8, column = i % 8, token = m + chunk * CHUNK + row, at = n + column * 8;
            uint4 v = load_shared_16(staging + row * 128 + (column ^ (row % 8)) * 16);
            if (token >= args.m || at >= args.n) continue;
            u16 *to = (u16 *)args.d + (size_t)token * args.ldd + at;
            if (wide && at + 8 <= args.n) {
                *(uint4 *)to = v;
            } else {
                u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int e = 0; e < 8; e++)
                    if (at + e < args.n) to[e] = (u16)(words[e / 2] >> (e % 2 * 16));
            }
        }
        group_sync(1 + group);
    }
}

__device__ __forceinline__ void Consumer::run() {
    Schedule schedule(args);
    Piece piece;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < ACC; i++) acc[sub][i] = 0;
    for (int tile_idx = 0; schedule.step(piece); tile_idx++) {
        int m, n, k_count = piece.k_end - piece.k_begin;
        schedule.locate(piece.tile, m, n);
        const int out_m = m + k_part() * OUT_TOKENS, out_n = n + group * SUBTILES * BLOCK_ROWS;
        Scales scales;
        load_tokens(scales, out_m);
        if (SUBTILES == 1) load_rows(scales, out_n);
        multiply(k_count);
        if (SPLIT_K > 1) exchange(tile_idx);
        if (SPLIT_K > 1 || k_count == args.k_blocks || reduce(piece.tile * CLUSTER + n_part(), k_count, args.m - m)) {
            share_tokens(scales);
#pragma unroll
            for (int sub = 0; sub < SUBTILES; sub++) {
                const int row = out_n + sub * BLOCK_ROWS;
                if (SUBTILES > 1) load_rows(scales, row);  // no registers to spare earlier
                if (STAGED)
                    write_staged(sub, out_m, row, scales.s1, scales.bias);
                else
                    write_direct(sub, out_m, row, scales.s1, scales.bias);
            }
        }
        group_sync(1 + group);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    gemm_w4a8_sm90(const __grid_constant__ TensorMap a_map, const GemmArgs args) {
    u32 base = shared_address(shared_at(0));
    let_dependents_start();
    if (threadIdx.x == 0) {
        asm volatile("prefetch.tensormap [%0];" ::"l"(&a_map) : "memory");
        for (int stage = 0; stage < STAGES; stage++) {
            barrier_init(base + FULL_AT + 8 * stage, 1);
            barrier_init(base + EMPTY_AT + 8 * stage, 4 * WARP_GROUPS * CLUSTER);
        }
        for (int group = 0; group < WARP_GROUPS; group++) {
            barrier_init(base + SUMS_FULL_AT + 8 * group, 1);
            barrier_init(base + SUMS_EMPTY_AT + 8 * group, SPLIT_K > 1 ? SPLIT_K - 1 : 1);
        }
        fence_barrier_init();
    }
    __syncthreads();
#if CLUSTER * SPLIT_K > 1
    cluster_arrive();
#endif
    wait_for_producers();
    if (threadIdx.x >= 128 * WARP_GROUPS) {
        registers_give<PRODUCER_REGISTERS>();
        // Multicasts need the neighbours' barriers; parts of K meet in the consumers only.
        if (CLUSTER > 1) cluster_wait();
        if (threadIdx.x == 128 * WARP_GROUPS) produce(&a_map, args, base);
        __syncwarp();
        if (CLUSTER == 1 && SPLIT_K > 1) cluster_wait();
    } else {
        registers_take<CONSUMER_REGISTERS>();
        if (CLUSTER * SPLIT_K > 1) cluster_wait();
        Consumer consumer(args, base);
        consumer.run();
    }
    // Nobody leaves while a neighbour may still write here.
#if CLUSTER * SPLIT_K > 1
    cluster_arrive();
    cluster_wait();
#endif
}
