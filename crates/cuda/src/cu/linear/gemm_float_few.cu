// Float weights times few rows of activations, in the specification's order: each output is one chain of fused multiply-adds over k.
//
// Two floors: the chain's latency, and what shared memory gives to registers (an operand for every lane a cycle). So a lane has FEATURES by
// TOKENS outputs: few where the layer is too small for all multiprocessors, more where it is not. A warp takes a strip of 32 features and
// FEATURES * TOKENS rows of activations; the four warps of a CTA are neighbours along the activations, or (STRIPS = 4) along the features. All
// of them copy weights and activations to a ring in shared memory, stages ahead.
#include "async_copy.cuh"
#include "float_product.cuh"

#ifndef FEATURES
#define FEATURES 2  // of a lane
#endif
#ifndef TOKENS
#define TOKENS 1  // of a lane
#endif
#ifndef STRIPS
#define STRIPS 1  // of a CTA: 1 or 4
#endif
#ifndef STAGES
#define STAGES 4
#endif

constexpr int WARPS = 4;
constexpr int THREADS = 32 * WARPS;
constexpr int WARP_TOKENS = FEATURES * TOKENS;
constexpr int CTA_TOKENS = WARPS / STRIPS * WARP_TOKENS;
constexpr int FEATURE_LANES = 32 / FEATURES;
constexpr int W_BYTES = 16384;  // of a stage
constexpr int STRIP_BYTES = W_BYTES / STRIPS;
constexpr int STAGE_UNITS = STRIP_BYTES / (STRIP_ROWS * UNIT_BYTES);
constexpr int STAGE_K = STAGE_UNITS * UNIT_K;
constexpr int X_STRIDE = STAGE_K * 4 + 16;  // rows of activations begin in different banks
constexpr int STAGE_BYTES = W_BYTES + CTA_TOKENS * X_STRIDE;  // dynamic shared memory: STAGES times
constexpr int PIECE_K = TOKENS == 4 ? 8 : 16;  // a lane's loads run one piece ahead of its chains
constexpr int PIECE_UNITS = PIECE_K / UNIT_K;
static_assert(PADDED_K % (2 * PIECE_K) == 0, "pieces come in pairs");
extern __shared__ __align__(128) u8 ring[];

// What a thread copies of every stage: 16 bytes of units 4 apart of each strip, and of some rows of activations.
template <bool WIDE>
struct Copies {
    static constexpr int W_COPIES = STAGE_UNITS / WARPS;
    static constexpr int ROW_COPIES = STAGE_K / 4, ROWS_APART = THREADS / ROW_COPIES;
    const u8 *w[STRIPS];
    const float *x;
    int row, column, rows_left, units, k;

    __device__ __forceinline__ Copies(const FloatArgs &args, int first_token) {
        units = args.units, k = args.k;
        const int last_strip = (args.n - 1) / STRIP_ROWS;
#pragma unroll
        for (int i = 0; i < STRIPS; i++)
            // Strips beyond N repeat the last one; they are not written.
            w[i] = args.w + ((size_t)min((int)blockIdx.x * STRIPS + i, last_strip) * units * STRIP_ROWS + threadIdx.x) * UNIT_BYTES;
        row = threadIdx.x / ROW_COPIES;
        column = threadIdx.x % ROW_COPIES * 4;
        rows_left = args.m - first_token;
        x = args.x + (size_t)first_token * k;
    }

    __device__ __forceinline__ void start_weights(u32 slot, int stage) const {
        const int units_left = units - stage * STAGE_UNITS;
        const u32 to = slot + threadIdx.x * UNIT_BYTES;
        if (units_left >= STAGE_UNITS) {
#pragma unroll
            for (int i = 0; i < STRIPS * W_COPIES; i++) copy_16(to + i * THREADS * UNIT_BYTES, from(stage, i), true);
        } else {
#pragma unroll
            for (int i = 0; i < STRIPS * W_COPIES; i++)
                if (i % W_COPIES * WARPS + (int)threadIdx.x / 32 < units_left) copy_16(to + i * THREADS * UNIT_BYTES, from(stage, i), true);
        }
    }

    __device__ __forceinline__ const u8 *from(int stage, int i) const {
        return w[i / W_COPIES] + (size_t)stage * STRIP_BYTES + i % W_COPIES * THREADS * UNIT_BYTES;
    }

    // Rows beyond M stay as they are; columns beyond K become zeros.
    __device__ __forceinline__ void start_tokens(u32 slot, int stage) const {
        const u32 to = slot + W_BYTES;
        if (!WIDE) return start_narrow_tokens(to, stage);
        const int at = stage * STAGE_K + column;
#pragma unroll
        for (int i = 0; i < CTA_TOKENS; i += ROWS_APART)
            if (row + i < min(rows_left, CTA_TOKENS))
                copy_16(to + (row + i) * X_STRIDE + column * 4, at < k ? x + (size_t)(row + i) * k + at : x, at < k);
    }

    __device__ __forceinline__ void start_narrow_tokens(u32 to, int stage) const {
        for (int i = threadIdx.x; i < min(rows_left, CTA_TOKENS) * STAGE_K; i += THREADS) {
            const int token = i / STAGE_K, at = stage * STAGE_K + i % STAGE_K;
            copy_4(to + token * X_STRIDE + i % STAGE_K * 4, at < k ? x + (size_t)token * k + at : x, at < k);
        }
    }
};

