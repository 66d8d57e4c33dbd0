// Float rows to INT8 codes, their scale and their sum (the products need both), with the operation before it fused in.
//
// One CTA a token: the row is read once, held in shared memory (as it came, or as f32 behind SwiGLU), reduced, and written as codes. Many
// small CTAs, so that some load while others compute. Every value equals the naive one bit for bit: divisions and roots are correctly
// rounded, the exponential is the project's polynomial, and RMSNorm's sum of squares runs in the specification's 16 chains (16 lanes of
// one warp; half a microsecond at k = 4,096).
#include "codes.cuh"
#include "gated.cuh"

#ifndef BEFORE
#define BEFORE 0  // 0: nothing; 1: RMSNorm; 2: SwiGLU, silu(x[c]) * x[k + c]; 3: x += y, then RMSNorm (f32)
#endif
#define NORMS (BEFORE == 1 || BEFORE == 3)
#ifndef IN
#define IN 1  // 0: f32, 1: f16, 2: bf16
#endif
#ifndef THREADS
#define THREADS 512  // at most; the launch may have fewer
#endif
#ifndef MIN_CTAS
#define MIN_CTAS 1
#endif

#if IN == 0
typedef float In;
#else
typedef u16 In;
#endif
#if BEFORE == 2
typedef float Held;
#else
typedef In Held;
#endif

constexpr int MOST_WARPS = THREADS / 32;
constexpr int EACH = 16 / sizeof(In);         // elements of a 16-byte load
constexpr int HELD_EACH = 16 / sizeof(Held);  // elements a thread turns into codes at a time
constexpr int AHEAD = BEFORE == 2 ? 2 : 4;    // loads of a thread on their way
extern __shared__ __align__(16) u8 row_bytes[];  // Held[k rounded up to 8], zeros behind k

__device__ __forceinline__ float float_of(float v) {
    return v;
}

__device__ __forceinline__ float float_of(u16 bits) {
    return IN == 2 ? float_of_bf16(bits) : float_of_f16(bits);
}

__device__ __forceinline__ float added_of(float v) {
    return v;
}

__device__ __forceinline__ float added_of(u16 bits) {
    return float_of_bf16(bits);
}

// Read once: the first-level cache is for RMSNorm's weights, which every token reads.
__device__ __forceinline__ uint4 load_once(const uint4 *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

// 16 bytes as floats: four of them, or eight 16-bit ones.
template <typename T, int COUNT>
__device__ __forceinline__ void floats_of(uint4 v, float (&to)[COUNT]) {
    const u32 words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        if (sizeof(T) == 4)
            to[i] = __uint_as_float(words[i * 4 / COUNT]);
        else
            to[i] = float_of((u16)(words[i * 4 / COUNT] >> (i % 2 * 16)));
    }
}

// Eight f32 of a thread to shared memory; lanes take turns with the halves, so that all banks are busy.
__device__ __forceinline__ void hold(float *to, const float (&v)[8]) {
    const bool swap = threadIdx.x / 4 % 2;
    float4 low = make_float4(v[0], v[1], v[2], v[3]), high = make_float4(v[4], v[5], v[6], v[7]);
    *(float4 *)(to + (swap ? 4 : 0)) = swap ? high : low;
    *(float4 *)(to + (swap ? 0 : 4)) = swap ? low : high;
}

__device__ __forceinline__ void hold(float *to, const float (&v)[4]) {
    *(float4 *)to = make_float4(v[0], v[1], v[2], v[3]);
}

