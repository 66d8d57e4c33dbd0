// The warp groups of gemm_w4a8_sm90 that multiply: nibbles from the ring to registers, unpacked, times the ring's activations.
#pragma once
#include "gemm_tile.cuh"

extern __shared__ u8 shared_bytes[];

__device__ __forceinline__ u8 *shared_at(u32 offset) {
    u32 start = shared_address(shared_bytes);
    return shared_bytes + ((start + 1023) / 1024 * 1024 - start) + offset;
}

// One 64-row block's part of a lane: nibbles of 16 rows (2 a lane) by 128 k and their groups.
struct Fragment {
    u32 words[2 * STEPS];
    u32 scales[BLOCK_GROUPS];

    // From the lane's place in the nibbles and in the scales of a block.
    __device__ __forceinline__ void load(u32 nibbles, u32 groups) {
#pragma unroll
        for (int sub = 0; sub < BLOCK_GROUPS; sub++) scales[sub] = load_shared_4(groups + sub * 32);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint4 v = load_shared_16(nibbles + half * 512);
            words[4 * half] = v.x;
            words[4 * half + 1] = v.y;
            words[4 * half + 2] = v.z;
            words[4 * half + 3] = v.w;
        }
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

// Tells the compiler that all lanes agree, so that it keeps the value in a uniform register.
__device__ __forceinline__ u32 warp_uniform(u32 v) {
    return __shfl_sync(0xffffffffu, v, 0);
}

struct Consumer {
    const GemmArgs &args;
    u32 base;
    int group, warp, lane;
    u32 nibbles_at, groups_at;  // the lane's places in the ring's first slot
    Ring ring;
    Sum acc[SUBTILES][ACC];
    u32 a[STEPS][SUBTILES][4];

    __device__ __forceinline__ Consumer(const GemmArgs &args, u32 base)
        : args(args), base(base), group(warp_uniform(threadIdx.x / 128)), warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32) {
        u32 block = base + B_AT + group * SUBTILES * K_BLOCKS * BLOCK_BYTES;
        nibbles_at = block + warp * 1024 + lane * 16;
        groups_at = block + BLOCK_WEIGHT_BYTES + (warp * BLOCK_GROUPS * 8 + lane / 4) * 4;
    }

    // acc = the products of k_count slots of the ring from slot k_begin of K.
    __device__ __forceinline__ void multiply(int k_begin, int k_count);

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < SUBTILES * ACC; i++) acc[i / ACC][i % ACC] = 0;
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

#if FLOAT_SCALES
#include "gemm_float.cuh"
#else
// (No branch may stand between the steps of a block, or the compiler serializes the products.)
__device__ __forceinline__ void Consumer::multiply(int, int k_count) {
    if (k_count == 0) clear();
    u32 previous = 0;
#pragma unroll 1
    for (int i = 0; i < k_count; i++) {
        barrier_wait(base + FULL_AT + 8 * ring.slot, ring.phase);
        const u64 tokens = wgmma_descriptor(base + ring.slot * A_BYTES);
        Fragment fragments[SUBTILES];
#pragma unroll
        for (int step = 0; step < K_BLOCKS * STEPS; step++) {
            const u32 block = step / STEPS;
            if (step % STEPS == 0) {
#pragma unroll
                for (int sub = 0; sub < SUBTILES; sub++) {
                    u32 at = ring.slot * B_BYTES + (sub * K_BLOCKS + block) * BLOCK_BYTES;
                    fragments[sub].load(nibbles_at + at, groups_at + at);
                }
            }
            u32 (&weights)[SUBTILES][4] = a[step % STEPS];
#pragma unroll
            for (int sub = 0; sub < SUBTILES; sub++) fragments[sub].unpack(step % STEPS, weights[sub]);
            wgmma_fence();
#pragma unroll
            for (int sub = 0; sub < SUBTILES; sub++)
                wgmma(acc[sub], weights[sub], tokens + block * (A_BLOCK_BYTES / 16) + 2 * (step % STEPS), i > 0 || step > 0);
            wgmma_commit();
            wgmma_wait<PENDING>();
            if (step == PENDING - 1 && i > 0) release(base, previous, lane);
        }
        previous = ring.slot;
        ring.step();
    }
    wgmma_wait<0>();
    if (k_count > 0) release(base, previous, lane);
}
#endif
