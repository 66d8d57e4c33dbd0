// Warp groups that attend a tile of a prompt: shared memory, products, queries and outputs (see attention_prompt_sm90.cu).
#pragma once

#ifndef GROUPS
#define GROUPS 3  // of four warps, 64 rows each
#endif
#ifndef STAGES
#define STAGES 5  // pages in shared memory
#endif
#ifndef ROTATES
#define ROTATES 0  // 1: queries are rotated here, where the step's angles are given
#endif

constexpr int WARPS = GROUPS * 4;
#include "attention_parts.cuh"
#include "attention_plain.cuh"

constexpr int THREADS = WARPS * 32 + 128;
constexpr int STEPS = ROW / 32;
constexpr u32 BRINGERS = 4;        // warps that bring pages
constexpr int PARTS = STAGES + 2;  // that warps may be at: each has a page in the ring, but for the one that a warp has just left
constexpr int REGISTERS = 160;     // of a thread that attends
constexpr u32 ALL_LANES = 0xffffffffu;
static_assert(HEAD_DIM == 128, "keys and queries in rows of 128 bytes, a warp's four elements a lane");
static_assert(GROUPS == 3, "warp groups that share the registers");

// Keys, queries and values lie as the products read them: pieces of 16 bytes of a row change places, by the row's number.
struct Shared {
    alignas(1024) u8 keys[STAGES][PAGE * ROW];
    u8 values[STAGES][ROW * PAGE];
    u8 queries[GROUPS][64 * ROW];
    float4 total[WARPS][TILES][32];
    float key_scales[STAGES][PAGE], value_scales[STAGES][PAGE];
    Rows rows;
    u8 lift[2][128];  // see `begin_scores`
    u64 full[STAGES], empty[STAGES];
    Part parts[PARTS];
    Cut cuts[2];
};
#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host's count of shared memory");
#endif

extern __shared__ __align__(1024) u8 shared_bytes[];

__device__ __forceinline__ void barrier_init(u64 &barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u64 &barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// Until the barrier's use number `use`, counted from 0, is complete.
__device__ __forceinline__ void barrier_wait(u64 &barrier, u32 use) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra ready;\n"
        "bra again;\n"
        "ready:\n}" ::"r"(shared_address(&barrier)),
        "r"(use & 1)
        : "memory");
}

// What threads have written is seen by the products of whoever passes a barrier after this.
__device__ __forceinline__ void show_to_products() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

template <int COUNT>
__device__ __forceinline__ void registers_give() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ __forceinline__ void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

__device__ __forceinline__ void products_begin() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until no more than the last LEFT that were committed are on their way.
template <int LEFT>
__device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// Where an operand lies, in units of 16 bytes: rows of 128 bytes in groups of eight, 1,024 bytes apart...
__device__ __forceinline__ u64 rows_of_128(const void *p) {
    return (u64)(shared_address(p) >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

// ...rows of 64 bytes in groups of eight, 512 bytes apart...
__device__ __forceinline__ u64 rows_of_64(const void *p) {
    return (u64)(shared_address(p) >> 4) | (u64)1 << 16 | (u64)(512 >> 4) << 32 | (u64)2 << 62;
}

// ...and eight rows of 16 bytes that stand for all rows and both halves of a step.
__device__ __forceinline__ u64 same_rows(const void *p) {
    return (u64)(shared_address(p) >> 4);
}

#define SUMS_4(i) "+r"(d[i][0]), "+r"(d[i][1]), "+r"(d[i][2]), "+r"(d[i][3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 1), SUMS_4(i + 2), SUMS_4(i + 3)
#define LIST_32                                                                                         \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, " \
    "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"

// Sums of a group's 64 queries and 64 keys over 32 elements, added to `d`.
__device__ __forceinline__ void multiply_keys(int (&d)[8][4], u64 queries, u64 keys) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 " LIST_32 "}, %32, %33, 1;"
                 : SUMS_16(0), SUMS_16(4)
                 : "l"(queries), "l"(keys));
}

// The same of bytes without a sign, alone in `d`.
__device__ __forceinline__ void multiply_lifts(int (&d)[8][4], u64 a, u64 b) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k32.s32.u8.u8 " LIST_32 "}, %32, %33, keep;\n}"
                 : SUMS_16(0), SUMS_16(4)
                 : "l"(a), "l"(b), "r"(0));
}

// Sums of weights and half of the values' elements over 32 positions; `keep`: added to `d`.
__device__ __forceinline__ void multiply_values(int (&d)[8][4], const u32 (&a)[4], u64 values, int keep) {
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8 " LIST_32 "}, {%32, %33, %34, %35}, %36, keep;\n}"
                 : SUMS_16(0), SUMS_16(4)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values), "r"(keep));
}

