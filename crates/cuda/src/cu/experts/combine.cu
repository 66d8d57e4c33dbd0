// What the experts of each token gave, weighed and added to the stream in the order of `naive::combine`; a CTA takes COLUMNS of a token.
#include "float_rules.cuh"

constexpr int THREADS = 256;
constexpr int COLUMNS = 1024;  // of a CTA

// Mirrors `CombineArgs` of the host, by value.
struct CombineArgs {
    float *x;                    // [m, columns]
    const float *y;              // [m * num_chosen, columns]
    const float *shared;         // [m, columns] or null
    const float *shared_weight;  // [m]
    const float *weights;        // [m, num_chosen]
    const u32 *rows;             // [m, num_chosen]
    int columns, num_chosen;
};

extern "C" __global__ void __launch_bounds__(THREADS) combine(const CombineArgs args) {
    let_dependents_start();
    wait_for_producers();
    const size_t token = blockIdx.x, pairs = token * args.num_chosen;
    const float shared_weight = args.shared_weight[token];
    const int end = min(args.columns, (int)(blockIdx.y + 1) * COLUMNS);
    for (int column = blockIdx.y * COLUMNS + threadIdx.x; column < end; column += THREADS) {
        const size_t at = token * args.columns + column;
        float sum = args.shared ? __fmul_rn(shared_weight, args.shared[at]) : 0.0f;
        for (int i = 0; i < args.num_chosen; i++)
            sum = __fmaf_rn(args.weights[pairs + i], args.y[(size_t)args.rows[pairs + i] * args.columns + column], sum);
        args.x[at] = __fadd_rn(args.x[at], sum);
    }
}
