// From int32 sums to outputs: parts of K meet, scales and bias are applied, rows go out.
#pragma once
#include "gemm_consumer.cuh"

// An output from its sum: 128 * a_sum leaves, or the sum is scaled already.
__device__ __forceinline__ float finished(int sum, Token token, float s1, float bias) {
    return scaled(sum - token.offset, token.ta, s1, bias);
}

__device__ __forceinline__ float finished(float sum, Token token, float, float bias) {
    return __fadd_rn(__fmul_rn(sum, token.ta), bias);
}

// Sums pass through shared memory as words.
__device__ __forceinline__ void add_word(int &sum, u32 word) {
    sum += (int)word;
}

__device__ __forceinline__ void add_word(float &sum, u32 word) {
    sum = __fadd_rn(sum, __uint_as_float(word));
}

__device__ __forceinline__ Token *Consumer::tokens() const {
    return (Token *)shared_at(TOKENS_AT) + group * OUT_TOKENS;
}

__device__ __forceinline__ void Consumer::load_tokens(Scales &scales, int m) const {
#pragma unroll
    for (int i = 0; i < (OUT_TOKENS + 127) / 128; i++) {
        int token = min(m + i * 128 + (int)threadIdx.x % 128, args.m - 1);
        scales.tokens[i] = Token{args.ta[token], 128 * args.a_sum[token]};
    }
}

__device__ __forceinline__ void Consumer::load_rows(Scales &scales, int n) const {
#pragma unroll
    for (int up = 0; up < 2; up++) {
        int row = min(n + warp * 16 + up * 8 + lane / 4, args.n - 1);
        scales.s1[up] = args.s1[row];
        scales.bias[up] = args.bias ? args.bias[row] : -0.0f;
    }
}

// Puts the tokens' scales where the whole warp group reads them.
__device__ __forceinline__ void Consumer::share_tokens(const Scales &scales) const {
#pragma unroll
    for (int i = 0; i < (OUT_TOKENS + 127) / 128; i++)
        if (i * 128 + threadIdx.x % 128 < OUT_TOKENS) tokens()[i * 128 + threadIdx.x % 128] = scales.tokens[i];
    group_sync(1 + group);
}

// Adds this CTA's part of a shared tile to the workspace; true for the warp group that completes the sum, which then holds all of it.
__device__ __forceinline__ bool Consumer::reduce(int sk_tile, int k_count, int m_valid) {
#if FLOAT_SCALES
    return false;  // float sums would depend on who comes first
#else
    int *sums = (int *)args.workspace + (size_t)sk_tile * (TILE_M * TILE_N) + group * SUBTILES * ACC * 128 + threadIdx.x % 128;
    int *count = (int *)args.workspace + (size_t)args.sk_tiles * (TILE_M * TILE_N) + sk_tile * WARP_GROUPS + group;
    int *last = (int *)shared_at(LAST_AT) + group;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < ACC; i++)
            if (i / 4 * 8 + lane % 4 * 2 + i % 2 < m_valid)
                asm volatile("red.relaxed.gpu.global.add.s32 [%0], %1;" ::"l"(sums + (sub * ACC + i) * 128), "r"(acc[sub][i]) : "memory");
    group_sync(1 + group);
    if (threadIdx.x % 128 == 0) {
        // The barrier put the group's reductions before this thread; its fences carry them to the device and back.
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
        int before = atomicAdd(count, k_count);
        *last = before + k_count == slots_of(args);
        if (*last) *count = 0;
        asm volatile("fence.acq_rel.gpu;" ::: "memory");
    }
    group_sync(1 + group);
    if (!*last) return false;
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < ACC; i++)
            if (i / 4 * 8 + lane % 4 * 2 + i % 2 < m_valid) {
                int *sum = sums + (sub * ACC + i) * 128;
                asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(acc[sub][i]) : "l"(sum) : "memory");
                asm volatile("st.relaxed.gpu.global.s32 [%0], %1;" ::"l"(sum), "r"(0) : "memory");
            }
    return true;
#endif
}