// Scores begin at 2^20 = 2 * (14 * 128 * 255 + 255 * 255 + 49 * 47), so that sums become scores as those of attention_prompt do. A sum
// below -2^20 is no number then, and its page goes by the rules.
constexpr float LIFTED = 0x1p-129f;  // 2^20 * 2^-149, see attention_plain.cuh

// Eight rows of 16 numbers for each of the operands.
__device__ __forceinline__ void write_lifts(Shared &shared) {
    if (threadIdx.x >= 256) return;
    const u32 k = threadIdx.x % 16;
    const bool is_first = threadIdx.x < 128;
    shared.lift[threadIdx.x / 128][threadIdx.x % 128] = k < 14 ? (is_first ? 128 : 255) : k == 14 ? 255 : is_first ? 49 : 47;
    show_to_products();
}

// Scores of a group's 64 queries and a page, as sums, behind `products_begin`; on their way until `products_wait`.
__device__ __forceinline__ void begin_scores(int (&sums)[8][4], u64 lift, u64 queries, u64 keys) {
    multiply_lifts(sums, lift, lift + 8);
#pragma unroll
    for (int s = 0; s < STEPS; s++) multiply_keys(sums, queries + s * 2, keys + s * 2);
    products_commit();
}

__device__ __forceinline__ void group_sync() {
    asm volatile("bar.sync %0, 128;" ::"r"(threadIdx.x / 128 + 1) : "memory");
}

constexpr int AT_ONCE = 8;  // queries of a warp that are on their way: more need registers that rotation takes

// Rotates queries, rows of a tile from `first` on: the other element of each of a lane's pairs is sixteen lanes further on.
__device__ __forceinline__ void rotate_queries(const float *angles, const Tile &tile, int first, float4 (&v)[AT_ONCE]) {
    const int lane = thread_again() % 32;
    float4 cos, sin;
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        // A token's heads lie side by side.
        if (AT_ONCE % GROUP != 0 || i % GROUP == 0) {
            const int token = tile.token + max(token_of_row(tile, first + i), 0);
            const float4 *of_token = (const float4 *)(angles + (size_t)token * HEAD_DIM) + lane % 16;
            cos = of_token[0], sin = of_token[16];
            if (lane < 16) sin = make_float4(-sin.x, -sin.y, -sin.z, -sin.w);
        }
        v[i].x = __fadd_rn(__fmul_rn(v[i].x, cos.x), __fmul_rn(__shfl_xor_sync(ALL_LANES, v[i].x, 16), sin.x));
        v[i].y = __fadd_rn(__fmul_rn(v[i].y, cos.y), __fmul_rn(__shfl_xor_sync(ALL_LANES, v[i].y, 16), sin.y));
        v[i].z = __fadd_rn(__fmul_rn(v[i].z, cos.z), __fmul_rn(__shfl_xor_sync(ALL_LANES, v[i].z, 16), sin.z));
        v[i].w = __fadd_rn(__fmul_rn(v[i].w, cos.w), __fmul_rn(__shfl_xor_sync(ALL_LANES, v[i].w, 16), sin.w));
    }
}

// Queries to codes, and their scales: rows of a tile from `first` on.
__device__ __forceinline__ void code_queries(const AttentionArgs &args, u8 *codes, Rows &rows, int first, const float4 (&v)[AT_ONCE]) {
    const int lane = thread_again() % 32;
    float mine = 0.0f;
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        const float max = fmaxf(fmaxf(fmaxf(fmaxf(0.0f, fabsf(v[i].x)), fabsf(v[i].y)), fabsf(v[i].z)), fabsf(v[i].w));
        const float largest = __uint_as_float(__reduce_max_sync(ALL_LANES, __float_as_uint(max)));
        mine = lane == i ? largest : mine;
    }
    const Scale scale = usable_scale(__fdiv_rn(mine, 127.0f));
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++) {
        const int row = first % 64 + i;
        const float inverse = __shfl_sync(ALL_LANES, scale.inverse, i);
        const u32 low = code_of(v[i].x, inverse) & 255 | (code_of(v[i].y, inverse) & 255) << 8;
        const u32 high = code_of(v[i].z, inverse) & 255 | (code_of(v[i].w, inverse) & 255) << 8;
        *(u32 *)(codes + row * ROW + (lane / 4 ^ row % 8) * 16 + lane % 4 * 4) = low | high << 16;
    }
    if (lane < AT_ONCE) {
        rows.query_scale[first + lane] = scale.scale;
        rows.plain_factor[first + lane] = plain_factor(scale.scale, args.scale);
    }
}

