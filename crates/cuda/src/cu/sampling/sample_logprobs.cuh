// Log-probabilities of a row before anything is adjusted: of the chosen token and of the most likely ones.
#pragma once

#include "sample_cut.cuh"

constexpr u32 MOST_TOP = 128;  // tokens reported for a row

struct Listed {
    u64 mine[MOST_TOP];  // keys of this block's tokens
    u64 all[MOST_TOP];   // of the cluster's tokens, in its first block
    u32 num_mine;
    float chains[LANES];  // of the sum of exponentials, as the block before left them
    float log_sum;
};

__shared__ Listed listed;

// The exponentials of tokens from..to, into shared memory.
__device__ __forceinline__ void make_exponentials(const Row &row, const Sequence &raw, float max, u32 from, u32 to) {
    for (u32 token = from + threadIdx.x; token < to; token += THREADS)
        shared_logits[token - from] = exponential(__fadd_rn(logit_at(row, raw, token), -max));
}

// Continues the sixteen chains over this block's tokens, `room` at a time; the first ones are made already.
__device__ __forceinline__ float continue_chains(const Row &row, const Sequence &raw, float max, u32 room, float chain) {
    for (u32 from = row.begin; from < row.end; from += room) {
        const u32 to = min(row.end, from + room), lane = threadIdx.x;
        if (from != row.begin) {
            __syncthreads();
            make_exponentials(row, raw, max, from, to);
            __syncthreads();
        }
        if (lane < LANES && lane < to - from)
            chain = add_chain(chain, shared_logits + lane, (to - from - lane + LANES - 1) / LANES);
    }
    return chain;
}

// ln of the sum of exponentials: the blocks take turns, since the order of additions is that of the tokens.
__device__ __forceinline__ float log_sum_of(const Row &row, const Sequence &raw, float max, u32 room, u32 rank) {
    make_exponentials(row, raw, max, row.begin, min(row.end, row.begin + room));
    __syncthreads();
    for (u32 turn = 0; turn < CLUSTER; turn++) {
        if (turn == rank) {
            float chain = rank > 0 && threadIdx.x < LANES ? listed.chains[threadIdx.x] : 0.0f;
            chain = continue_chains(row, raw, max, room, chain);
            if (turn + 1 < CLUSTER) {
                if (threadIdx.x < LANES) of_peer(listed.chains, rank + 1)[threadIdx.x] = chain;
            } else if (threadIdx.x < 32) {
                const float sum = sum_of_lanes(chain);
                if (threadIdx.x == 0) *of_peer(&listed.log_sum, 0) = log_sum_exp(max, sum);
            }
        }
        cluster_sync();
    }
    return listed.log_sum;
}

// Collects the `count` most likely tokens in the first block, in no order.
__device__ __forceinline__ void list_top(const Row &row, const Sequence &raw, float max, u32 count, u32 vocab, u32 rank) {
    const Measure measure{max, 1.0f, 1.0f};
    Cut cut = everything();
    if (count < vocab) cut = cut_of<false>(row, raw, measure, cut, count, rank);
    if (threadIdx.x == 0) listed.num_mine = 0;
    __syncthreads();
#pragma unroll 2
    for (u32 token = row.begin + threadIdx.x; token < row.end; token += THREADS) {
        const float logit = logit_at(row, raw, token);
        if (is_inside(cut, logit, place_of(logit, exponent_of(logit, measure), measure), token)) {
            const u32 at = atomicAdd(&listed.num_mine, 1);
            if (at < MOST_TOP) listed.mine[at] = key_of(logit, token);
        }
    }
    __syncthreads();
    const Total total = total_of(listed.num_mine, rank);
    const u32 at = (u32)total.before + threadIdx.x;
    if (threadIdx.x < listed.num_mine && at < MOST_TOP) of_peer(listed.all, 0)[at] = listed.mine[threadIdx.x];
    cluster_sync();
}

struct Top {
    u32 token;
    float logprob;
};

// Writes the listed tokens, the most likely one first.
__device__ __forceinline__ void write_top(const Row &row, float log_sum, u32 count, Top *tops) {
    if (threadIdx.x >= count) return;
    const u64 key = listed.all[threadIdx.x];
    u32 place = 0;
#pragma unroll 2
    for (u32 i = 0; i < count; i++) place += listed.all[i] > key;
    tops[place] = Top{token_of(key), __fadd_rn(row.logits[token_of(key)], -log_sum)};
}
