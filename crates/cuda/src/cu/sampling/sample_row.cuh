// A row of logits as sampling sees it: penalties, biases, weights, and the order of tokens as integers.
#pragma once

#include "cluster.cuh"

constexpr u32 NO_TOKEN = 0xffffffffu;
constexpr u64 WHOLE_WEIGHT = 1ull << 40;  // of the most likely token

// Flags of a slot.
constexpr u32 GREEDY = 1, COUNTS = 2, BIASED = 4, LOGPROBS = 8, MASKED = 16;

// How a sequence's tokens are chosen; 64 bytes, as the host writes them.
struct Slot {
    float temperature, inv_temperature, top_p;
    float repetition, presence, frequency;
    u32 top_k, flags;
    u64 least_weight, seed;
    u32 num_top;
    float light_exponent;  // all tokens below it weigh, together, at most half of what a nucleus leaves
    u32 unused[2];
};

// A slot in shared memory, with what is counted for it.
struct Sequence : Slot {
    u32 *counts;          // by token: the highest bit for the prompt, the others count what was generated
    const float *biases;  // by token
    const u32 *mask;      // [ceil(vocab / 32)], a bit by token
};

// A block's share of a row.
struct Row {
    const float *logits;
    u32 begin, end;  // tokens of this block
    bool is_held;    // whether shared memory holds their logits
};

extern __shared__ float shared_logits[];

__device__ __forceinline__ float kept_finite(float v) {
    return fminf(fmaxf(v, -LARGEST), LARGEST);
}

// A logit after penalties, then the bias; those that are not finite stay.
__device__ __forceinline__ float adjusted(const Sequence &slot, float logit, u32 count, float bias) {
    if (!(fabsf(logit) <= LARGEST)) return logit;
    if (count != 0) {
        logit = kept_finite(logit > 0.0f ? __fdiv_rn(logit, slot.repetition) : __fmul_rn(logit, slot.repetition));
        const u32 generated = count & 0x7fffffffu;
        if (generated > 0) {
            logit = kept_finite(__fadd_rn(logit, -__fmul_rn(__uint2float_rn(generated), slot.frequency)));
            logit = kept_finite(__fadd_rn(logit, -slot.presence));
        }
    }
    return kept_finite(__fadd_rn(logit, bias));
}

__device__ __forceinline__ u32 count_of(const Sequence &slot, u32 token) {
    return slot.flags & COUNTS ? slot.counts[token] : 0;
}

__device__ __forceinline__ float bias_of(const Sequence &slot, u32 token) {
    return slot.flags & BIASED ? slot.biases[token] : 0.0f;
}

// Whether the sequence's mask forbids a token.
__device__ __forceinline__ bool is_forbidden(const Sequence &slot, u32 token) {
    return slot.flags & MASKED && !(slot.mask[token / 32] >> token % 32 & 1);
}

__device__ __forceinline__ float logit_at(const Row &row, const Sequence &slot, u32 token) {
    if (row.is_held) return shared_logits[token - row.begin];
    if (is_forbidden(slot, token)) return -INFINITE;
    return adjusted(slot, row.logits[token], count_of(slot, token), bias_of(slot, token));
}

// A more likely token has a larger key: the logit's bits in order (0 equals -0), then the lower id.
__device__ __forceinline__ u64 key_of(float logit, u32 token) {
    const u32 bits = __float_as_uint(logit == 0.0f ? 0.0f : logit);
    return (u64)(bits & 0x80000000u ? ~bits : bits | 0x80000000u) << 32 | ~token;
}

__device__ __forceinline__ float logit_of(u64 key) {
    const u32 bits = (u32)(key >> 32);
    return __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
}

__device__ __forceinline__ u32 token_of(u64 key) {
    return ~(u32)key;
}

// What weights are measured by.
struct Measure {
    float max, temperature, inv_temperature;
};

__device__ __forceinline__ float exponent_of(float logit, const Measure &measure) {
    return __fmul_rn(__fadd_rn(logit, -measure.max), measure.inv_temperature);
}

constexpr float WEIGHTLESS = -27.8f;  // below 40 ln(1/2) = -27.73 a weight is 0

// floor(2^40 * exp(exponent)), by a shift of the mantissa; the largest logit weighs 2^40 whatever the temperature.
__device__ __forceinline__ u64 weight_of(float logit, float exponent, const Measure &measure) {
    if (logit == measure.max) return WHOLE_WEIGHT;
    if (exponent < WEIGHTLESS) return 0;
    const u32 bits = __float_as_uint(exponential(exponent));
    const u64 mantissa = (bits & 0x7fffffu) | 0x800000u;
    return mantissa << 17 >> (127 - (bits >> 23));
}

// What a block found in its logits.
struct Survey {
    u64 best;   // key of the most likely token, 0 where none is possible
    u64 wrong;  // !id of the first logit that is NaN or +inf, 0 where none is
};

constexpr u32 EACH = 8;  // logits that a thread reads at once

__device__ __forceinline__ void fetch(const Row &row, u32 base, float (&v)[EACH]) {
#pragma unroll
    for (u32 e = 0; e < EACH; e++) v[e] = base + e * THREADS < row.end ? row.logits[base + e * THREADS] : -INFINITE;
}

__device__ __forceinline__ void adjust(const Row &row, const Sequence &slot, u32 base, float (&v)[EACH]) {
    u32 counts[EACH];
#pragma unroll
    for (u32 e = 0; e < EACH; e++) counts[e] = count_of(slot, min(base + e * THREADS, row.end - 1));
#pragma unroll
    for (u32 e = 0; e < EACH; e++)
        v[e] = adjusted(slot, v[e], counts[e], bias_of(slot, min(base + e * THREADS, row.end - 1)));
}

// Makes forbidden tokens impossible. A thread's tokens have the same bit of words that lie equally far from each other; what is read beyond
// a row's words belongs to tokens that are not there.
__device__ __forceinline__ void forbid(const Sequence &slot, u32 base, float (&v)[EACH]) {
    const u32 *words = slot.mask + base / 32;
    const u32 bit = 1u << base % 32;
#pragma unroll
    for (u32 e = 0; e < EACH; e++)
        if (!(words[e * (THREADS / 32)] & bit)) v[e] = -INFINITE;
}

// Reads the block's logits, the first of which are on their way, adjusts them and keeps them where they have room.
__device__ __forceinline__ Survey read_logits(const Row &row, const Sequence &slot, float (&v)[EACH]) {
    const bool changes = slot.flags & (COUNTS | BIASED | MASKED);
    float max = -INFINITE;
    u32 at = NO_TOKEN, wrong = NO_TOKEN;
#pragma unroll 1
    for (u32 base = row.begin + threadIdx.x; base < row.end; base += THREADS * EACH) {
        float next[EACH];
        if (!changes) fetch(row, base + THREADS * EACH, next);
#pragma unroll
        for (u32 e = 0; e < EACH; e++)
            if (!(v[e] < INFINITE)) wrong = min(wrong, base + e * THREADS);
        if (changes) {
            adjust(row, slot, base, v);
            if (slot.flags & MASKED) forbid(slot, base, v);
            fetch(row, base + THREADS * EACH, next);
        }
#pragma unroll
        for (u32 e = 0; e < EACH; e++) {
            const u32 token = base + e * THREADS;
            if (v[e] > max) max = v[e], at = token;
            if (row.is_held && token < row.end) shared_logits[token - row.begin] = v[e];
            v[e] = next[e];
        }
    }
    return Survey{at == NO_TOKEN ? 0 : key_of(max, at), wrong == NO_TOKEN ? 0 : (u64)~wrong};
}
