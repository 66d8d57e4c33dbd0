// The experts of a token and their weights, by the rule of `naive::route`; a warp takes a token, a lane LANE_EXPERTS experts: its own number
// and each 32 behind it.
//
// Keys are floats as integers of the same order, so that one reduction of the warp finds the largest and a second the first of equal ones. A
// lane remembers its best; only the lane whose best was taken looks again.
#pragma once
#include "float_rules.cuh"

#ifndef LANE_EXPERTS
#define LANE_EXPERTS 8
#endif

constexpr u32 TAKEN = 0;  // below the key of negative infinity
constexpr u32 ALL_LANES = 0xffffffffu;

// Mirrors `RouteArgs` of the host, by value.
struct RouteArgs {
    const float *logits;  // [m, columns]
    const float *bias;    // [num_experts] or null
    u32 *experts;         // [m, num_chosen], ascending
    float *weights;       // [m, num_chosen]
    float *shared;        // [m]
    int m, columns, num_experts, num_chosen;
    int is_sigmoid, is_normalized;
    float scale;
};

// Order of floats, where zeros are equal and NaN is negative infinity.
__device__ __forceinline__ u32 key_of(float v) {
    const u32 bits = v != v ? 0xff800000u : __float_as_uint(__fadd_rn(v, 0.0f));
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct Best {
    u32 key;
    u32 at;
};

// What a lane knows of its experts.
struct Lane {
    float logits[LANE_EXPERTS];
    u32 keys[LANE_EXPERTS];

    // The largest key; the first of equal ones.
    __device__ __forceinline__ Best best(int lane) const {
        Best best{TAKEN, (u32)lane};
#pragma unroll
        for (int i = 0; i < LANE_EXPERTS; i++)
            if (keys[i] > best.key) best = Best{keys[i], (u32)(lane + 32 * i)};
        return best;
    }

    __device__ __forceinline__ void take(u32 at, int lane) {
#pragma unroll
        for (int i = 0; i < LANE_EXPERTS; i++)
            if (at == lane + 32 * i) keys[i] = TAKEN;
    }
};

// Keys and logits of all experts; tells the largest logit. What is behind the last expert has the key TAKEN.
__device__ __forceinline__ float load(Lane &own, const float *logits, const RouteArgs &args, int lane) {
    float max = __uint_as_float(0xff800000u);
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; i++) {
        const int expert = lane + 32 * i;
        own.logits[i] = expert < args.num_experts ? logits[expert] : max;
    }
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; i++) {
        const int expert = lane + 32 * i;
        const float logit = own.logits[i];
        own.keys[i] = TAKEN;
        if (expert >= args.num_experts) continue;
        max = larger(max, logit);
        own.keys[i] = key_of(args.is_sigmoid ? __fadd_rn(sigmoid(logit), args.bias ? args.bias[expert] : 0.0f) : logit);
    }
#pragma unroll
    for (int half = 16; half > 0; half /= 2) max = larger(max, __shfl_xor_sync(ALL_LANES, max, half));
    return max;
}

// The chosen ones have the key TAKEN afterwards.
__device__ __forceinline__ void choose(Lane &own, const RouteArgs &args, int lane) {
    Best best = own.best(lane);
    for (int i = 0; i < args.num_chosen; i++) {
        const u32 largest = __reduce_max_sync(ALL_LANES, best.key);
        const u32 at = __reduce_min_sync(ALL_LANES, best.key == largest ? best.at : 0xffffffffu);
        if (at % 32 == lane) {
            own.take(at, lane);
            best = own.best(lane);
        }
    }
}

// Numbers of the chosen ones go out, and to `experts` where that is not null; their scores go to `scores`, both by ascending expert.
__device__ __forceinline__ void gather_scores(float *scores, u32 *experts, const Lane &own, float max, const RouteArgs &args, int token, int lane) {
    int count = 0;
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; i++) {
        const int expert = lane + 32 * i;
        const bool is_chosen = expert < args.num_experts && own.keys[i] == TAKEN;
        const u32 chosen = __ballot_sync(ALL_LANES, is_chosen);
        const int place = count + __popc(chosen & ((1u << lane) - 1));
        if (is_chosen) {
            scores[place] = own.logits[i];
            args.experts[(size_t)token * args.num_chosen + place] = expert;
            if (experts) experts[place] = expert;
        }
        count += __popc(chosen);
    }
    __syncwarp();
    for (int i = lane; i < args.num_chosen; i += 32) scores[i] = args.is_sigmoid ? sigmoid(scores[i]) : exponential(__fadd_rn(scores[i], -max));
    __syncwarp();
}

// The numerators of all experts in 16 lanes; the sum is the same in every lane of the warp.
__device__ __forceinline__ float sum_of_all(const float *logits, float max, int count, int lane) {
    float chain = 0.0f;
    if (lane < LANES)
        for (int at = lane; at < count; at += LANES) chain = __fadd_rn(chain, exponential(__fadd_rn(logits[at], -max)));
    return __shfl_sync(ALL_LANES, sum_of_lanes(chain), 0);
}

// Fills the token's part of a routing; `scores` and, where it is not null, `experts` have room for the chosen ones.
__device__ __forceinline__ void route_token(float *scores, u32 *experts, const RouteArgs &args, int token) {
    const int lane = threadIdx.x % 32;
    const float *logits = args.logits + (size_t)token * args.columns;
    if (lane == 0) args.shared[token] = args.columns > args.num_experts ? sigmoid(logits[args.num_experts]) : 1.0f;
    Lane own;
    const float max = load(own, logits, args, lane);
    choose(own, args, lane);
    gather_scores(scores, experts, own, max, args, token, lane);
    float denominator = 1.0f;
    if (args.is_normalized) {
        denominator = 0.0f;
#pragma unroll 8
        for (int i = 0; i < args.num_chosen; i++) denominator = __fadd_rn(denominator, scores[i]);
        if (args.is_sigmoid) denominator = __fadd_rn(denominator, 1e-20f);
    } else if (!args.is_sigmoid) {
        denominator = sum_of_all(logits, max, args.num_experts, lane);
    }
    for (int i = lane; i < args.num_chosen; i += 32)
        args.weights[(size_t)token * args.num_chosen + i] = __fmul_rn(__fdiv_rn(scores[i], denominator), args.scale);
}
