// What parts of a token leave for whoever completes it, and the codes that a token's outputs become.
//
// With CODES a warp leaves its part of a head in a row of words and counts. Whoever counts the token's last part has its team read the row:
// its largest magnitude, then the codes for the next product, their sum and their scale.
#pragma once
#include "ring_page.cuh"

__device__ __forceinline__ void team_sync() {
    asm volatile("bar.sync %0, %1;" ::"r"(this_thread() / 32 / WARPS + 1), "n"(WARPS * 32) : "memory");
}

// What spans leave says itself that it is there: whoever joins them leaves zeros, and these words are never zero. So nothing waits for
// stores to be visible, and who comes last waits only for those that are on their way. One NaN would be zero: it becomes another NaN.
__device__ __forceinline__ u32 left_word(float v) {
    return v == v ? ~__float_as_uint(v) : 0x80000000u;
}

__device__ __forceinline__ float left_float(u32 word) {
    return __uint_as_float(~word);
}

__device__ __forceinline__ void store_word(u32 *to, u32 v) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}

__device__ __forceinline__ u32 load_word(const u32 *from) {
    u32 v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
    return v;
}

#if CODES
// Tells that a part of a head is on its way to rows; how many were before it.
__device__ __forceinline__ u32 tell_finished(const AttentionArgs &args, Team &team, const Item &item) {
    u32 before = 0;
    if (this_thread() % 32 != 0) return before;
    team.tokens[warp_of_team()] = item.token;
    asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(args.finished + item.token) : "memory");
    return before;
}

// Where the last of a token's `parts` was told of, its team makes the codes.
__device__ __forceinline__ void note_complete(const AttentionArgs &args, Team &team, u32 before, u32 parts) {
    if (this_thread() % 32 != 0 || before != parts - 1) return;
    const u32 token = team.tokens[warp_of_team()];
    args.finished[token] = 0;
    team.complete = token + 1;
}

constexpr u32 NONE = ~0u;
constexpr int FOURS = 4;                         // words of a thread at once, by four
constexpr int STEP = WARPS * 32 * 4;             // from four to four
constexpr int AT_ONCE = FOURS * STEP;

// Four words each, once all are there; zeros behind the row.
__device__ __forceinline__ void load_words(const u32 *row, int first, int width, float (&v)[FOURS][4]) {
    uint4 words[FOURS];
    bool is_there;
    do {
        is_there = true;
#pragma unroll
        for (int i = 0; i < FOURS; i++) {
            const int at = first + i * STEP;
            words[i] = make_uint4(~0u, ~0u, ~0u, ~0u);
            if (at < width)
                asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(words[i].x), "=r"(words[i].y), "=r"(words[i].z), "=r"(words[i].w)
                             : "l"(row + at)
                             : "memory");
            is_there = is_there && words[i].x != 0 && words[i].y != 0 && words[i].z != 0 && words[i].w != 0;
        }
    } while (!__all_sync(ALL_LANES, is_there));
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        v[i][0] = left_float(words[i].x), v[i][1] = left_float(words[i].y);
        v[i][2] = left_float(words[i].z), v[i][3] = left_float(words[i].w);
    }
}

// Codes of a thread's words, which it leaves as zeros; adds them up.
__device__ __forceinline__ int write_codes(const AttentionArgs &args, u32 *row, signed char *codes, int first, int width, float inverse,
                                           const float (&v)[FOURS][4]) {
    int sum = 0;
#pragma unroll
    for (int i = 0; i < FOURS; i++) {
        const int at = first + i * STEP;
        if (at >= width) continue;
        u32 four = 0;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int code = code_of(v[i][e], inverse);
            sum += code;
            four |= (u32)(code & 255) << 8 * e;
        }
        *(u32 *)(codes + at) = four;
        *(uint4 *)(row + at) = make_uint4(0, 0, 0, 0);
    }
    return sum;
}

// The outputs of a token as codes, by a team. A usual row is read once.
__device__ __forceinline__ void quantize_token(const AttentionArgs &args, Team &team, u32 token) {
    const int thread = this_thread() % (WARPS * 32), warp = thread / 32, lane = thread % 32, width = args.kv_heads * (GROUP * HEAD_DIM);
    u32 *row = args.rows + (size_t)token * width;
    signed char *codes = args.codes + (size_t)token * args.code_row;
    float v[FOURS][4], max = 0.0f;
#pragma unroll 1
    for (int first = thread * 4; first - thread * 4 < width; first += AT_ONCE) {
        load_words(row, first, width, v);
#pragma unroll
        for (int i = 0; i < 4 * FOURS; i++) max = fmaxf(max, fabsf(v[i / 4][i % 4]));
    }
    max = __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(max)));
    if (lane == 0) team.row_max[warp] = max;
    team_sync();
    if (thread == 0) team.complete = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) max = fmaxf(max, team.row_max[i]);
    const Scale scale = usable_scale(args.code_scale > 0.0f ? args.code_scale : __fdiv_rn(max, 127.0f));
    int sum = 0;
#pragma unroll 1
    for (int first = thread * 4; first - thread * 4 < width; first += AT_ONCE) {
        if (width > AT_ONCE) load_words(row, first, width, v);
        sum += write_codes(args, row, codes, first, width, scale.inverse, v);
    }
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (lane == 0) team.row_sum[warp] = sum;
    team_sync();
    if (thread != 0) return;
    sum = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += team.row_sum[i];
    args.code_sums[token] = sum;
    args.code_scales[token] = scale.scale;
}
#endif
