// How INT8 weights lie, and the arguments of products with them.
//
// Weights lie in strips of 16 rows, a strip in chunks of 64 k, a chunk as two steps of m16n8k32, a step as each lane's 16 bytes. Integer sums
// have no order, so the tensor cores may count k as it suits: of a chunk, lane t of four takes the columns 16 t to 16 t + 15 of both operands,
// eight of them in each step. So a lane's tokens are 16 bytes in a row, as its weights are.
#pragma once

typedef unsigned char u8;

constexpr int STRIP_ROWS = 16;
constexpr int CHUNK_K = 64;
constexpr int STEP_BYTES = 512;
constexpr int CHUNK_BYTES = STRIP_ROWS * CHUNK_K;

// Mirrors `W8Args` of the host, by value.
struct W8Args {
    const u8 *w;           // [strips][chunks] of CHUNK_BYTES
    const signed char *a;  // [m, lda], zeros behind k
    const float *ta;       // [m]
    const float *s1;       // [n]
    const float *bias;     // [n] or null
    float *d;              // [m, n]
    int m, n, lda, chunks;
};

// No bias is -0.0, which leaves every value as it is.
__device__ __forceinline__ float bias_of(const W8Args &args, int row) {
    return args.bias ? args.bias[row] : -0.0f;
}
