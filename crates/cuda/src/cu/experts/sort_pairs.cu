// The pairs of a token and an expert, sorted by expert and then by token, and cut into tiles of rows of one expert.
//
// A CTA takes an expert and looks at all pairs, so that it waits for no other: they are few words beside what experts multiply. Its warps take
// pairs that lie together: they count, one sum over the warps before tells each where its rows begin, and they place what they counted. Whoever
// comes last knows where all experts begin, and cuts the tiles.
#include "float_rules.cuh"
#include "sorted_pairs.cuh"

constexpr int THREADS = 512;
constexpr int WARPS = THREADS / 32;
constexpr int LANE_PAIRS = 4;  // of a load
constexpr int WARP_PAIRS = 32 * LANE_PAIRS;
constexpr u32 ALL_LANES = 0xffffffffu;

// A lane's next pairs; those behind the last one are of no expert.
__device__ __forceinline__ uint4 load_pairs(const SortArgs &args, int at) {
    uint4 v = make_uint4(~0u, ~0u, ~0u, ~0u);
    if (at + LANE_PAIRS <= args.pairs) return *(const uint4 *)(args.experts + at);
    if (at < args.pairs) v.x = args.experts[at];
    if (at + 1 < args.pairs) v.y = args.experts[at + 1];
    if (at + 2 < args.pairs) v.z = args.experts[at + 2];
    return v;
}

__device__ __forceinline__ int count_if_equal(uint4 v, u32 expert) {
    return (v.x == expert) + (v.y == expert) + (v.z == expert) + (v.w == expert);
}

__device__ __forceinline__ int count_if_less(uint4 v, u32 expert) {
    return (v.x < expert) + (v.y < expert) + (v.z < expert) + (v.w < expert);
}

__device__ __forceinline__ void place(const SortArgs &args, int pair, int &row) {
    args.rows[pair] = row;
    args.tokens[row] = pair / args.num_chosen;
    row++;
}

// Places the expert's pairs of begin .. end to the rows from `row`.
__device__ __forceinline__ void place_pairs(const SortArgs &args, u32 expert, int begin, int end, int row) {
    const int lane = threadIdx.x % 32;
    for (int base = begin; base < end; base += WARP_PAIRS) {
        const int at = base + lane * LANE_PAIRS;
        const uint4 v = load_pairs(args, at);
        const int count = count_if_equal(v, expert);
        if (!__any_sync(ALL_LANES, count > 0)) continue;
        int sum = count;
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) {
            const int other = __shfl_up_sync(ALL_LANES, sum, apart);
            if (lane >= apart) sum += other;
        }
        int own = row + sum - count;
        if (v.x == expert) place(args, at, own);
        if (v.y == expert) place(args, at + 1, own);
        if (v.z == expert) place(args, at + 2, own);
        if (v.w == expert) place(args, at + 3, own);
        row += __shfl_sync(ALL_LANES, sum, 31);
    }
}

// Cuts the rows of all experts into tiles.
__device__ __forceinline__ void cut_tiles(const SortArgs &args) {
    __shared__ int before[THREADS];
    const int own = (args.num_experts + THREADS - 1) / THREADS;
    const int begin = min(own * (int)threadIdx.x, args.num_experts), end = min(begin + own, args.num_experts);
    int tiles = 0;
    for (int expert = begin; expert < end; expert++) tiles += num_tiles(args, args.starts[expert + 1] - args.starts[expert]);
    before[threadIdx.x] = tiles;
    __syncthreads();
#pragma unroll 1
    for (int apart = 1; apart < THREADS; apart *= 2) {
        const int other = threadIdx.x >= apart ? before[threadIdx.x - apart] : 0;
        __syncthreads();
        before[threadIdx.x] += other;
        __syncthreads();
    }
    int tile = before[threadIdx.x] - tiles;
    for (int expert = begin; expert < end; expert++) tile = write_tiles(args, expert, args.starts[expert], args.starts[expert + 1], tile);
    for (int i = before[THREADS - 1] + threadIdx.x; i < args.most_tiles; i += THREADS) args.tiles[i] = Tile{0, 0, 0, 0};
}

extern "C" __global__ void __launch_bounds__(THREADS) sort_pairs(const SortArgs args) {
    __shared__ int less_of[WARPS], equal_of[WARPS], is_last;
    let_dependents_start();
    wait_for_producers();
    const u32 expert = blockIdx.x;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int own = (args.pairs + WARPS * WARP_PAIRS - 1) / (WARPS * WARP_PAIRS) * WARP_PAIRS;
    const int begin = min(warp * own, args.pairs), end = min(begin + own, args.pairs);
    int less = 0, equal = 0;
#pragma unroll 4
    for (int base = begin; base < end; base += WARP_PAIRS) {
        const uint4 v = load_pairs(args, base + lane * LANE_PAIRS);
        less += count_if_less(v, expert);
        equal += count_if_equal(v, expert);
    }
    less = __reduce_add_sync(ALL_LANES, less), equal = __reduce_add_sync(ALL_LANES, equal);
    if (lane == 0) less_of[warp] = less, equal_of[warp] = equal;
    __syncthreads();
    int start = 0, before = 0, count = 0;
#pragma unroll
    for (int i = 0; i < WARPS; i++) {
        start += less_of[i];
        before += i < warp ? equal_of[i] : 0;
        count += equal_of[i];
    }
    if (equal > 0) place_pairs(args, expert, begin, end, start + before);
    if (threadIdx.x == 0) {
        args.starts[expert] = start;
        if (expert == args.num_experts - 1) args.starts[args.num_experts] = args.pairs;
        __threadfence();
        is_last = atomicAdd(args.done, 1) == args.num_experts - 1;
        if (is_last) *args.done = 0;
        __threadfence();
    }
    __syncthreads();
    if (is_last) cut_tiles(args);
}
