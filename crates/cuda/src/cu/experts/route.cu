// The experts of each token and their weights, by the rule of `naive::route`; a warp takes a token.
//
// Keys are floats as integers of the same order, so that one reduction of the warp finds the largest and a second the first of equal ones. A
// lane remembers its best; only the lane whose best was taken looks again.
#include "float_rules.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int MOST_EXPERTS = 1024;
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
    int at;
};

// The lane's largest key; the first of equal ones.
__device__ __forceinline__ Best best_of(const u32 *keys, int count, int lane) {
    Best best{TAKEN, 0};
    for (int at = lane; at < count; at += 32)
        if (keys[at] > best.key) best = Best{keys[at], at};
    return best;
}

// The chosen ones have the key TAKEN afterwards.
__device__ __forceinline__ void choose(u32 *keys, const RouteArgs &args, int lane) {
    Best best = best_of(keys, args.num_experts, lane);
    for (int i = 0; i < args.num_chosen; i++) {
        const u32 largest = __reduce_max_sync(ALL_LANES, best.key);
        const u32 at = __reduce_min_sync(ALL_LANES, best.key == largest ? (u32)best.at : (u32)MOST_EXPERTS);
        if (at % 32 == lane) {
            keys[at] = TAKEN;
            best = best_of(keys, args.num_experts, lane);
        }
    }
    __syncwarp();
}

// Numbers of the chosen ones go out; their scores take the place of the first keys.
__device__ __forceinline__ void gather_scores(u32 *keys, const float *logits, float max, const RouteArgs &args, int token, int lane) {
    int count = 0;
    for (int base = 0; base < args.num_experts; base += 32) {
        const int expert = base + lane;
        const bool is_chosen = expert < args.num_experts && keys[expert] == TAKEN;
        const u32 chosen = __ballot_sync(ALL_LANES, is_chosen);
        const int place = count + __popc(chosen & ((1u << lane) - 1));
        if (is_chosen) {
            const float logit = logits[expert];
            keys[place] = __float_as_uint(args.is_sigmoid ? sigmoid(logit) : exponential(__fadd_rn(logit, -max)));
            args.experts[(size_t)token * args.num_chosen + place] = expert;
        }
        count += __popc(chosen);
        __syncwarp();
    }
}

// The numerators of all experts in 16 lanes; the sum is the same in every lane of the warp.
__device__ __forceinline__ float sum_of_all(const float *logits, float max, int count, int lane) {
    float chain = 0.0f;
    if (lane < LANES)
        for (int at = lane; at < count; at += LANES) chain = __fadd_rn(chain, exponential(__fadd_rn(logits[at], -max)));
    return __shfl_sync(ALL_LANES, sum_of_lanes(chain), 0);
}

extern "C" __global__ void __launch_bounds__(THREADS) route(const RouteArgs args) {
    __shared__ u32 all_keys[WARPS][MOST_EXPERTS];
    let_dependents_start();
    wait_for_producers();
    const int lane = threadIdx.x % 32, token = blockIdx.x * WARPS + threadIdx.x / 32;
    if (token >= args.m) return;
    u32 *keys = all_keys[threadIdx.x / 32];
    const float *logits = args.logits + (size_t)token * args.columns;
    float max = __uint_as_float(0xff800000u);
    for (int expert = lane; expert < args.num_experts; expert += 32) {
        const float logit = logits[expert];
        max = larger(max, logit);
        keys[expert] = key_of(args.is_sigmoid ? __fadd_rn(sigmoid(logit), args.bias ? args.bias[expert] : 0.0f) : logit);
    }
#pragma unroll
    for (int half = 16; half > 0; half /= 2) max = larger(max, __shfl_xor_sync(ALL_LANES, max, half));
    __syncwarp();
    choose(keys, args, lane);
    gather_scores(keys, logits, max, args, token, lane);
    float denominator = 1.0f;
    if (args.is_normalized) {
        denominator = 0.0f;
        for (int i = 0; i < args.num_chosen; i++) denominator = __fadd_rn(denominator, __uint_as_float(keys[i]));
        if (args.is_sigmoid) denominator = __fadd_rn(denominator, 1e-20f);
    } else if (!args.is_sigmoid) {
        denominator = sum_of_all(logits, max, args.num_experts, lane);
    }
    for (int i = lane; i < args.num_chosen; i += 32)
        args.weights[(size_t)token * args.num_chosen + i] = __fmul_rn(__fdiv_rn(__uint_as_float(keys[i]), denominator), args.scale);
    if (lane == 0) args.shared[token] = args.columns > args.num_experts ? sigmoid(logits[args.num_experts]) : 1.0f;
}
