// The pairs of a token and an expert, sorted by expert and then by token, and cut into tiles of rows of one expert.
//
// A CTA takes an expert. Each counts all pairs for itself, so that no CTA waits for another: they are few words beside what experts multiply. A
// thread then takes pairs that lie together, so that one sum over the threads before it tells where its rows begin.
#include "float_rules.cuh"
#include "experts.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;
constexpr int MOST_EXPERTS = 1024;
constexpr u32 ALL_LANES = 0xffffffffu;

// Mirrors `SortArgs` of the host, by value.
struct SortArgs {
    const u32 *experts;  // [pairs]
    u32 *rows;           // [pairs] row of each pair
    u32 *tokens;         // [pairs] token of each row
    u32 *starts;         // [num_experts + 1]
    Tile *tiles;         // [most_tiles], those that are not needed without rows
    int pairs, num_chosen, num_experts, tile_rows, most_tiles;
};

// The sum over all threads.
__device__ __forceinline__ int sum_of_all(int v) {
    __shared__ int sums[WARPS];
    v = __reduce_add_sync(ALL_LANES, v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = v;
    __syncthreads();
    int sum = 0;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += sums[warp];
    return sum;
}

// The sum over the threads before this one.
__device__ __forceinline__ int sum_before(int v) {
    __shared__ int sums[WARPS];
    const int lane = threadIdx.x % 32;
    int sum = v;
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, sum, apart);
        if (lane >= apart) sum += other;
    }
    if (lane == 31) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    sum -= v;
    for (int warp = 0; warp < threadIdx.x / 32; warp++) sum += sums[warp];
    return sum;
}

__device__ __forceinline__ void place_rows(const SortArgs &args, u32 expert, int start) {
    const int own = (args.pairs + THREADS - 1) / THREADS;
    const int begin = min(own * (int)threadIdx.x, args.pairs), end = min(begin + own, args.pairs);
    int count = 0;
    for (int pair = begin; pair < end; pair++) count += args.experts[pair] == expert;
    u32 row = start + sum_before(count);
    for (int pair = begin; pair < end; pair++)
        if (args.experts[pair] == expert) {
            args.rows[pair] = row;
            args.tokens[row++] = pair / args.num_chosen;
        }
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_pairs(const SortArgs args) {
    __shared__ int counts[MOST_EXPERTS];
    const int expert = blockIdx.x;
    let_dependents_start();
    wait_for_producers();
    for (int i = threadIdx.x; i < args.num_experts; i += THREADS) counts[i] = 0;
    __syncthreads();
    for (int pair = threadIdx.x; pair < args.pairs; pair += THREADS) atomicAdd(&counts[args.experts[pair]], 1);
    __syncthreads();
    const int count = counts[expert];
    int before = 0, tiles_before = 0;
    for (int i = threadIdx.x; i < expert; i += THREADS) {
        before += counts[i];
        tiles_before += (counts[i] + args.tile_rows - 1) / args.tile_rows;
    }
    const int start = sum_of_all(before), first_tile = sum_of_all(tiles_before);
    const int tiles = (count + args.tile_rows - 1) / args.tile_rows;
    for (int i = threadIdx.x; i < tiles; i += THREADS)
        args.tiles[first_tile + i] = Tile{expert, start + i * args.tile_rows, start + min(count, (i + 1) * args.tile_rows), 0};
    if (threadIdx.x == 0) args.starts[expert] = start;
    if (expert == args.num_experts - 1) {
        if (threadIdx.x == 0) args.starts[args.num_experts] = args.pairs;
        for (int i = first_tile + tiles + threadIdx.x; i < args.most_tiles; i += THREADS) args.tiles[i] = Tile{0, 0, 0, 0};
    }
    if (count > 0) place_rows(args, expert, start);
}
