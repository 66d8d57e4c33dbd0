// A page that all rows of a warp see as a whole and whose scores lie near each other: the rules' results in fewer instructions.
//
// Every step gives the bits of the rules in a range that is checked, in the end and for all rows of the warp at once; where a page
// leaves it, nothing has changed and the warp takes it by the rules.
#pragma once
#include "attention_rows.cuh"

// Products of codes begin at a power of two that keeps them from being negative: as bits of a float a sum up to 2^24 is that many times
// 2^-149, since the least normal floats lie as close as those below them. So a sum becomes a float as it is multiplied, and rounds once.
constexpr float LIFT = 1.2676506e30f;    // 2^100: products stand 2^49 too low, which rounds nothing here
constexpr float UNLIFT = 5.6294995e14f;  // 2^49
constexpr int SEAM_BITS = 0x00800000;
constexpr float SEAM = 1.17549435e-38f;  // 2^-126: products that begin there are not negative, and no float below is normal
// Scores are counted in 2^22. Times 2^-127 such a number becomes a whole one times 2^-149, as no float lies between those. Which way
// halves go shows in no bit: 2^0.5 is exactly twice 2^-0.5.
constexpr float COUNT = 2.3841858e-7f;       // 2^-22
constexpr float UNCOUNT = 4194304.0f;        // 2^22
constexpr float TO_WHOLE = 5.877472e-39f;    // 2^-127
constexpr float FROM_WHOLE = 1.7014118e38f;  // 2^127
constexpr int LEAST_SCORE = (127 - 30 - 22) << 23, MOST_SCORE = (127 + 30 - 22) << 23;  // of a page's largest score, in magnitude
constexpr int LEAST_WEIGHT = (127 - 99) << 23, MOST_WEIGHT = (127 + 99) << 23;

// What a row's sums are multiplied by; NaN where products leave the range.
__device__ __forceinline__ float plain_factor(float query_scale, float scale) {
    const bool fits = query_scale == 0.0f || query_scale < 1e8f && query_scale > 1e-18f;
    return fits && scale > 1e-9f && scale < 1024.0f ? query_scale * LIFT : __int_as_float(0x7fffffff);
}

// Bits of a row's largest score: at least these. Rows of zeros have none but zeros.
__device__ __forceinline__ int least_score(float factor) {
    return factor == 0.0f ? 0 : LEAST_SCORE;
}

__device__ __forceinline__ int largest_bits(int a, int b, int c) {
    return __vimax3_s32(a, b, c);
}

// The largest of a row's scores that are not negative, or any negative number.
__device__ __forceinline__ int largest_of_row(int v) {
    v = max(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return max(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

// Scores, and bits of the largest one of each row, from sums that began at `start` times 2^149.
__device__ __forceinline__ void score_plain(u32 thread, const AttentionArgs &args, const PageScales &page, float start, const float (&factors)[2],
                                            const int (&sums)[8][4], float (&v)[8][4], int (&largest)[2]) {
    const int quad = thread % 4;
    const float scale = args.scale * (UNLIFT * COUNT);
    const float starts[2] = {factors[0] * start, factors[1] * start};
    largest[0] = largest[1] = (int)0x80000000;
#pragma unroll
    for (int t = 0; t < 8; t++) {
        const float2 key_scales =
            FORMAT == 2 ? *(const float2 *)(page.keys + t * 8 + quad * 2) : make_float2(args.key_scale, args.key_scale);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            v[t][i] = __fmaf_rn(__int_as_float(sums[t][i]), factors[i / 2], -starts[i / 2]) * (i % 2 ? key_scales.y : key_scales.x) * scale;
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            largest[r] = largest_bits(largest[r], __float_as_int(v[t][r * 2]), __float_as_int(v[t][r * 2 + 1]));
        }
    }
}

// The rows' references, from bits that hold them unless scores are negative or out of the range. False: the range does not hold them.
__device__ __forceinline__ bool find_references(const float (&factors)[2], const float (&v)[8][4], const int (&largest)[2],
                                                float (&references)[2]) {
    int bits[2];
    bool found = true;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        bits[r] = largest_of_row(largest[r]);
        found = found && bits[r] >= least_score(factors[r]) && bits[r] < MOST_SCORE;
        references[r] = ceilf(__int_as_float(bits[r]) * UNCOUNT);
    }
    if (__builtin_expect(__all_sync(0xffffffffu, found), 1)) return true;
    found = true;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        // Of negative scores the largest has the least bits.
        int least = 0x7fffffff;
#pragma unroll
        for (int t = 0; t < 8; t++) least = __vimin3_s32(least, __float_as_int(v[t][r * 2]), __float_as_int(v[t][r * 2 + 1]));
        least = min(least, __shfl_xor_sync(0xffffffffu, least, 1));
        least = min(least, __shfl_xor_sync(0xffffffffu, least, 2));
        const int largest_bits = bits[r] < 0 ? least : bits[r], size = largest_bits & 0x7fffffff;
        found = found && bits[r] < MOST_SCORE && size >= least_score(factors[r]) && size < MOST_SCORE;
        references[r] = ceilf(__int_as_float(largest_bits) * UNCOUNT);
    }
    return found;
}

