// Rotary position embedding in place: halves of the first `rotary_dim` elements of every head are rotated.
#include "float_rules.cuh"

// Mirrors `RopeArgs` of the host, by value.
struct RopeArgs {
    float *x;             // [m, x_row], from the first head on
    const float *angles;  // [m, rotary_dim]: cos, then sin
    int x_row, heads, head_dim, rotary_dim;
};

extern "C" __global__ void __launch_bounds__(256) rotate(const RopeArgs args) {
    let_dependents_start();
    wait_for_producers();
    const int half = args.rotary_dim / 2;
    const float *cos = args.angles + (size_t)blockIdx.x * args.rotary_dim, *sin = cos + half;
    float *x = args.x + (size_t)blockIdx.x * args.x_row;
    for (int at = threadIdx.x; at < args.heads * half; at += blockDim.x) {
        const int i = at % half;
        float *head = x + (size_t)(at / half) * args.head_dim;
        const float low = head[i], high = head[i + half];
        head[i] = __fadd_rn(__fmul_rn(low, cos[i]), -__fmul_rn(high, sin[i]));
        head[i + half] = __fadd_rn(__fmul_rn(high, cos[i]), __fmul_rn(low, sin[i]));
    }
}
