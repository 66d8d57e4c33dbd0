// Float weights of experts times float activations, in the specification's order: each output is one chain of fused multiply-adds over k.
//
// A lane has one feature of each of STRIPS strips of 32, and ROWS rows of activations; the four warps of a CTA are neighbours along the rows.
// All of them copy weights and activations to a ring in shared memory, stages ahead. What a lane reads of activations all lanes read.
#include "async_copy.cuh"
#include "float_product.cuh"
#include "experts.cuh"

#ifndef ROWS
#define ROWS 2  // of a warp
#endif
#ifndef STRIPS
#define STRIPS 1
#endif

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int TOKENS = WARPS * ROWS;
constexpr int STAGES = 3;
constexpr int STRIP_BYTES = (BF16 && ROWS > 4 ? 4096 : 8192) / STRIPS;  // of a stage
constexpr int STAGE_UNITS = STRIP_BYTES / (STRIP_ROWS * UNIT_BYTES);
constexpr int STAGE_K = STAGE_UNITS * UNIT_K;
constexpr int W_BYTES = STRIPS * STRIP_BYTES;
constexpr int X_STRIDE = STAGE_K * 4;
constexpr int STAGE_BYTES = W_BYTES + TOKENS * X_STRIDE;
static_assert(STAGES * STAGE_BYTES <= 46 * 1024, "a ring that needs no leave");

// What the threads copy of every stage.
struct Copies {
    const ExpertArgs &args;
    const Work &work;
    const u32 *sources;  // [TOKENS]
    bool wide;

    __device__ __forceinline__ void start(u32 slot, int stage) const {
        const int units = min(STAGE_UNITS, args.k_parts - stage * STAGE_UNITS), last_strip = (args.n - 1) / STRIP_ROWS;
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) {
            // Strips beyond N repeat the last one; they are not written.
            const size_t first = (size_t)min(work.n_part * STRIPS + strip, last_strip) * args.k_parts + stage * STAGE_UNITS;
            const u8 *from = work.expert.weights + first * (STRIP_ROWS * UNIT_BYTES);
            for (int i = threadIdx.x; i < units * STRIP_ROWS; i += THREADS)
                copy_16(slot + strip * STRIP_BYTES + i * UNIT_BYTES, from + i * UNIT_BYTES, true);
        }
        start_rows(slot + W_BYTES, stage, units * UNIT_K);
    }

    // Rows that are not there stay as they are; columns beyond K become zeros.
    __device__ __forceinline__ void start_rows(u32 to, int stage, int columns) const {
        const float *x = (const float *)args.a;
        const int width = wide ? 4 : 1, per_row = columns / width;
        for (int i = threadIdx.x; i < work.rows * per_row; i += THREADS) {
            const int row = i / per_row, column = i % per_row * width, at = stage * STAGE_K + column;
            const bool inside = at < args.row;
            const float *from = inside ? x + (size_t)sources[row] * args.row + at : x;
            if (wide)
                copy_16(to + row * X_STRIDE + column * 4, from, inside);
            else
                copy_4(to + row * X_STRIDE + column * 4, from, inside);
        }
    }
};

// `units` units of a stage.
__device__ __forceinline__ void add_stage(float (&sums)[STRIPS][ROWS], u32 w_from, u32 x_from, int units) {
#pragma unroll 2
    for (int unit = 0; unit < units; unit++) {
        uint4 w[STRIPS];
#pragma unroll
        for (int strip = 0; strip < STRIPS; strip++) w[strip] = load_shared_16(w_from + strip * STRIP_BYTES + unit * (STRIP_ROWS * UNIT_BYTES));
#pragma unroll
        for (int four = 0; four < UNIT_K / 4; four++) {
            uint4 x[ROWS];
#pragma unroll
            for (int row = 0; row < ROWS; row++) x[row] = load_shared_16(x_from + row * X_STRIDE + (unit * UNIT_K + four * 4) * 4);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int strip = 0; strip < STRIPS; strip++) {
                    const float weight = value_of(w[strip], four * 4 + i);
#pragma unroll
                    for (int row = 0; row < ROWS; row++) {
                        const u32 bits = i == 0 ? x[row].x : i == 1 ? x[row].y : i == 2 ? x[row].z : x[row].w;
                        sums[strip][row] = __fmaf_rn(__uint_as_float(bits), weight, sums[strip][row]);
                    }
                }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) gemm_experts_float(const ExpertArgs args) {
    __shared__ __align__(128) u8 ring[STAGES * STAGE_BYTES];
    __shared__ u32 sources[TOKENS];
    let_dependents_start();
    wait_for_producers();
    Work work;
    if (!work.find(args, TOKENS)) return;
    if (threadIdx.x < TOKENS) sources[threadIdx.x] = work.source(args, threadIdx.x);
    __syncthreads();
    const Copies copies{args, work, sources, args.row % 4 == 0 && (u64)args.a % 16 == 0};
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, stages = (args.k_parts + STAGE_UNITS - 1) / STAGE_UNITS;
    const u32 start = shared_address(ring), last_slot = start + (STAGES - 1) * STAGE_BYTES;
    // Every stage ends a group, an empty one past the end, so that the count of those under way stays put.
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages) copies.start(start + stage * STAGE_BYTES, stage);
        end_group();
    }
    float sums[STRIPS][ROWS] = {};
    u32 slot = start, ahead_slot = last_slot;
#pragma unroll 1
    for (int stage = 0; stage < stages; stage++) {
        wait_for_groups<STAGES - 2>();
        __syncthreads();
        if (stage + STAGES - 1 < stages) copies.start(ahead_slot, stage + STAGES - 1);
        end_group();
        const int units = min(STAGE_UNITS, args.k_parts - stage * STAGE_UNITS);
        if (warp * ROWS < work.rows) add_stage(sums, slot + lane * UNIT_BYTES, slot + W_BYTES + warp * ROWS * X_STRIDE, units);
        ahead_slot = slot;
        slot = slot == last_slot ? start : slot + STAGE_BYTES;
    }
#pragma unroll
    for (int strip = 0; strip < STRIPS; strip++) {
        const int feature = (work.n_part * STRIPS + strip) * STRIP_ROWS + lane;
        if (feature >= args.n) continue;
        const float bias = work.bias(feature);
#pragma unroll
        for (int row = 0; row < ROWS; row++)
            if (warp * ROWS + row < work.rows)
                args.d[(size_t)(work.first + warp * ROWS + row) * args.n + feature] = __fadd_rn(sums[strip][row], bias);
    }
}