// The row in shared memory, SwiGLU applied, zeros behind it; the largest magnitude this thread saw (of what is held).
__device__ __forceinline__ float load_row(const QuantizeArgs &args) {
#if BEFORE == 3
    float *x = (float *)args.x + (size_t)blockIdx.x * args.ldx;
    const Added *y = (const Added *)args.y + (size_t)blockIdx.x * args.k;
    const bool aligned = (u64)x % 16 == 0 && (u64)y % (4 * sizeof(Added)) == 0;
#else
    const In *x = (const In *)args.x + (size_t)blockIdx.x * args.ldx;
    const bool aligned = (u64)x % 16 == 0 && (BEFORE != 2 || args.k % EACH == 0);
#endif
    Held *row = (Held *)row_bytes;
    const int whole = aligned ? args.k / EACH : 0, threads = blockDim.x;
    float max = 0.0f;
    for (int i = threadIdx.x; i < whole; i += AHEAD * threads) {
        uint4 v[AHEAD], up[AHEAD];
#if BEFORE == 3
        float4 added[AHEAD];
#endif
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int at = i + a * threads;
            if (at >= whole) break;
#if BEFORE == 3
            // x is written below: it may not come through the cache of what nobody writes.
            v[a] = *((const uint4 *)x + at);
            added[a] = load_fresh(y + at * EACH);
#else
            v[a] = load_once((const uint4 *)x + at);
            if (BEFORE == 2) up[a] = load_once((const uint4 *)(x + args.k) + at);
#endif
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int at = i + a * threads;
            if (at >= whole) break;
            float f[EACH];
            floats_of<In>(v[a], f);
#if BEFORE == 2
            float g[EACH];
            floats_of<In>(up[a], g);
            gated<SILU>(f, g);
            hold(row + at * EACH, f);
#elif BEFORE == 3
            const float g[EACH] = {added[a].x, added[a].y, added[a].z, added[a].w};
#pragma unroll
            for (int e = 0; e < EACH; e++) f[e] = __fadd_rn(f[e], g[e]);
            hold(row + at * EACH, f);
            hold(x + at * EACH, f);
#else
            ((uint4 *)row)[at] = v[a];
#endif
            if (!NORMS) max = largest_of(max, f);
        }
    }
    for (int i = whole * EACH + threadIdx.x; i < (args.k + 7) / 8 * 8; i += threads) {
        if (i >= args.k) {
            row[i] = Held(0);
            continue;
        }
#if BEFORE == 2
        row[i] = __fmul_rn(activated<SILU>(float_of(x[i])), float_of(x[args.k + i]));
#elif BEFORE == 3
        row[i] = x[i] = __fadd_rn(x[i], added_of(y[i]));
#else
        row[i] = x[i];
#endif
        max = fmaxf(max, fabsf(float_of(row[i])));
    }
    __syncthreads();
    return max;
}

// One chain: count elements, LANES apart. The next ones are on their way while the chain, which cannot be broken, runs.
__device__ __forceinline__ float sum_of_squares(const Held *x, int count) {
    constexpr int NEXT = 16;
    float sum = 0.0f;
    Held v[NEXT];
    int i = 0;
#pragma unroll
    for (int e = 0; e < NEXT; e++) v[e] = e < count ? x[e * LANES] : Held(0);
    for (; i + 2 * NEXT <= count; i += NEXT) {
        Held next[NEXT];
#pragma unroll
        for (int e = 0; e < NEXT; e++) next[e] = x[(i + NEXT + e) * LANES];
#pragma unroll
        for (int e = 0; e < NEXT; e++) sum = __fmaf_rn(float_of(v[e]), float_of(v[e]), sum);
#pragma unroll
        for (int e = 0; e < NEXT; e++) v[e] = next[e];
    }
    for (; i < count; i++) sum = __fmaf_rn(float_of(x[i * LANES]), float_of(x[i * LANES]), sum);
    return sum;
}

// 1 / sqrt(mean(x^2) + eps), known to every thread.
__device__ __forceinline__ float inverse_rms(const QuantizeArgs &args) {
    __shared__ float shared_rms;
    if (threadIdx.x < 32) {
        const int lane = threadIdx.x;
        const Held *chain = (const Held *)row_bytes + lane;
        float sum = 0.0f;
        if (lane < LANES) sum = sum_of_squares(chain, (args.k - lane + LANES - 1) / LANES);
        sum = sum_of_lanes(sum);
        if (lane == 0) shared_rms = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)args.k), args.eps)));
    }
    __syncthreads();
    return shared_rms;
}

