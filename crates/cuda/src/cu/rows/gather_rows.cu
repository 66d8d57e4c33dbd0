// Rows of a table by number, as f32: an embedding, or rows of a matrix.
#include "float_rules.cuh"

#ifndef TYPE
#define TYPE 0  // of the table; 0: f32, 1: bf16
#endif

#if TYPE == 0
typedef float Element;
__device__ __forceinline__ float float_of(float v) {
    return v;
}
#else
typedef u16 Element;
__device__ __forceinline__ float float_of(u16 bits) {
    return float_of_bf16(bits);
}
#endif

// Mirrors `GatherArgs` of the host, by value.
struct GatherArgs {
    const void *table;  // [entries, columns]
    const u32 *rows;    // [m]
    float *out;         // [m, columns]
    u64 columns;
};

extern "C" __global__ void __launch_bounds__(256) gather_rows(const GatherArgs args) {
    // No dependents start before all is written: a step's angles are read by kernels that do not wait for what comes first.
    wait_for_producers();
    const Element *from = (const Element *)args.table + args.rows[blockIdx.x] * args.columns;
    float *to = args.out + blockIdx.x * args.columns;
    for (u64 i = threadIdx.x; i < args.columns; i += blockDim.x) to[i] = float_of(from[i]);
}
