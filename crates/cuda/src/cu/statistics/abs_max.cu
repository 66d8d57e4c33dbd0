// maxima[j] = max(maxima[j], largest |x[:, start + j]|). Magnitudes are in the order of their bits, so the maximum is one of integers.
#include "float_rules.cuh"

constexpr u32 THREADS = 128;
constexpr u32 ROWS = 64;  // of a block

struct MaximaArgs {
    u32 *maxima;     // [columns], bits of floats that are not negative
    const float *x;  // [rows, stride]
    u64 rows, stride, start, columns;
};

extern "C" __global__ void __launch_bounds__(THREADS) abs_max(const MaximaArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u64 column = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (column >= args.columns) return;
    float max = 0.0f;
    for (u64 first = (u64)blockIdx.y * ROWS; first < args.rows; first += (u64)gridDim.y * ROWS)
        for (u64 row = first; row < min(args.rows, first + ROWS); row++)
            max = larger(max, fabsf(args.x[row * args.stride + args.start + column]));
    if (max > 0.0f) atomicMax(args.maxima + column, __float_as_uint(max));
}
