// D[M,N] = A[M,K] * B[N,K]^T on Hopper: D^T = B * A^T, so that the 4-bit weights are wgmma's register operand.
//
// A CTA owns TILE_N = 64 * WARP_GROUPS * SUBTILES rows of B times TILE_M tokens. A producer thread fills a ring of STAGES blocks of
// 128 k: activations by TMA (multicast to the CLUSTER CTAs that share the tokens), packed weights by one bulk copy a 64-row block.
// A consumer warp group reads its 16 bytes a lane, spends 2.5 instructions on four weights and issues wgmma straight from the
// registers; a k step's unpack runs under the products of the two steps before it. Unpacked weights touch no memory.
//
// SPLIT_K > 1: as many CTAs of a cluster do a part of K each, pass int32 sums through distributed shared memory and write their share
// of the tokens. No workspace.
// Otherwise: the first sk_tiles tiles are cut into equal K ranges over all CTAs (their int32 parts meet in the workspace by reductions,
// which are exact in any order; the CTA that completes a tile writes it), the other tiles go whole, round robin.
#ifndef KERNEL
#define KERNEL gemm_w4a8_sm90
#endif
#include "gemm_output.cuh"

__device__ __forceinline__ void Consumer::run() {
    Schedule schedule(args);
    Piece piece;
    clear();
    for (int tile_idx = 0; schedule.step(piece); tile_idx++) {
        int m, n, k_count = piece.k_end - piece.k_begin;
        schedule.locate(piece.tile, m, n);
        const int out_m = m + k_part() * OUT_TOKENS, out_n = n + group * SUBTILES * BLOCK_ROWS;
        Scales scales;
        load_tokens(scales, out_m);
        if (SUBTILES == 1) load_rows(scales, out_n);
        multiply(piece.k_begin, k_count);
        if (SPLIT_K > 1) exchange(tile_idx);
        if (SPLIT_K > 1 || k_count == schedule.k_slots || reduce(piece.tile * CLUSTER + n_part(), k_count, args.m - m)) {
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

__device__ __forceinline__ void init_barriers(u32 base) {
    for (int stage = 0; stage < SLOTS; stage++) {
        barrier_init(base + FULL_AT + 8 * stage, 1);
        barrier_init(base + EMPTY_AT + 8 * stage, 4 * WARP_GROUPS * CLUSTER);
    }
    for (int group = 0; group < WARP_GROUPS; group++) {
        barrier_init(base + SUMS_FULL_AT + 8 * group, 1);
        barrier_init(base + SUMS_EMPTY_AT + 8 * group, SPLIT_K > 1 ? SPLIT_K - 1 : 1);
    }
    fence_barrier_init();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    KERNEL(const __grid_constant__ TensorMap a_map, const GemmArgs args) {
    const u32 base = shared_address(shared_at(0));
    let_dependents_start();
    if (threadIdx.x >= 128 * WARP_GROUPS) {
        // The producer makes the barriers and begins to load; the consumers wait for the barriers only.
        if (threadIdx.x == 128 * WARP_GROUPS) {
            asm volatile("prefetch.tensormap [%0];" ::"l"(&a_map) : "memory");
            init_barriers(base);
        }
        __syncwarp();
        if (threadIdx.x < 128 * WARP_GROUPS + 32) asm volatile("bar.arrive 15, %0;" ::"n"(128 * WARP_GROUPS + 32) : "memory");
        if (CLUSTER * SPLIT_K > 1) cluster_arrive();
        registers_give<PRODUCER_REGISTERS>();
        // What comes first is found before the launches in front of this one are done: the divisions are 1.4 % of a step of 64 sequences.
        Pieces pieces(args);
        wait_for_producers();
        // Multicasts need the neighbours' barriers; parts of K meet in the consumers only.
        if (CLUSTER > 1) cluster_wait();
        if (threadIdx.x == 128 * WARP_GROUPS) produce(&a_map, args, base, pieces);
        __syncwarp();
        if (CLUSTER == 1 && SPLIT_K > 1) cluster_wait();
    } else {
        if (CLUSTER * SPLIT_K > 1) cluster_arrive();
        registers_take<CONSUMER_REGISTERS>();
        wait_for_producers();
        asm volatile("bar.sync 15, %0;" ::"n"(128 * WARP_GROUPS + 32) : "memory");
        if (CLUSTER * SPLIT_K > 1) cluster_wait();
        Consumer consumer(args, base);
        consumer.run();
    }
    // Nobody leaves while a neighbour may still write here.
    if (CLUSTER * SPLIT_K > 1) {
        cluster_arrive();
        cluster_wait();
    }
}
