// The textbook product in FP32: a CTA of TILE x TILE threads owns as many outputs, one a thread, and walks K in square tiles of both
// operands through shared memory. It is here to be measured (GPPerf, arXiv 2411.16954, studies it for TILE 1..32), not to be fast.
//
// D[M,N] = alpha * A * B + beta * D. Storage is two strides an operand, so that one text serves all four layouts; a warp's
// threads run along N, so loads of A along k and of B along n are coalesced where the layout allows it.
// Each output is one chain of fused multiply-adds over k in order: bit-equal to the specification for every TILE.
typedef unsigned int u32;

#ifndef TILE
#define TILE 16
#endif

// Mirrors `SgemmArgs` of the host.
struct SgemmArgs {
    const float *a;
    const float *b;
    float *d;
    long long a_m, a_k;  // elements between rows and columns of A[M,K]
    long long b_k, b_n;  // the same of B[K,N]
    int m, n, k;
    float alpha, beta;
};

extern "C" __global__ void __launch_bounds__(TILE *TILE) sgemm_tiled(const SgemmArgs args) {
    __shared__ float a_tile[TILE][TILE];
    __shared__ float b_tile[TILE][TILE];
    const int x = threadIdx.x % TILE, y = threadIdx.x / TILE;
    const int n_tiles = (args.n + TILE - 1) / TILE;
    const int m = blockIdx.x / n_tiles * TILE + y;
    const int n = blockIdx.x % n_tiles * TILE + x;
    float sum = 0.0f;
    for (int k = 0; k < args.k; k += TILE) {
        a_tile[y][x] = m < args.m && k + x < args.k ? args.a[m * args.a_m + (k + x) * args.a_k] : 0.0f;
        b_tile[y][x] = n < args.n && k + y < args.k ? args.b[(k + y) * args.b_k + n * args.b_n] : 0.0f;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < TILE; i++) sum = __fmaf_rn(a_tile[y][i], b_tile[i][x], sum);
        __syncthreads();
    }
    if (m < args.m && n < args.n) {
        float *d = args.d + (long long)m * args.n + n;
        const float product = __fmul_rn(args.alpha, sum);
        // As the libraries do: without a beta D is not read, whatever is in it.
        *d = args.beta == 0.0f ? product : __fadd_rn(product, __fmul_rn(args.beta, *d));
    }
}
