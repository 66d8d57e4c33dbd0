// e * gram * e^T for rows e of weight errors, from the lower triangle: the sum over i, in f64 and in order, of
// e_i * (gram_ii e_i + 2 sum_{j<i} gram_ij e_j), the inner sum by fused multiply-adds in f32 over j in order.
#include "float_rules.cuh"

constexpr u32 THREADS = 256;

struct ErrorArgs {
    const float *gram;    // [k, k]
    const float *errors;  // [rows, k]
    float *inner;         // [rows, k]
    double *out;          // [rows]
    u64 rows;
    u64 k;
};

#if PART == 0

constexpr u32 TILE = 64;  // rows of errors and of the Gram matrix of a block
constexpr u32 EACH = 4;
constexpr u32 STEP = 16;

struct Tiles {
    float errors[STEP][TILE + 4], gram[STEP][TILE + 4];
};

__shared__ Tiles tiles;

__device__ __forceinline__ void load(const ErrorArgs &args, u64 r, u64 i, u64 j) {
    const u32 step = threadIdx.x % STEP;
#pragma unroll
    for (u32 row = threadIdx.x / STEP; row < TILE; row += THREADS / STEP) {
        const bool there = j + step < args.k;
        tiles.errors[step][row] = there && r + row < args.rows ? args.errors[(r + row) * args.k + j + step] : 0.0f;
        tiles.gram[step][row] = there && i + row < args.k ? args.gram[(i + row) * args.k + j + step] : 0.0f;
    }
}

// WHOLE: all j of the step lie below the diagonal.
template <bool WHOLE>
__device__ __forceinline__ void add_step(float (&below)[EACH][EACH], u64 i, u64 j) {
    const u32 x = threadIdx.x % 16 * EACH, y = threadIdx.x / 16 * EACH;
#pragma unroll
    for (u32 s = 0; s < STEP; s++) {
        const float4 e = *(const float4 *)&tiles.errors[s][y], g = *(const float4 *)&tiles.gram[s][x];
        const float errors[EACH] = {e.x, e.y, e.z, e.w}, gram[EACH] = {g.x, g.y, g.z, g.w};
#pragma unroll
        for (u32 r = 0; r < EACH; r++)
#pragma unroll
            for (u32 c = 0; c < EACH; c++)
                if (WHOLE || j + s < i + x + c) below[r][c] = __fmaf_rn(gram[c], errors[r], below[r][c]);
    }
}

// inner[r, i] = fma(2, below, gram_ii e_i)
extern "C" __global__ void __launch_bounds__(THREADS) output_errors(const ErrorArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u64 i = (u64)blockIdx.x * TILE, r = (u64)blockIdx.y * TILE;
    float below[EACH][EACH] = {};
    for (u64 j = 0; j < min(args.k, i + TILE); j += STEP) {
        __syncthreads();
        load(args, r, i, j);
        __syncthreads();
        if (j + STEP <= i)
            add_step<true>(below, i, j);
        else
            add_step<false>(below, i, j);
    }
    const u64 x = i + threadIdx.x % 16 * EACH, y = r + threadIdx.x / 16 * EACH;
#pragma unroll
    for (u32 a = 0; a < EACH; a++)
#pragma unroll
        for (u32 b = 0; b < EACH; b++) {
            if (y + a >= args.rows || x + b >= args.k) continue;
            const float own = __fmul_rn(args.gram[(x + b) * args.k + x + b], args.errors[(y + a) * args.k + x + b]);
            args.inner[(y + a) * args.k + x + b] = __fmaf_rn(2.0f, below[a][b], own);
        }
}

#else

// A warp takes a row: it loads and multiplies together, and adds in order.
extern "C" __global__ void __launch_bounds__(THREADS) output_errors(const ErrorArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u64 r = (u64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (r >= args.rows) return;
    const u32 lane = threadIdx.x % 32;
    double total = 0.0;
    for (u64 base = 0; base < args.k; base += 32) {
        const u64 at = r * args.k + base + lane;
        const bool there = base + lane < args.k;
        const double term = there ? __dmul_rn((double)args.errors[at], (double)args.inner[at]) : 0.0;
        const int count = (int)min((u64)32, args.k - base);
        for (int i = 0; i < count; i++) total = __dadd_rn(total, __shfl_sync(0xffffffffu, term, i));
    }
    if (lane == 0) args.out[r] = total;
}

#endif
