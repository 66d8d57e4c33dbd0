// f32 rows to INT8 codes, their scale and their sum: alone, behind RMSNorm, or behind an addition and RMSNorm. What a step does between
// two products, so it counts how soon a launch is done rather than how many rows a second pass.
//
// A CTA takes a row and a thread holds its elements and their weights in registers. RMSNorm's 16 chains run in one warp, which begins
// as soon as the first elements are there: a chain takes 4 cycles a link, longer than the loads that it overlaps with. Weights are read
// before the launches in front of this one are done.
#include "codes.cuh"

#ifndef BEFORE
#define BEFORE 3  // 0: nothing; 1: RMSNorm; 3: x += y, then RMSNorm
#endif
#ifndef ROUNDS
#define ROUNDS 4  // of four neighbours that a thread holds: 4, or 1 for few rows, which keep a multiprocessor to themselves
#endif

constexpr bool NORMS = BEFORE != 0, ADDS = BEFORE == 3;
// At most; with four rounds they leave a thread 96 registers.
constexpr int MOST_THREADS = ROUNDS == 1 ? 1024 : 640;
constexpr int EACH = 4;           // neighbours of a thread
constexpr int CHUNK = 32 * EACH;  // elements of a warp, eight links of each chain
constexpr int AT_ONCE = 2;        // chunks
// A row is handed to the chains in four parts: rounds, or warps of the only one.
constexpr int PARTS = 4, OF_ROUND = PARTS / ROUNDS;
extern __shared__ float4 links[];  // [chunk][half][chain]: four links of a chain side by side

// Where a thread's four neighbours lie in the first round. Lanes take turns with the four, so that every bank is busy.
struct Places {
    int at[EACH];
};

__device__ __forceinline__ int turn_of(int lane) {
    return (lane & 2 ? 1 : 0) + (lane & 16 ? 2 : 0);
}

__device__ __forceinline__ Places places() {
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * CHUNK + lane / 16 * 64 + lane % 4 * 16 + lane / 4 % 4;
    Places to;
#pragma unroll
    for (int e = 0; e < EACH; e++) to.at[e] = first + (e ^ turn_of(lane)) * 4;
    return to;
}

__device__ __forceinline__ void hold(const Places &to, int round, const float (&v)[EACH]) {
    const int turn = turn_of(threadIdx.x % 32);
    const bool odd = turn & 1, far = turn & 2;
    const float a[EACH] = {odd ? v[1] : v[0], odd ? v[0] : v[1], odd ? v[3] : v[2], odd ? v[2] : v[3]};
    float *row = (float *)links + round * EACH * blockDim.x;
#pragma unroll
    for (int e = 0; e < EACH; e++) row[to.at[e]] = far ? a[e ^ 2] : a[e];
}

// Threads that meet at a part's barrier: those that hold it, and the first warp, which waits there while the others do not.
__device__ __forceinline__ int part_threads(int part) {
    return blockDim.x / OF_ROUND + (part % OF_ROUND ? 32 : 0);
}

__device__ __forceinline__ void arrive(int part) {
    asm volatile("bar.arrive %0, %1;" ::"r"(part + 1), "r"(part_threads(part)) : "memory");
}

__device__ __forceinline__ void wait_for_part(int part) {
    asm volatile("bar.sync %0, %1;" ::"r"(part + 1), "r"(part_threads(part)) : "memory");
}

// A lane's next links of its chain.
__device__ __forceinline__ void load_links(float4 (&v)[2 * AT_ONCE], const float4 *from) {
#pragma unroll
    for (int i = 0; i < 2 * AT_ONCE; i++) v[i] = from[i * LANES];
}

__device__ __forceinline__ float add_squares(float sum, const float4 (&v)[2 * AT_ONCE]) {
#pragma unroll
    for (int i = 0; i < 2 * AT_ONCE; i++) {
        sum = __fmaf_rn(v[i].x, v[i].x, sum);
        sum = __fmaf_rn(v[i].y, v[i].y, sum);
        sum = __fmaf_rn(v[i].z, v[i].z, sum);
        sum = __fmaf_rn(v[i].w, v[i].w, sum);
    }
    return sum;
}

// The sum of squares of a row, by the first warp. The next links are on their way while the chain, which cannot be broken, runs;
// zeros behind the row change nothing.
__device__ __forceinline__ float sum_of_squares() {
    const float4 *from = links + threadIdx.x % LANES;
    const int pairs = blockDim.x * ROUNDS / (PARTS * 64 * AT_ONCE);
    float sum = 0.0f;
    float4 even[2 * AT_ONCE], odd[2 * AT_ONCE];
    wait_for_part(0);
    load_links(even, from);
#pragma unroll 1
    for (int part = 0; part < PARTS; part++) {
#pragma unroll 1
        for (int pair = pairs; pair > 0; pair--) {
            load_links(odd, from + 32 * AT_ONCE);
            sum = add_squares(sum, even);
            from += 64 * AT_ONCE;
            const bool last = pair == 1 && part + 1 == PARTS;
            if (pair == 1 && !last) wait_for_part(part + 1);
            if (!last) load_links(even, from);
            sum = add_squares(sum, odd);
        }
    }
    return sum_of_lanes(sum);
}

