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

// Thread i takes expert i and pair i: it counts the pairs of the one, and those of the other's expert before it, four at a time. Counts of rows
// and of tiles are added up in one word.
__device__ __forceinline__ void sort_pairs(const SortArgs &args, const u32 *experts) {
    __shared__ u32 sums[SORTING_WARPS], starts[MOST_EXPERTS];
    const u32 own = threadIdx.x, lane = threadIdx.x % 32, pair = threadIdx.x;
    const u32 chosen = pair < args.pairs ? experts[pair] : NOBODY;
    u32 count = 0, before = 0;
#pragma unroll 4
    for (u32 at = 0; at < args.pairs; at += 4) {
        const uint4 four = *(const uint4 *)(experts + at);
        count += (four.x == own) + (four.y == own) + (four.z == own) + (four.w == own);
        before += (four.x == chosen && at < pair) + (four.y == chosen && at + 1 < pair) + (four.z == chosen && at + 2 < pair) +
                  (four.w == chosen && at + 3 < pair);
    }
    const u32 both = own < MOST_EXPERTS ? count | num_tiles(args, count) << 16 : 0;
    u32 sum = both;
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, sum, apart);
        if (lane >= apart) sum += other;
    }
    if (lane == 31 && own < MOST_EXPERTS) sums[own / 32] = sum;
    __syncthreads();
    u32 all = 0;
#pragma unroll
    for (int warp = 0; warp < SORTING_WARPS; warp++) {
        if (warp < threadIdx.x / 32) sum += sums[warp];
        all += sums[warp];
    }
    const int start = (sum - both) & 0xffff;
    if (own < args.num_experts) {
        starts[own] = start;
        args.starts[own] = start;
        if (own == args.num_experts - 1) args.starts[args.num_experts] = args.pairs;
        write_tiles(args, own, start, start + count, (sum - both) >> 16);
    }
    for (int i = (all >> 16) + threadIdx.x; i < args.most_tiles; i += blockDim.x) args.tiles[i] = Tile{0, 0, 0, 0};
    __syncthreads();
    if (pair >= args.pairs) return;
    const u32 row = starts[chosen] + before;
    args.rows[pair] = row;
    args.tokens[row] = pair / args.num_chosen;
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