// Wide pages count numerators in 2^-62, so that those below 2^-64, which the rules make 0, are no normal floats, and a product makes them 0.
constexpr float WIDE_UNIT = 0x1p-62f, OF_WIDE_UNIT = 0x1p62f;
constexpr int LEAST_WIDE_WEIGHT = (127 - 110) << 23;
constexpr float FAR = 127.0f / 4194304.0f;

// 2^-t for t from 0 to 63, counted in 2^22; `seen` collects bits that say whether t was in there. Coefficients are powers of 2^22 too
// large, each as the degree asks, so that the polynomial's values are those of the rules. WIDE: for all t from 0.
template <bool WIDE>
__device__ __forceinline__ float power_below_one(float t, u32 &seen) {
    constexpr float unit = WIDE ? WIDE_UNIT : 1.0f;
    if (WIDE) t = fminf(t, FAR);
    const float whole = t * TO_WHOLE;
    const float r = __fmaf_rn(whole, FROM_WHOLE, -t);
    float p = __fmaf_rn(0.0013255947f * 0x1p110f * unit, r, 0.009671229f * 0x1p88f * unit);
    p = __fmaf_rn(p, r, 0.055507686f * 0x1p66f * unit);
    p = __fmaf_rn(p, r, 0.24022248f * 0x1p44f * unit);
    p = __fmaf_rn(p, r, 0.69314694f * 0x1p22f * unit);
    p = __fmaf_rn(p, r, unit);
    if (WIDE) {
        // 2^-127 is 0 here.
        const float power = __uint_as_float(0x3f800000u - (__float_as_uint(whole) << 23));
        float product;
        asm volatile("mul.rn.ftz.f32 %0, %1, %2;" : "=f"(product) : "f"(p), "f"(power));
        return product;
    }
    seen |= __float_as_uint(whole);
    return __uint_as_float(__float_as_uint(p) - (__float_as_uint(whole) << 23));
}

// A row's weights before they are codes, the sum of its numerators, and bits of the heaviest. False: out of the range.
struct PlainWeights {
    float sum;
    int heaviest;
    bool found;
};

template <bool WIDE>
__device__ __forceinline__ PlainWeights weigh_plain(u32 thread, const AttentionArgs &args, const PageScales &page, float reference, float (&v)[8][4], int first) {
    const int quad = thread % 4;
    float chain[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
    int heaviest = 0;
    u32 seen = 0;
    reference = reference * COUNT;
#pragma unroll
    for (int t = 0; t < 8; t++) {
        // Not all of them at once: registers hold the outputs.
        if (WIDE) __syncwarp();
        const float2 value_scales =
            FORMAT == 2 ? *(const float2 *)(page.values + t * 8 + quad * 2) : make_float2(args.value_scale, args.value_scale);
#pragma unroll
        for (int c = 0; c < 2; c++) {
            const float numerator = power_below_one<WIDE>(reference - v[t][first + c], seen);
            chain[t % 2][c] = t < 2 ? numerator : chain[t % 2][c] + numerator;
            v[t][first + c] = numerator * (c ? value_scales.y : value_scales.x);
        }
        heaviest = largest_bits(heaviest, __float_as_int(v[t][first]), __float_as_int(v[t][first + 1]));
    }
    float sums[2];
#pragma unroll
    for (int c = 0; c < 2; c++) {
        sums[c] = chain[0][c] + chain[1][c];
        sums[c] = sums[c] + __shfl_xor_sync(0xffffffffu, sums[c], 2);
        sums[c] = sums[c] + __shfl_xor_sync(0xffffffffu, sums[c], 1);
    }
    return PlainWeights{sums[0] + sums[1], largest_of_row(heaviest), (seen & ~63u) == 0};
}

// Four weights to codes, ties to even; a matrix's operand holds `a` in its lowest byte.
__device__ __forceinline__ u32 codes_of(float a, float b, float c, float d) {
    u32 codes;
    asm("{\n.reg .s32 a, b, c, d;\n"
        "cvt.rni.s32.f32 a, %1;\ncvt.rni.s32.f32 b, %2;\ncvt.rni.s32.f32 c, %3;\ncvt.rni.s32.f32 d, %4;\n"
        "cvt.pack.sat.s8.s32.b32 c, d, c, 0;\ncvt.pack.sat.s8.s32.b32 %0, b, a, c;\n}"
        : "=r"(codes)
        : "f"(a), "f"(b), "f"(c), "f"(d));
    return codes;
}

__device__ __forceinline__ void code_weights(const float (&v)[8][4], const Scale (&scales)[2], u32 (&weights)[2][4]) {
#pragma unroll
    for (int s = 0; s < 2; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int t = s * 4 + i / 2 * 2, c = i % 2 * 2;
            const float inverse = scales[i % 2].inverse;
            weights[s][i] = codes_of(v[t][c] * inverse, v[t][c + 1] * inverse, v[t + 1][c] * inverse, v[t + 1][c + 1] * inverse);
        }
    }
}

