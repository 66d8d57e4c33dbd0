// RMS norm or layer norm of rows, or of every head inside a row. A CTA takes a row (or a head of it) through shared memory.
#include "float_rules.cuh"

#ifndef KIND
#define KIND 0  // 0: RMS norm, 1: layer norm
#endif

// Mirrors `NormArgs` of the host, by value.
struct NormArgs {
    const float *x;       // [m, x_row]
    const float *weight;  // [columns]
    const float *bias;    // [columns], layer norm's
    float *out;           // [m, out_row]
    float eps;
    int columns;  // of what is normed at a time
    int x_row, out_row;
    int padding;
};

extern __shared__ float row[];

// One chain of a sum in 16 lanes: of the values, or of the squares of what is left of them without the mean.
template <bool SQUARES>
__device__ __forceinline__ float chain(int lane, int columns, float mean) {
    float sum = 0.0f;
    for (int i = lane; i < columns; i += LANES) {
        float v = __fadd_rn(row[i], -mean);
        sum = SQUARES ? __fmaf_rn(v, v, sum) : __fadd_rn(row[i], sum);
    }
    return sum;
}

// The mean over the row, known to every thread.
template <bool SQUARES>
__device__ __forceinline__ float mean_of(int columns, float mean) {
    __shared__ float shared_mean;
    __syncthreads();
    if (threadIdx.x < 32) {
        float sum = threadIdx.x < LANES ? chain<SQUARES>(threadIdx.x, columns, mean) : 0.0f;
        sum = sum_of_lanes(sum);
        if (threadIdx.x == 0) shared_mean = __fdiv_rn(sum, (float)columns);
    }
    __syncthreads();
    return shared_mean;
}

extern "C" __global__ void __launch_bounds__(256) norm_rows(const NormArgs args) {
    let_dependents_start();
    wait_for_producers();
    const int columns = args.columns;
    const float *x = args.x + (size_t)blockIdx.x * args.x_row + (size_t)blockIdx.y * columns;
    float *out = args.out + (size_t)blockIdx.x * args.out_row + (size_t)blockIdx.y * columns;
    for (int i = threadIdx.x; i < columns; i += blockDim.x) row[i] = x[i];
#if KIND == 0
    const float mean = 0.0f;
#else
    const float mean = mean_of<false>(columns, 0.0f);
#endif
    const float inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean_of<true>(columns, mean), args.eps)));
    for (int i = threadIdx.x; i < columns; i += blockDim.x) {
#if KIND == 0
        out[i] = __fmul_rn(__fmul_rn(row[i], inverse), args.weight[i]);
#else
        out[i] = __fmaf_rn(__fmul_rn(__fadd_rn(row[i], -mean), inverse), args.weight[i], args.bias[i]);
#endif
    }
}