// A warp's queries to codes, and their scales; rotated before where the step's angles are given.
__device__ __forceinline__ void prepare_queries(const AttentionArgs &args, u8 *codes, const Tile &tile, Rows &rows) {
    const int thread = thread_again(), warp = thread / 32, lane = thread % 32;
#pragma unroll 1
    for (int first = warp * 16; first < warp * 16 + 16; first += AT_ONCE) {
        float4 v[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int row = first + i, token = token_of_row(tile, row);
            const float *q = args.x + (size_t)(tile.token + max(token, 0)) * args.x_row + (tile.kv_head * GROUP + row % GROUP) * HEAD_DIM;
            v[i] = token >= 0 ? ((const float4 *)q)[lane] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
#if ROTATES
        if (args.angles != nullptr) rotate_queries(args.angles, tile, first, v);
#endif
        code_queries(args, codes, rows, first, v);
    }
    show_to_products();
    group_sync();
}

// Scores of a warp's 16 queries and a page, as sums, where a warp goes by itself.
__device__ __forceinline__ void multiply_keys_alone(const u8 *queries, const u8 *keys, int start, int (&sums)[8][4]) {
    const int thread = thread_again(), lane = thread % 32;
    const u8 *query_row = queries + (thread / 32 % 4 * 16 + lane % 16) * ROW;
    const u8 *key_row = keys + (lane / 16 * 8 + lane % 8) * ROW;
#pragma unroll
    for (int t = 0; t < 8; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) sums[t][i] = start;
    }
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        u32 query[4];
        load_matrices(query, query_row + ((s * 2 + lane / 16) ^ lane % 8) * 16);
#pragma unroll
        for (int t = 0; t < 8; t += 2) {
            u32 two[4];
            load_matrices(two, key_row + t * 8 * ROW + ((s * 2 + lane / 8 % 2) ^ lane % 8) * 16);
            multiply_codes(sums[t], query, two[0], two[1], sums[t]);
            multiply_codes(sums[t + 1], query, two[2], two[3], sums[t + 1]);
        }
    }
}

__device__ __forceinline__ void weigh_nothing(u32 (&weights)[2][4], PageJoin (&joins)[2]) {
#pragma unroll
    for (int i = 0; i < 8; i++) weights[i / 4][i % 4] = 0;
    joins[0] = joins[1] = PageJoin{1.0f, 0.0f};
}

// The sums of half of a page's values, behind `products_begin`; on their way until `products_wait`.
__device__ __forceinline__ void begin_values(int (&sums)[TILES / 2][4], const u32 (&weights)[2][4], u64 values) {
    multiply_values(sums, weights[0], values, 0);
    multiply_values(sums, weights[1], values + 2, 1);
    products_commit();
}

__device__ __forceinline__ void bring_to_reference(const PageJoin (&joins)[2], float (&out)[TILES][4]) {
    if (__all_sync(ALL_LANES, joins[0].before == 1.0f && joins[1].before == 1.0f)) return;
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) out[i / 4][i % 4] = out[i / 4][i % 4] * joins[i / 2 % 2].before;
}

template <int FIRST>
__device__ __forceinline__ void add_values(const int (&sums)[TILES / 2][4], const PageJoin (&joins)[2], float (&out)[TILES][4]) {
#pragma unroll
    for (int t = 0; t < TILES / 2; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) out[FIRST + t][i] = __fmaf_rn((float)sums[t][i], joins[i / 2].factor, out[FIRST + t][i]);
    }
}

// The span joins the whole, and the next one begins.
__device__ __forceinline__ void join_span(float4 (&total)[TILES][32], Rows &kept, RowState (&rows)[2], float (&out)[TILES][4]) {
    const int lane = threadIdx.x % 32;
    Join joins[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first_row() + r * 8;
        joins[r] = join_of(kept.whole_reference[row], rows[r].reference);
        const float sum = __fmaf_rn(rows[r].sum, joins[r].added, kept.whole_sum[row] * joins[r].before);
        __syncwarp();  // four lanes read what they all write
        kept.whole_sum[row] = sum;
        kept.whole_reference[row] = joins[r].reference;
        rows[r].reference = -LARGEST;
        rows[r].sum = 0.0f;
    }
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        // Not all of them at once: registers hold the outputs.
        if (t % 4 == 0) __syncwarp();
        float4 whole = total[t][lane];
        whole.x = __fmaf_rn(out[t][0], joins[0].added, whole.x * joins[0].before);
        whole.y = __fmaf_rn(out[t][1], joins[0].added, whole.y * joins[0].before);
        whole.z = __fmaf_rn(out[t][2], joins[1].added, whole.z * joins[1].before);
        whole.w = __fmaf_rn(out[t][3], joins[1].added, whole.w * joins[1].before);
        total[t][lane] = whole;
#pragma unroll
        for (int i = 0; i < 4; i++) out[t][i] = 0.0f;
    }
}

