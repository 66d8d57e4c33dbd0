// x = x - (max + ln(sum(exp(x - max)))) for every row, in place; a block takes a row.
//
// Sixteen chains of additions cannot be broken and decide how long a row takes: one warp runs them over a tile in shared memory
// while the others make the next tile of exponentials, whose numbers are on their way one tile earlier.
#include "cluster.cuh"

constexpr u32 MAKERS = THREADS - 32;
constexpr u32 EACH = 8;
constexpr u32 TILE = MAKERS * EACH;
static_assert(TILE % LANES == 0, "a lane's elements stay its own from tile to tile");

struct LogSoftmaxArgs {
    float *x;  // [rows, columns]
    u64 columns;
};

__device__ __forceinline__ float row_maximum(const float *x, u32 columns) {
    __shared__ float warps[WARPS];
    float max = -INFINITE;
    for (u32 base = threadIdx.x; base < columns; base += THREADS * EACH) {
        float v[EACH];
#pragma unroll
        for (u32 e = 0; e < EACH; e++) v[e] = base + e * THREADS < columns ? x[base + e * THREADS] : max;
#pragma unroll
        for (u32 e = 0; e < EACH; e++) max = larger(max, v[e]);
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) max = larger(max, __shfl_xor_sync(ALL_LANES, max, step));
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = max;
    __syncthreads();
#pragma unroll
    for (u32 w = 0; w < WARPS; w++) max = larger(max, warps[w]);
    return max;
}

// A maker's numbers of the tile at `begin`.
__device__ __forceinline__ void fetch(const float *x, u32 columns, u32 begin, float (&v)[EACH]) {
#pragma unroll
    for (u32 e = 0; e < EACH; e++) {
        u32 at = begin + threadIdx.x - 32 + e * MAKERS;
        v[e] = at < columns ? x[at] : 0.0f;
    }
}

__device__ __forceinline__ void make(float *tile, const float (&v)[EACH], float max) {
#pragma unroll
    for (u32 e = 0; e < EACH; e++) tile[threadIdx.x - 32 + e * MAKERS] = exponential(__fadd_rn(v[e], -max));
}

__device__ __forceinline__ float add_tile(float chain, const float *tile, u32 begin, u32 columns) {
    const u32 lane = threadIdx.x, length = min(TILE, columns - begin);
    if (lane >= LANES || lane >= length) return chain;
    return add_chain(chain, tile + lane, (length - lane + LANES - 1) / LANES);
}

// The sum of exponentials; the first thread knows it.
__device__ __forceinline__ float row_sum(const float *x, u32 columns, float max) {
    __shared__ float tiles[2][TILE];
    const bool makes = threadIdx.x >= 32;
    float v[EACH], chain = 0.0f;
    if (makes) {
        fetch(x, columns, 0, v);
        make(tiles[0], v, max);
        fetch(x, columns, TILE, v);
    }
    __syncthreads();
    for (u32 begin = 0, tile = 0; begin < columns; begin += TILE, tile ^= 1) {
        if (makes) {
            make(tiles[tile ^ 1], v, max);
            fetch(x, columns, begin + 2 * TILE, v);
        } else {
            chain = add_tile(chain, tiles[tile], begin, columns);
        }
        __syncthreads();
    }
    return threadIdx.x < 32 ? sum_of_lanes(chain) : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) log_softmax(const LogSoftmaxArgs args) {
    let_dependents_start();
    wait_for_producers();
    __shared__ float shared_log_sum;
    const u32 columns = (u32)args.columns;
    float *x = args.x + blockIdx.x * args.columns;
    float max = row_maximum(x, columns);
    float sum = row_sum(x, columns, max);
    if (threadIdx.x == 0) shared_log_sum = log_sum_exp(max, sum);
    __syncthreads();
    const float log_sum = shared_log_sum;
    for (u32 base = threadIdx.x; base < columns; base += THREADS * EACH) {
        float v[EACH];
#pragma unroll
        for (u32 e = 0; e < EACH; e++) v[e] = base + e * THREADS < columns ? x[base + e * THREADS] : 0.0f;
#pragma unroll
        for (u32 e = 0; e < EACH; e++)
            if (base + e * THREADS < columns) x[base + e * THREADS] = __fadd_rn(v[e], -log_sum);
    }
}
