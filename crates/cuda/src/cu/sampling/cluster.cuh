// Blocks that work on one row together: a cluster of eight on Hopper and later, one block before.
#pragma once

#include "float_rules.cuh"

#if __CUDA_ARCH__ >= 900
constexpr u32 CLUSTER = 8;
#else
constexpr u32 CLUSTER = 1;
#endif

constexpr u32 THREADS = 512;  // of a block
constexpr u32 WARPS = THREADS / 32;
constexpr u32 ALL_LANES = 0xffffffffu;

#define INFINITE __int_as_float(0x7f800000)

// Every thread of the cluster arrives; what any of them has written is seen by all.
__device__ __forceinline__ void cluster_sync() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
    __syncthreads();
#endif
}

// The same place in the shared memory of the cluster's block `rank`.
template <typename T>
__device__ __forceinline__ T *of_peer(T *mine, u32 rank) {
#if __CUDA_ARCH__ >= 900
    u64 theirs;
    asm volatile("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"((u64)mine), "r"(rank));
    return (T *)theirs;
#else
    return mine;
#endif
}

// Writes a value into every block's copy of `place`. The first threads of a block call it together.
template <typename T>
__device__ __forceinline__ void publish(T *place, T value) {
    if (threadIdx.x < CLUSTER) *of_peer(place, threadIdx.x) = value;
}

// Sums of what the threads up to and including this one hold; `total` is that of the whole block.
__device__ __forceinline__ u64 block_scan(u64 value, u64 &total) {
    __shared__ u64 warps[WARPS];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) {
        u64 before = __shfl_up_sync(ALL_LANES, value, step);
        if (lane >= step) value += before;
    }
    __syncthreads();
    if (lane == 31) warps[warp] = value;
    __syncthreads();
    total = 0;
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) {
        if (w < warp) value += warps[w];
        total += warps[w];
    }
    return value;
}

// The largest number that a thread of the block holds; thread 0 and its warp know it.
__device__ __forceinline__ u64 block_maximum(u64 value) {
    __shared__ u64 warps[WARPS];
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, value, step);
        value = other > value ? other : value;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) value = warps[w] > value ? warps[w] : value;
    return value;
}

// One lane's chain of a sum of numbers that are not negative, continued: x[0], x[16], ..., count elements. The next ones are on their
// way while the chain, which cannot be broken, runs; beyond the end are zeros, which change nothing.
__device__ __forceinline__ float add_chain(float sum, const float *x, int count) {
    constexpr int NEXT = 16;
    float v[NEXT];
#pragma unroll
    for (int e = 0; e < NEXT; e++) v[e] = e < count ? x[e * LANES] : 0.0f;
    int i = 0;
    for (; i + 2 * NEXT <= count; i += NEXT) {
        float next[NEXT];
#pragma unroll
        for (int e = 0; e < NEXT; e++) next[e] = x[(i + NEXT + e) * LANES];
#pragma unroll
        for (int e = 0; e < NEXT; e++) sum = __fadd_rn(sum, v[e]);
#pragma unroll
        for (int e = 0; e < NEXT; e++) v[e] = next[e];
    }
    float last[NEXT];
#pragma unroll
    for (int e = 0; e < NEXT; e++) last[e] = i + NEXT + e < count ? x[(i + NEXT + e) * LANES] : 0.0f;
#pragma unroll
    for (int e = 0; e < NEXT; e++) sum = __fadd_rn(sum, v[e]);
#pragma unroll
    for (int e = 0; e < NEXT; e++) sum = __fadd_rn(sum, last[e]);
    return sum;
}

// max + ln(sum), in f64 and rounded once.
__device__ __forceinline__ float log_sum_exp(float max, float sum) {
    return __double2float_rn((double)max + log((double)sum));
}