// What a warp leaves of a tile to the block that goes on with it: the whole, the span, and both of their references and sums. Some
// twenty kilobytes, in memory that all blocks see.
struct Passed {
    float4 total[TILES][32], out[TILES][32], rows[32], whole[32];
};

__device__ __forceinline__ Passed &passed_to(const AttentionArgs &args, u32 block) {
    return ((Passed *)args.passed)[block * WARPS + threadIdx.x / 32];
}

// A flag of a warp, 0 between launches.
__device__ __forceinline__ u32 *passed_flag(const AttentionArgs &args, u32 block) {
    return args.passed_flags + block * WARPS + threadIdx.x / 32;
}

__device__ __forceinline__ void pass_rows(const AttentionArgs &args, const float4 (&total)[TILES][32], const Rows &kept, const RowState (&rows)[2],
                                          const float (&out)[TILES][4]) {
    const int lane = threadIdx.x % 32, row = first_row();
    Passed &passed = passed_to(args, blockIdx.x + 1);
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        // Not all of them at once: registers hold the outputs.
        if (t % 4 == 0) __syncwarp();
        passed.out[t][lane] = make_float4(out[t][0], out[t][1], out[t][2], out[t][3]);
        passed.total[t][lane] = total[t][lane];
    }
    passed.rows[lane] = make_float4(rows[0].reference, rows[0].sum, rows[1].reference, rows[1].sum);
    passed.whole[lane] = make_float4(kept.whole_reference[row], kept.whole_sum[row], kept.whole_reference[row + 8], kept.whole_sum[row + 8]);
    __syncwarp();
    if (lane == 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(passed_flag(args, blockIdx.x + 1)) : "memory");
}

__device__ __forceinline__ void take_rows(const AttentionArgs &args, float4 (&total)[TILES][32], Rows &kept, RowState (&rows)[2], float (&out)[TILES][4]) {
    const int lane = threadIdx.x % 32, row = first_row();
    u32 *flag = passed_flag(args, blockIdx.x);
    u32 there;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(there) : "l"(flag) : "memory");
    while (there == 0);
    const Passed &passed = passed_to(args, blockIdx.x);
#pragma unroll
    for (int t = 0; t < TILES; t++) {
        if (t % 4 == 0) __syncwarp();  // not all of them at once here either
        const float4 v = __ldcg(&passed.out[t][lane]);
        out[t][0] = v.x, out[t][1] = v.y, out[t][2] = v.z, out[t][3] = v.w;
        total[t][lane] = __ldcg(&passed.total[t][lane]);
    }
    const float4 span = __ldcg(&passed.rows[lane]), whole = __ldcg(&passed.whole[lane]);
    rows[0] = RowState{span.x, span.y};
    rows[1] = RowState{span.z, span.w};
    kept.whole_reference[row] = whole.x, kept.whole_sum[row] = whole.y;
    kept.whole_reference[row + 8] = whole.z, kept.whole_sum[row + 8] = whole.w;
    __syncwarp();
    if (lane == 0) *flag = 0;
}

__device__ __forceinline__ void write_rows(const AttentionArgs &args, const Tile &tile, const float4 (&total)[TILES][32], const Rows &rows) {
    const int thread = thread_again(), warp = thread / 32, lane = thread % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8, token = token_of_row(tile, row);
        if (token < 0) continue;
        const Whole whole = with_sink(args, tile.kv_head * GROUP + row % GROUP, rows.whole_reference[row], rows.whole_sum[row]);
        const float inverse = __fdiv_rn(1.0f, whole.sum);
        float *out = args.out + ((size_t)(tile.token + token) * args.kv_heads * GROUP + tile.kv_head * GROUP + row % GROUP) * HEAD_DIM;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            const float2 v = ((const float2 *)&total[t][lane])[r];
            *(float2 *)(out + t * 8 + lane % 4 * 2) =
                make_float2(v.x * whole.before * inverse + 0.0f, v.y * whole.before * inverse + 0.0f);
        }
    }
}
