// INT8 weights of experts times few INT8 tokens each: as fast as the weights come from memory.
//
// A CTA takes a strip of 16 rows and up to 8 * COLUMNS tokens; its warps share the strip's chunks in turn and add their sums up in shared
// memory. A lane's loads are what it multiplies: weights and tokens go straight to registers, AHEAD chunks before they are needed.
#include "w8a8.cuh"
#include "experts.cuh"

#ifndef COLUMNS
#define COLUMNS 1  // of eight tokens
#endif
#ifndef AHEAD
#define AHEAD (COLUMNS == 1 ? 4 : 3)  // chunks of a warp on their way
#endif

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int TOKENS = 8 * COLUMNS;

struct Chunk {
    uint4 w[2];
    uint4 a[COLUMNS];
};

__device__ __forceinline__ uint4 load_once(const u8 *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
    return v;
}

struct Strip {
    const u8 *w;                    // this lane's part of chunk 0
    const signed char *a[COLUMNS];  // this lane's part of chunk 0 of its tokens
    int chunks, codes_left;

    __device__ __forceinline__ void fetch_weights(Chunk &chunk, int at) const {
        if (at >= chunks) return;
        const u8 *from = w + (size_t)at * CHUNK_BYTES;
        chunk.w[0] = load_once(from);
        chunk.w[1] = load_once(from + STEP_BYTES);
    }

    __device__ __forceinline__ void fetch_tokens(Chunk &chunk, int at) const {
        const bool inside = at * CHUNK_K < codes_left;
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) chunk.a[i] = inside ? __ldg((const uint4 *)(a[i] + at * CHUNK_K)) : make_uint4(0, 0, 0, 0);
    }

    __device__ __forceinline__ static void multiply(int (&sums)[COLUMNS][4], const Chunk &chunk) {
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) {
            multiply_16x8(sums[i], chunk.w[0], chunk.a[i].x, chunk.a[i].y);
            multiply_16x8(sums[i], chunk.w[1], chunk.a[i].z, chunk.a[i].w);
        }
    }
};

// The sums of all warps, scaled.
__device__ __forceinline__ void write(const ExpertArgs &args, const Work &work, const int (&sums)[COLUMNS][4]) {
    __shared__ int parts[WARPS][TOKENS][STRIP_ROWS + 1];
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4 * COLUMNS; i++)
        parts[threadIdx.x / 32][i / 4 * 8 + lane % 4 * 2 + i % 2][lane / 4 + i / 2 % 2 * 8] = sums[i / 4][i % 4];
    __syncthreads();
    const int in_strip = threadIdx.x % STRIP_ROWS, row = work.n_part * STRIP_ROWS + in_strip;
    if (row >= args.n) return;
    const float s1 = work.expert.s1[row], bias = work.bias(row);
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        const int token = threadIdx.x / STRIP_ROWS + 8 * i;
        if (token >= work.rows) return;
        int sum = 0;
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) sum += parts[warp][token][in_strip];
        args.d[(size_t)(work.first + token) * args.n + row] = scaled(sum, args.ta[work.source(args, token)], s1, bias);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) gemm_experts_w8a8(const ExpertArgs args) {
    let_dependents_start();
    wait_for_producers();
    Work work;
    if (!work.find(args, TOKENS)) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    Strip strip;
    strip.chunks = args.k_parts;
    strip.codes_left = args.row - lane % 4 * 16;
    strip.w = work.expert.weights + (size_t)work.n_part * args.k_parts * CHUNK_BYTES + lane * 16;
    Chunk ahead[AHEAD];
    int sums[COLUMNS][4] = {};
#pragma unroll
    for (int i = 0; i < AHEAD; i++) strip.fetch_weights(ahead[i], warp + i * WARPS);
#pragma unroll
    for (int i = 0; i < COLUMNS; i++)
        strip.a[i] = (const signed char *)args.a + (size_t)work.source(args, 8 * i + lane / 4) * args.row + lane % 4 * 16;
#pragma unroll
    for (int i = 0; i < AHEAD; i++) strip.fetch_tokens(ahead[i], warp + i * WARPS);
    for (int start = warp; start < args.k_parts; start += AHEAD * WARPS) {
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const int at = start + i * WARPS;
            if (at < args.k_parts) {
                Strip::multiply(sums, ahead[i]);
                strip.fetch_weights(ahead[i], at + AHEAD * WARPS);
                strip.fetch_tokens(ahead[i], at + AHEAD * WARPS);
            }
        }
    }
    write(args, work, sums);
}
