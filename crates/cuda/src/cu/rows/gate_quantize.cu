// What a gated feed-forward hands to its last product: f(gate) * up as INT8 codes, their scale and their sum. A cluster of eight CTAs
// takes a row, so that few tokens keep many multiprocessors loading; a thread holds its elements in registers.
#include "float_rules.cuh"

#ifndef FUNCTION
#define FUNCTION SILU
#endif

constexpr int CLUSTER = 8;
constexpr int THREADS = 256;
constexpr int EACH = 4;    // neighbours of a thread
constexpr int ROUNDS = 4;  // of them, at most

// Mirrors `GateArgs` of the host, by value.
struct GateArgs {
    const float *x;  // [m, 2 k]: gate, up; k is a multiple of 4, at most 8 * 256 * 16
    signed char *codes;
    float *scales;
    int *sums;
    float static_scale;  // above 0: one scale for all tokens
    int k, row_bytes;    // codes past k are set to 0
    int padding;
};

struct RowShare {
    float max[CLUSTER];
    int sum[CLUSTER];
};

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// The same place in the shared memory of the cluster's CTA `rank`.
template <typename T>
__device__ __forceinline__ T *of_peer(T *mine, int rank) {
    u64 theirs;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"((u64)mine), "r"(rank));
    return (T *)theirs;
}

__device__ __forceinline__ float largest_of_block(float max) {
    __shared__ float warps[THREADS / 32];
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, lane));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = max;
    __syncthreads();
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) max = fmaxf(max, warps[warp]);
    return max;
}

__device__ __forceinline__ int sum_of_block(int sum) {
    __shared__ int warps[THREADS / 32];
    sum = __reduce_add_sync(0xffffffffu, sum);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int warp = 0; warp < THREADS / 32; warp++) sum += warps[warp];
    return sum;
}

__device__ __forceinline__ u32 four_codes(const float (&v)[EACH], float inverse) {
    u32 codes = 0;
#pragma unroll
    for (int e = 0; e < EACH; e++) codes |= (u32)(u8)code_of(v[e], inverse) << (8 * e);
    return codes;
}
#endif

extern "C" __global__ void __launch_bounds__(THREADS) gate_quantize(const GateArgs args) {
#if __CUDA_ARCH__ >= 900
    let_dependents_start();
    wait_for_producers();
    __shared__ RowShare shared;
    const int row = blockIdx.x / CLUSTER, rank = blockIdx.x % CLUSTER;
    const int share = (args.row_bytes / CLUSTER + EACH) / EACH * EACH, first = rank * share;
    const int end = min(first + share, args.row_bytes);
    const float *gate = args.x + (size_t)row * 2 * args.k, *up = gate + args.k;
    float v[ROUNDS][EACH] = {}, max = 0.0f;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const int c = first + (round * THREADS + threadIdx.x) * EACH;
        if (c >= end || c >= args.k) continue;
        const float4 g = *(const float4 *)(gate + c), u = *(const float4 *)(up + c);
        v[round][0] = __fmul_rn(activated<FUNCTION>(g.x), u.x);
        v[round][1] = __fmul_rn(activated<FUNCTION>(g.y), u.y);
        v[round][2] = __fmul_rn(activated<FUNCTION>(g.z), u.z);
        v[round][3] = __fmul_rn(activated<FUNCTION>(g.w), u.w);
#pragma unroll
        for (int e = 0; e < EACH; e++) max = fmaxf(max, fabsf(v[round][e]));
    }
    max = largest_of_block(max);
    if (threadIdx.x < CLUSTER) *of_peer(&shared.max[rank], threadIdx.x) = max;
    cluster_sync();
#pragma unroll
    for (int peer = 0; peer < CLUSTER; peer++) max = fmaxf(max, shared.max[peer]);
    const bool given = args.static_scale > 0.0f;
    const Scale scale = usable_scale(given ? args.static_scale : __fdiv_rn(max, 127.0f));
    int sum = 0;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const int c = first + (round * THREADS + threadIdx.x) * EACH;
        if (c >= end) continue;
        const u32 codes = four_codes(v[round], scale.inverse);
        sum = __dp4a((int)codes, 0x01010101, sum);
        *(u32 *)(args.codes + (size_t)row * args.row_bytes + c) = codes;
    }
    sum = sum_of_block(sum);
    if (threadIdx.x == 0) *of_peer(&shared.sum[rank], 0) = sum;
    cluster_sync();
    if (rank != 0 || threadIdx.x != 0) return;
    sum = 0;
#pragma unroll
    for (int peer = 0; peer < CLUSTER; peer++) sum += shared.sum[peer];
    args.sums[row] = sum;
    args.scales[row] = scale.scale;
#endif
}
