// The experts of many tokens, a warp a token; sort_pairs follows.
#include "routing.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int MOST_EXPERTS = 32 * LANE_EXPERTS;

extern "C" __global__ void __launch_bounds__(THREADS) route(const RouteArgs args) {
    __shared__ float scores[WARPS][MOST_EXPERTS];
    let_dependents_start();
    wait_for_producers();
    const int token = blockIdx.x * WARPS + threadIdx.x / 32;
    if (token < args.m) route_token(scores[threadIdx.x / 32], nullptr, args, token);
}
