// gemm_w4f_sm90's own part of the consumers: nibbles to s8, and the sums of a group to floats.
#pragma once

// A lane's codes of 16 rows by 128 k, and the two scales of its rows.
struct FloatFragment {
    u32 words[2 * STEPS];
    u32 scales;  // f16: row g, row g + 8

    __device__ __forceinline__ void load(u32 nibbles, u32 groups) {
        scales = load_shared_4(groups);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            uint4 v = load_shared_16(nibbles + half * 512);
            words[4 * half] = v.x;
            words[4 * half + 1] = v.y;
            words[4 * half + 2] = v.z;
            words[4 * half + 3] = v.w;
        }
    }

    // 16 * (q - 8): the nibble on top, its sign bit turned.
    __device__ __forceinline__ void unpack(int step, u32 (&a)[4]) const {
        u32 low = words[2 * step], up = words[2 * step + 1];
        a[0] = (low << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
        a[1] = (up << 4 & 0xf0f0f0f0u) ^ 0x80808080u;
        a[2] = (low & 0xf0f0f0f0u) ^ 0x80808080u;
        a[3] = (up & 0xf0f0f0f0u) ^ 0x80808080u;
    }

    // Scales over the 16 of the codes; zeros for a block that is not there.
    __device__ __forceinline__ void scales_of(float (&scale)[2], bool there) const {
#pragma unroll
        for (int up = 0; up < 2; up++) {
            float v;
            asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"((u16)(scales >> 16 * up)));
            scale[up] = there ? __fmul_rn(v, 0.0625f) : 0.0f;
        }
    }
};

// float sums += scale * sums of a group; the fence keeps the conversion behind the wait for the products.
__device__ __forceinline__ void add_group(float (&acc)[ACC], int (&sums)[ACC], const float (&scale)[2]) {
#pragma unroll
    for (int i = 0; i < ACC; i++) asm volatile("" : "+r"(sums[i])::"memory");
#pragma unroll
    for (int i = 0; i < ACC; i++) acc[i] = __fmaf_rn(__int2float_rn(sums[i]), scale[i / 2 % 2], acc[i]);
}

// The products of one group into `sums`, four steps in flight when it ends. A step's registers are free when three later ones are in flight.
__device__ __forceinline__ void multiply_group(int (&sums)[ACC], u32 (&a)[STEPS][SUBTILES][4], const FloatFragment &fragment, u64 tokens) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        wgmma_wait<STEPS - 1>();
        fragment.unpack(step, a[step][0]);
        wgmma_fence();
        wgmma(sums, a[step][0], tokens + 2 * step, step > 0);
        wgmma_commit();
    }
}

// acc = the scaled sums of k_count slots of two blocks. Few tokens: the first block's sums become floats under the products of the second.
// Many: registers hold one set of sums, and the warp groups take turns with tensor cores and conversion.
__device__ __forceinline__ void Consumer::multiply(int k_begin, int k_count) {
    static_assert(K_BLOCKS == 2 && SUBTILES == 1 && BLOCK_GROUPS == 1, "sizes of the comparison");
    constexpr int SETS = TILE_M <= 64 ? 2 : 1;
    clear();
    int sums[SETS][ACC];
#pragma unroll 1
    for (int i = 0; i < k_count; i++) {
        barrier_wait(base + FULL_AT + 8 * ring.slot, ring.phase);
        const u64 tokens = wgmma_descriptor(base + ring.slot * A_BYTES);
        const bool both = (k_begin + i) * K_BLOCKS + 1 < args.k_blocks;
        float scale[K_BLOCKS][2];
#pragma unroll
        for (int block = 0; block < K_BLOCKS; block++) {
            const u32 at = ring.slot * B_BYTES + block * BLOCK_BYTES;
            FloatFragment fragment;
            fragment.load(nibbles_at + at, groups_at + at);
            fragment.scales_of(scale[block], block == 0 || both);
            multiply_group(sums[block % SETS], a, fragment, tokens + block * (A_BLOCK_BYTES / 16));
            if (SETS == 1) {
                wgmma_wait<0>();
                if (block == K_BLOCKS - 1) release(base, ring.slot, lane);
                add_group(acc[0], sums[0], scale[block]);
            }
        }
        if (SETS == 2) {
            wgmma_wait<STEPS>();
            add_group(acc[0], sums[0], scale[0]);
            wgmma_wait<0>();
            release(base, ring.slot, lane);
            add_group(acc[0], sums[SETS - 1], scale[1]);
        }
        ring.step();
    }
}