// Sends each part of K its tokens' sums and adds what the other parts send: acc then begins with this CTA's share.
__device__ __forceinline__ void Consumer::exchange(int tile_idx) {
    const int thread = threadIdx.x % 128;
    const u32 full = base + SUMS_FULL_AT + 8 * group;
    if (thread == 0) barrier_expect(full, (SPLIT_K - 1) * SUMS_BYTES);
    if (tile_idx > 0) barrier_wait(base + SUMS_EMPTY_AT + 8 * group, (tile_idx - 1) % 2);
    Sum own[SUBTILES][OUT_ACC];
#pragma unroll
    for (int to_part = 0; to_part < SPLIT_K; to_part++) {
        const int slot = (k_part() + SPLIT_K - to_part - 1) % SPLIT_K;  // ours there: parts after it come first
        const int to_cta = to_part * CLUSTER + n_part();
        u32 to = remote_address(base + SUMS_AT + (slot * WARP_GROUPS + group) * SUMS_BYTES + thread * 16, to_cta);
        u32 barrier = remote_address(base + SUMS_FULL_AT + 8 * group, to_cta);
#pragma unroll
        for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
            for (int i = 0; i < OUT_ACC; i += 4) {
                const Sum *v = &acc[sub][to_part * OUT_ACC + i];
                if (to_part == k_part()) {
#pragma unroll
                    for (int e = 0; e < 4; e++) own[sub][i + e] = v[e];
                } else {
                    store_remote(to + (sub * OUT_ACC + i) * 512, v, barrier);
                }
            }
    }
    barrier_wait(full, tile_idx % 2);
#pragma unroll
    for (int sub = 0; sub < SUBTILES; sub++)
#pragma unroll
        for (int i = 0; i < OUT_ACC; i += 4) {
#pragma unroll
            for (int slot = 0; slot < SPLIT_K - 1; slot++) {
                uint4 v = load_shared_16(base + SUMS_AT + (slot * WARP_GROUPS + group) * SUMS_BYTES + (sub * OUT_ACC + i) * 512 + thread * 16);
                add_word(own[sub][i], v.x);
                add_word(own[sub][i + 1], v.y);
                add_word(own[sub][i + 2], v.z);
                add_word(own[sub][i + 3], v.w);
            }
#pragma unroll
            for (int e = 0; e < 4; e++) acc[sub][i + e] = own[sub][i + e];
        }
    // The others may send the next tile's.
    group_sync(1 + group);
    if (thread < SPLIT_K && thread != k_part()) barrier_arrive(base + SUMS_EMPTY_AT + 8 * group, thread * CLUSTER + n_part());
}

__device__ __forceinline__ void Consumer::write_direct(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]) {
#pragma unroll
    for (int i = 0; i < OUT_ACC; i++) {
        int at = i / 4 * 8 + lane % 4 * 2 + i % 2, up = i / 2 % 2;
        int row = n + warp * 16 + up * 8 + lane / 4;
        Token token = tokens()[at];
        if (m + at >= args.m || row >= args.n) continue;
#if FLOAT_SCALES
        store_value(args, m + at, row, finished(acc[sub][i], token, s1[up], bias[up]));
#else
        store_one(args, m + at, row, acc[sub][i] - token.offset, token.ta, s1[up], bias[up]);
#endif
    }
}

// The transposing store puts CHUNK tokens by 64 rows of B (128 bytes) into shared memory, swizzled; rows of 128 bytes go out.
__device__ __forceinline__ void Consumer::write_staged(int sub, int m, int n, const float (&s1)[2], const float (&bias)[2]) {
    u32 staging = base + STAGING_AT + group * (CHUNK * 128);
    const bool wide = args.ldd % 8 == 0 && (u64)args.d % 16 == 0;
#pragma unroll
    for (int chunk = 0; chunk < OUT_TOKENS / CHUNK; chunk++) {
        if (m + chunk * CHUNK >= args.m) break;
#pragma unroll
        for (int j = 0; j < CHUNK / 8; j += 2) {
            u32 packed[4];
#pragma unroll
            for (int q = 0; q < 4; q++) {
                int up = q % 2, eight = chunk * (CHUNK / 8) + j + q / 2;
                const Token *token = tokens() + eight * 8 + lane % 4 * 2;
                const Sum *pair = &acc[sub][eight * 4 + up * 2];
                packed[q] = pack_half(finished(pair[0], token[0], s1[up], bias[up]), finished(pair[1], token[1], s1[up], bias[up]));
            }
            int row = (j + lane / 16) * 8 + lane % 8, column = warp * 2 + lane / 8 % 2;
            asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                             staging + row * 128 + (column ^ (row % 8)) * 16),
                         "r"(packed[0]), "r"(packed[1]), "r"(packed[2]), "r"(packed[3])
                         : "memory");
        }
        group_sync(1 + group);
#pragma unroll
        for (int i = threadIdx.x % 128; i < CHUNK * 8; i += 128) {
            int row = i / 8, column = i % 8, token = m + chunk * CHUNK + row, at = n + column * 8;
            uint4 v = load_shared_16(staging + row * 128 + (column ^ (row % 8)) * 16);
            if (token >= args.m || at >= args.n) continue;
            u16 *to = (u16 *)args.d + (size_t)token * args.ldd + at;
            if (wide && at + 8 <= args.n) {
                *(uint4 *)to = v;
            } else {
                u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
                for (int e = 0; e < 8; e++)
                    if (at + e < args.n) to[e] = (u16)(words[e / 2] >> (e % 2 * 16));
            }
        }
        group_sync(1 + group);
    }
}
