// The Hadamard transform of runs of a row in place. A warp takes 512 neighbours, which whole runs fill, and a lane every 32nd of them:
// elements less than 32 apart meet by shuffles, the others inside a lane. Each pair meets in the specification's order.
#include "float_rules.cuh"

constexpr int HELD = 16;            // elements of a lane
constexpr int SPAN = 32 * HELD;     // of a warp: the longest run
constexpr int WARPS = 4;

// Mirrors `HadamardArgs` of the host, by value.
struct HadamardArgs {
    float *x;     // [m, columns]
    int columns;  // a multiple of `block`
    int block;    // a power of two, at most SPAN
    float scale;  // 1 / sqrt(block)
    int padding;
};

extern "C" __global__ void __launch_bounds__(32 * WARPS) hadamard(const HadamardArgs args) {
    let_dependents_start();
    wait_for_producers();
    const int lane = threadIdx.x % 32, first = (blockIdx.y * WARPS + threadIdx.x / 32) * SPAN + lane;
    float *x = args.x + (size_t)blockIdx.x * args.columns;
    float v[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) v[i] = first + 32 * i < args.columns ? x[first + 32 * i] : 0.0f;
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) {
        if (apart >= args.block) break;
        const bool upper = lane & apart;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            const float other = __shfl_xor_sync(0xffffffffu, v[i], apart);
            v[i] = upper ? __fadd_rn(other, -v[i]) : __fadd_rn(v[i], other);
        }
    }
#pragma unroll
    for (int apart = 1; apart < HELD; apart *= 2) {
        if (32 * apart >= args.block) break;
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            if (i & apart) continue;
            const float a = v[i], b = v[i + apart];
            v[i] = __fadd_rn(a, b);
            v[i + apart] = __fadd_rn(a, -b);
        }
    }
#pragma unroll
    for (int i = 0; i < HELD; i++)
        if (first + 32 * i < args.columns) x[first + 32 * i] = __fmul_rn(v[i], args.scale);
}
