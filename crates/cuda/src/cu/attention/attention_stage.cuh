// Pages on their way to shared memory, where the tiles of a prompt read them.
#pragma once

#ifndef WARPS
#define WARPS 4
#endif
#ifndef MIN_CTAS
#define MIN_CTAS 3
#endif
#include "attention_rows.cuh"

constexpr int THREADS = WARPS * 32;
constexpr int KEY_WIDTH = (ROW + 31) / 32 * 32;  // whole steps of k
constexpr int KEY_ROW = KEY_WIDTH + 16;          // eight rows use all banks
constexpr int VALUE_ROW = PAGE + 16;
constexpr int STEPS = KEY_WIDTH / 32;

struct Stage {
    u8 keys[PAGE][KEY_ROW];
    u8 values[ROW][VALUE_ROW];
    float key_scales[PAGE], value_scales[PAGE];
    u32 next[4];  // number of the next page; a load of it would be waited for at once, since it is the same for the whole warp

    __device__ __forceinline__ PageScales scales() const {
        return PageScales{key_scales, value_scales};
    }
};

// The same by the threads that `copies` names, without a branch.
template <int BYTES>
__device__ __forceinline__ void copy_ahead_where(bool copies, void *to, const void *from) {
    if (BYTES == 16) {
        asm volatile("{\n.reg .pred copies;\nsetp.ne.s32 copies, %0, 0;\n@copies cp.async.cg.shared.global [%1], [%2], 16;\n}" ::"r"((int)copies),
                     "r"(shared_address(to)), "l"(from)
                     : "memory");
    } else {
        asm volatile("{\n.reg .pred copies;\nsetp.ne.s32 copies, %0, 0;\n@copies cp.async.ca.shared.global [%1], [%2], 4;\n}" ::"r"((int)copies),
                     "r"(shared_address(to)), "l"(from)
                     : "memory");
    }
}

// A page's keys, values and scales on their way to shared memory, and the number of the page behind it.
__device__ __forceinline__ void load_page(const AttentionArgs &args, Stage &stage, u32 page, int kv_head, const u32 *next) {
    const size_t place = (size_t)page * args.kv_heads + kv_head;
    const u8 *keys = args.keys + place * PAGE * ROW, *values = args.values + place * PAGE * ROW;
    constexpr u32 PIECES = ROW / 16;
    constexpr u32 TURNS = (ROW * 4 + THREADS - 1) / THREADS;  // keys and values are as long
    // Whole rows a turn: what a thread copies lies as far apart each time.
    constexpr bool EVEN = THREADS % PIECES == 0 && ROW * 4 % THREADS == 0;
    const u32 first = threadIdx.x;
    const u32 key = shared_address(&stage.keys[first / PIECES][first % PIECES * 16]);
    const u32 value = shared_address(&stage.values[first / 4][first % 4 * 16]);
    keys += first * 16;
    values += first * 16;
#pragma unroll
    for (u32 turn = 0; turn < TURNS; turn++) {
        const u32 i = turn * THREADS + threadIdx.x;
        if ((turn + 1) * THREADS > ROW * 4 && i >= ROW * 4) break;
        copy_ahead(EVEN ? key + turn * (THREADS / PIECES * KEY_ROW) : shared_address(&stage.keys[i / PIECES][i % PIECES * 16]),
                   keys + turn * THREADS * 16);
        copy_ahead(value + turn * (THREADS / 4 * VALUE_ROW), values + turn * THREADS * 16);
    }
#if FORMAT == 2
    const u32 scale = threadIdx.x * 4 % PAGE;
    copy_ahead_where<16>(threadIdx.x < 16, &stage.key_scales[scale], args.key_scales + place * PAGE + scale);
    copy_ahead_where<16>(threadIdx.x >= 16 && threadIdx.x < 32, &stage.value_scales[scale], args.value_scales + place * PAGE + scale);
#endif
    copy_ahead_where<4>(threadIdx.x == THREADS - 1, stage.next, next);
    asm volatile("cp.async.commit_group;" ::: "memory");
}