// What a lane multiplies of PIECE_K columns.
struct Piece {
    uint4 w[FEATURES][PIECE_UNITS];
    uint4 x[TOKENS][PIECE_K / 4];

    __device__ __forceinline__ void load(u32 w_from, u32 x_from, int piece) {
#pragma unroll
        for (int i = 0; i < PIECE_UNITS; i++)
#pragma unroll
            for (int f = 0; f < FEATURES; f++)
                w[f][i] = load_shared_16(w_from + ((piece * PIECE_UNITS + i) * STRIP_ROWS + f * FEATURE_LANES) * UNIT_BYTES);
#pragma unroll
        for (int i = 0; i < PIECE_K / 4; i++)
#pragma unroll
            for (int t = 0; t < TOKENS; t++) x[t][i] = load_shared_16(x_from + t * FEATURES * X_STRIDE + (piece * PIECE_K + i * 4) * 4);
    }

    __device__ __forceinline__ void add(float (&sums)[FEATURES][TOKENS]) const {
#pragma unroll
        for (int i = 0; i < PIECE_K; i++)
#pragma unroll
            for (int f = 0; f < FEATURES; f++) {
                const float weight = value_of(w[f][i / UNIT_K], i % UNIT_K);
#pragma unroll
                for (int t = 0; t < TOKENS; t++) {
                    const uint4 four = x[t][i / 4];
                    const u32 bits = i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w;
                    sums[f][t] = __fmaf_rn(__uint_as_float(bits), weight, sums[f][t]);
                }
            }
    }
};

// An even number of `pieces` of a stage.
__device__ __forceinline__ void add_stage(float (&sums)[FEATURES][TOKENS], u32 w_from, u32 x_from, int pieces) {
    Piece even, odd;
    even.load(w_from, x_from, 0);
#pragma unroll 1
    for (int i = 0; i < pieces; i += 2) {
        odd.load(w_from, x_from, i + 1);
        even.add(sums);
        even.load(w_from, x_from, min(i + 2, pieces - 1));
        odd.add(sums);
    }
}

template <bool WIDE>
__device__ __forceinline__ void multiply(const FloatArgs &args) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, strip = STRIPS == 1 ? 0 : warp;
    const int first = blockIdx.y * CTA_TOKENS, warp_token = STRIPS == 1 ? warp * WARP_TOKENS : 0;
    const int stages = (args.units + STAGE_UNITS - 1) / STAGE_UNITS;
    const u32 start = shared_address(ring), last_slot = start + (STAGES - 1) * STAGE_BYTES;
    const Copies<WIDE> copies(args, first);
    // Weights are nobody's product: they may come before the producers are done.
    for (int stage = 0; stage < min(STAGES - 1, stages); stage++) copies.start_weights(start + stage * STAGE_BYTES, stage);
    wait_for_producers();
    // Every stage ends a group, an empty one past the end, so that the count of those under way stays put.
    for (int stage = 0; stage < STAGES - 1; stage++) {
        if (stage < stages) copies.start_tokens(start + stage * STAGE_BYTES, stage);
        end_group();
    }
    // A lane's features are FEATURE_LANES apart, its tokens FEATURES apart.
    const int token = first + warp_token + lane / FEATURE_LANES;
    const u32 w_at = strip * STRIP_BYTES + lane % FEATURE_LANES * UNIT_BYTES;
    const u32 x_at = W_BYTES + (warp_token + lane / FEATURE_LANES) * X_STRIDE;
    const bool busy = first + warp_token < args.m;
    float sums[FEATURES][TOKENS] = {};
    u32 slot = start, ahead_slot = last_slot;
#pragma unroll 1
    for (int stage = 0; stage < stages; stage++) {
        wait_for_groups<STAGES - 2>();
        __syncthreads();
        if (stage + STAGES - 1 < stages) {
            copies.start_weights(ahead_slot, stage + STAGES - 1);
            copies.start_tokens(ahead_slot, stage + STAGES - 1);
        }
        end_group();
        const int units = min(STAGE_UNITS, args.units - stage * STAGE_UNITS);
        if (busy) add_stage(sums, slot + w_at, slot + x_at, units / PIECE_UNITS);
        ahead_slot = slot;
        slot = slot == last_slot ? start : slot + STAGE_BYTES;
    }
#pragma unroll
    for (int f = 0; f < FEATURES; f++) {
        const int feature = (blockIdx.x * STRIPS + strip) * STRIP_ROWS + lane % FEATURE_LANES + f * FEATURE_LANES;
        if (feature >= args.n) continue;
        const float bias = bias_of(args, feature);
#pragma unroll
        for (int t = 0; t < TOKENS; t++)
            if (token + t * FEATURES < args.m) args.d[(size_t)(token + t * FEATURES) * args.n + feature] = __fadd_rn(sums[f][t], bias);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gemm_float_few(const FloatArgs args) {
    let_dependents_start();
    if (wide_rows(args))
        multiply<true>(args);
    else
        multiply<false>(args);
}