// What becomes codes: HELD_EACH values of the row from `at`, a multiple of it; behind RMSNorm scaled (zeros stay where no weight is).
__device__ __forceinline__ void values_at(const QuantizeArgs &args, int at, float inv_rms, float (&v)[HELD_EACH]) {
    floats_of<Held>(*(const uint4 *)((const Held *)row_bytes + at), v);
#if NORMS
    float w[HELD_EACH];
    if (at + HELD_EACH <= args.k && (u64)args.weight % 16 == 0) {
#pragma unroll
        for (int e = 0; e < HELD_EACH; e += 4) {
            float4 four = __ldg((const float4 *)(args.weight + at + e));
            w[e] = four.x, w[e + 1] = four.y, w[e + 2] = four.z, w[e + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int e = 0; e < HELD_EACH; e++) w[e] = at + e < args.k ? __ldg(args.weight + at + e) : 0.0f;
    }
#pragma unroll
    for (int e = 0; e < HELD_EACH; e++) v[e] = __fmul_rn(__fmul_rn(v[e], inv_rms), w[e]);
#endif
}

// The largest magnitude of the row; NaN counts as nothing.
__device__ __forceinline__ float row_maximum(float max) {
    __shared__ float warps[MOST_WARPS];
    max = largest_of_warp(max);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = max;
    __syncthreads();
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) max = fmaxf(max, warps[warp]);
    return max;
}

// Writes the codes, zeros up to lda; their sum.
template <bool CLAMP>
__device__ __forceinline__ int write_codes(const QuantizeArgs &args, float inv_rms, float inv_scale) {
    signed char *a = args.a + (size_t)blockIdx.x * args.lda;
    const int held = (args.k + 7) / 8 * 8;
    int sum = 0;
    for (int i = threadIdx.x * HELD_EACH; i < args.lda; i += blockDim.x * HELD_EACH) {
        float v[HELD_EACH] = {};
        if (i < held) values_at(args, i, inv_rms, v);
        u32 codes[HELD_EACH / 4];
#pragma unroll
        for (int four = 0; four < HELD_EACH / 4; four++) {
            codes[four] = codes_of<CLAMP>(v + 4 * four, inv_scale);
            sum = sum_of_codes(codes[four], sum);
        }
        if (HELD_EACH == 8)
            *(uint2 *)(a + i) = make_uint2(codes[0], codes[HELD_EACH / 4 - 1]);
        else
            *(u32 *)(a + i) = codes[0];
    }
    return sum;
}

__device__ __forceinline__ void write_sum(const QuantizeArgs &args, int sum) {
    __shared__ int warps[MOST_WARPS];
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    sum = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) sum += warps[warp];
    args.a_sum[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_CTAS) quantize_per_token(const QuantizeArgs args) {
    let_dependents_start();
    wait_for_producers();
    float max = load_row(args);
    float inv_rms = 1.0f;
#if NORMS
    inv_rms = inverse_rms(args);
    max = 0.0f;
    if (!(args.static_ta > 0.0f))
        for (int i = threadIdx.x * HELD_EACH; i < args.k; i += blockDim.x * HELD_EACH) {
            float v[HELD_EACH];
            values_at(args, i, inv_rms, v);
            max = largest_of(max, v);
        }
#endif
    const bool given = args.static_ta > 0.0f;
    const Scale scale = usable_scale(given ? args.static_ta : __fdiv_rn(row_maximum(max), 127.0f));
    const float inv_scale = scale.inverse;
    if (threadIdx.x == 0) args.ta[blockIdx.x] = scale.scale;
    write_sum(args, given ? write_codes<true>(args, inv_rms, inv_scale) : write_codes<false>(args, inv_rms, inv_scale));
}