__device__ __forceinline__ int column_of(int round) {
    return (round * blockDim.x + threadIdx.x) * EACH;
}

// Weights, zeros behind the row.
__device__ __forceinline__ void load_weights(const QuantizeArgs &args, float (&w)[ROUNDS][EACH]) {
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const int c = column_of(round);
        const float4 four = c < args.k ? load_constant(args.weight + c) : float4{};
        w[round][0] = four.x, w[round][1] = four.y, w[round][2] = four.z, w[round][3] = four.w;
    }
}

// A thread's elements, zeros behind the row, from its first columns of x and y on; what a norm needs is handed on round by round.
__device__ __forceinline__ void load_row(const QuantizeArgs &args, float *x, const Added *y, const Places &to, float (&v)[ROUNDS][EACH]) {
    const int step = blockDim.x * EACH;
    float4 loaded[ROUNDS] = {}, added[ROUNDS] = {};
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        if (column_of(round) >= args.k) continue;
        loaded[round] = load_fresh(x + round * step);
        if (ADDS) added[round] = load_fresh(y + round * step);
    }
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const float4 four = loaded[round], more = added[round];
        v[round][0] = ADDS ? __fadd_rn(four.x, more.x) : four.x;
        v[round][1] = ADDS ? __fadd_rn(four.y, more.y) : four.y;
        v[round][2] = ADDS ? __fadd_rn(four.z, more.z) : four.z;
        v[round][3] = ADDS ? __fadd_rn(four.w, more.w) : four.w;
        if (!NORMS) continue;
        hold(to, round, v[round]);
        if (threadIdx.x >= 32) arrive(round * OF_ROUND + threadIdx.x * OF_ROUND / blockDim.x);
    }
}

// x, where y was added.
__device__ __forceinline__ void write_sums(const QuantizeArgs &args, float *x, const float (&v)[ROUNDS][EACH]) {
#pragma unroll
    for (int round = 0; round < ROUNDS; round++)
        if (column_of(round) < args.k)
            *(float4 *)(x + round * blockDim.x * EACH) = make_float4(v[round][0], v[round][1], v[round][2], v[round][3]);
}

// 1 / sqrt(mean(x^2) + eps), known to every thread.
__device__ __forceinline__ float inverse_rms(const QuantizeArgs &args) {
    __shared__ float shared_inverse;
    if (threadIdx.x < 32) {
        const float sum = sum_of_squares();
        const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)args.k), args.eps)));
        if (threadIdx.x == 0) shared_inverse = inverse;
    }
    __syncthreads();
    return shared_inverse;
}

// The scale of a row, known to every thread.
__device__ __forceinline__ Scale row_scale(const float (&v)[ROUNDS][EACH]) {
    __shared__ float largest[MOST_THREADS / 32];
    const int lane = threadIdx.x % 32;
    float max = 0.0f;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) max = largest_of(max, v[round]);
    max = largest_of_warp(max);
    if (lane == 0) largest[threadIdx.x / 32] = max;
    __syncthreads();
    max = largest_of_warp(lane < blockDim.x / 32 ? largest[lane] : 0.0f);
    return usable_scale(__fdiv_rn(max, 127.0f));
}

__device__ __forceinline__ void write_codes(const QuantizeArgs &args, const float (&v)[ROUNDS][EACH], Scale scale, bool given) {
    __shared__ int sums[MOST_THREADS / 32];
    const int lane = threadIdx.x % 32;
    signed char *row = args.a + (size_t)blockIdx.x * args.lda;
    int sum = 0;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const int c = column_of(round);
        const u32 codes = codes_of(v[round], scale.inverse, given);
        if (c < args.lda) *(u32 *)(row + c) = codes;
        sum = sum_of_codes(codes, sum);
    }
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (lane == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = __reduce_add_sync(ALL_LANES, lane < blockDim.x / 32 ? sums[lane] : 0);
    if (lane != 0) return;
    args.a_sum[blockIdx.x] = sum;
    args.ta[blockIdx.x] = scale.scale;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS) quantize_rows(const QuantizeArgs args) {
    let_dependents_start();
    float v[ROUNDS][EACH], w[ROUNDS][EACH];
    float *x = (float *)args.x + (size_t)blockIdx.x * args.ldx + column_of(0);
    const Added *y = (const Added *)args.y + (size_t)blockIdx.x * args.k + column_of(0);
    Places to;
    if (NORMS) {
        load_weights(args, w);
        to = places();
    }
    wait_for_producers_of(x);
    load_row(args, x, y, to, v);
    if (ADDS) write_sums(args, x, v);
    if (NORMS) {
        const float inverse = inverse_rms(args);
#pragma unroll
        for (int round = 0; round < ROUNDS; round++)
#pragma unroll
            for (int e = 0; e < EACH; e++) v[round][e] = __fmul_rn(__fmul_rn(v[round][e], inverse), w[round][e]);
    }
    const bool given = args.static_ta > 0.0f;
    write_codes(args, v, given ? usable_scale(args.static_ta) : row_scale(v), given);
}