// 2^n for a whole number up to 0; 0 below -64.
__device__ __forceinline__ float power_of_whole(float n) {
    const float scaled = __uint_as_float(__float_as_uint(n + 8388735.0f) << 23);
    return n < -64.0f ? 0.0f : scaled;
}

// What the warp has of the page joins its span: sums of numerators now, outputs by what is returned.
template <bool WIDE>
__device__ __forceinline__ void join_plain(RowState (&rows)[2], const float (&references)[2], const PlainWeights (&weights)[2],
                                           const Scale (&scales)[2], PageJoin (&joins)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float reference = fmaxf(rows[r].reference, references[r]);
        joins[r].before = power_of_whole(rows[r].reference - reference);
        const float added = power_of_whole(references[r] - reference);
        rows[r].reference = reference;
        rows[r].sum = rows[r].sum * joins[r].before;
        const float unit = WIDE ? OF_WIDE_UNIT : 1.0f;
        rows[r].sum = __fmaf_rn(weights[r].sum * unit, added, rows[r].sum);
        joins[r].factor = scales[r].scale * unit * added;
    }
}

// Scores that a row does not see are less than all others.
__device__ __forceinline__ void hide_plain(const Rows &kept, int window, int page, float (&v)[8][4], int (&largest)[2]) {
    hide_unseen(kept, window, page, v);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        largest[r] = (int)0x80000000;
#pragma unroll
        for (int t = 0; t < 8; t++) largest[r] = largest_bits(largest[r], __float_as_int(v[t][r * 2]), __float_as_int(v[t][r * 2 + 1]));
    }
}

// A page's weights, and how they join. False: nothing has changed, the page goes by the rules. WIDE: scores may lie apart, and rows need
// not see all of them.
template <bool WIDE>
__device__ __forceinline__ bool weigh_plain_page(u32 thread, const AttentionArgs &args, const PageScales &scales_of_page, const Rows &kept, float start,
                                                 const int (&sums)[8][4], RowState (&rows)[2], u32 (&weights)[2][4], PageJoin (&joins)[2], int page = 0,
                                                 bool whole = true) {
    int largest[2];
    float v[8][4], references[2];
    const int row = thread / 32 * 16 + thread % 32 / 4;
    const float factors[2] = {kept.plain_factor[row], kept.plain_factor[row + 8]};
    score_plain(thread, args, scales_of_page, start, factors, sums, v, largest);
    if (WIDE && !whole) hide_plain(kept, args.window, page, v, largest);
    bool found = find_references(factors, v, largest, references);
    PlainWeights weighed[2];
    constexpr int least = WIDE ? LEAST_WIDE_WEIGHT : LEAST_WEIGHT;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        weighed[r] = weigh_plain<WIDE>(thread, args, scales_of_page, references[r], v, r * 2);
        found = found && weighed[r].found && weighed[r].heaviest >= least && weighed[r].heaviest < MOST_WEIGHT;
    }
    if (__builtin_expect(!__all_sync(0xffffffffu, found), 0)) return false;
    const Scale scales[2] = {scale_in_range(__int_as_float(weighed[0].heaviest)), scale_in_range(__int_as_float(weighed[1].heaviest))};
    code_weights(v, scales, weights);
    join_plain<WIDE>(rows, references, weighed, scales, joins);
    return true;
}
