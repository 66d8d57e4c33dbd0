// The experts of few tokens and their pairs, sorted: `route` and `sort_pairs` in one CTA, which spares a decoding step a launch.
#include "routing.cuh"
#include "sorted_pairs.cuh"

constexpr int MOST_TOKENS = 32;
constexpr int MOST_EXPERTS = 32 * LANE_EXPERTS;
constexpr int MOST_PAIRS = 256;
constexpr int SORTING_WARPS = MOST_EXPERTS / 32;  // the fewest that a CTA has

// Mirrors `RouteFewArgs` of the host, by value.
struct RouteFewArgs {
    RouteArgs route;
    SortArgs sort;
};

constexpr u32 NOBODY = 0xffffffffu;  // the expert of what is behind the last pair

// Thread e takes expert e; it looks at four pairs at a time. Counts of rows and of tiles are added up in one word.
__device__ __forceinline__ void sort_pairs(const SortArgs &args, const u32 *experts) {
    __shared__ u32 sums[SORTING_WARPS];
    const u32 expert = threadIdx.x, lane = threadIdx.x % 32;
    u32 count = 0;
#pragma unroll 4
    for (int pair = 0; pair < args.pairs; pair += 4) {
        const uint4 four = *(const uint4 *)(experts + pair);
        count += (four.x == expert) + (four.y == expert) + (four.z == expert) + (four.w == expert);
    }
    const u32 own = count | num_tiles(args, count) << 16;
    u32 sum = own;
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, sum, apart);
        if (lane >= apart) sum += other;
    }
    if (lane == 31 && threadIdx.x < MOST_EXPERTS) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    u32 all = 0;
#pragma unroll
    for (int warp = 0; warp < SORTING_WARPS; warp++) {
        if (warp < threadIdx.x / 32) sum += sums[warp];
        all += sums[warp];
    }
    const int start = (sum - own) & 0xffff;
    if (expert < args.num_experts) {
        args.starts[expert] = start;
        if (expert == args.num_experts - 1) args.starts[args.num_experts] = args.pairs;
        write_tiles(args, expert, start, start + count, (sum - own) >> 16);
    }
    for (int i = (all >> 16) + threadIdx.x; i < args.most_tiles; i += blockDim.x) args.tiles[i] = Tile{0, 0, 0, 0};
    int row = start;
    if (count == 0) return;
#pragma unroll 4
    for (int pair = 0; pair < args.pairs; pair += 4) {
        const uint4 four = *(const uint4 *)(experts + pair);
        const u32 all_four[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (all_four[i] == expert) {
                args.rows[pair + i] = row;
                args.tokens[row++] = (pair + i) / args.num_chosen;
            }
    }
}

extern "C" __global__ void __launch_bounds__(32 * MOST_TOKENS) route_few(const RouteFewArgs args) {
    __shared__ float scores[MOST_PAIRS];
    __shared__ __align__(16) u32 experts[MOST_PAIRS];
    let_dependents_start();
    wait_for_producers();
    const int token = threadIdx.x / 32, first = token * args.route.num_chosen;
    for (int i = threadIdx.x; i < MOST_PAIRS; i += blockDim.x) experts[i] = NOBODY;
    __syncthreads();
    if (token < args.route.m) route_token(scores + first, experts + first, args.route, token);
    __syncthreads();
    sort_pairs(args.sort, experts);
}
