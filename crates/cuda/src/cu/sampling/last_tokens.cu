// The tokens that were chosen last for the sequences of a step, which runs them before the host has read them.
#include "float_rules.cuh"

// As in sample.cu.
struct SampleRow {
    u32 slot, unused;
    u64 position;
};

// Mirrors `LastTokensArgs` of the host, by value.
struct LastTokensArgs {
    const u32 *last_tokens;  // [slots]
    const SampleRow *rows;
    u32 *ids;  // [rows]
    u32 count, unused;
};

extern "C" __global__ void __launch_bounds__(256) last_tokens(const LastTokensArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row < args.count) args.ids[row] = args.last_tokens[args.rows[row].slot];
}
