// Float weights times many rows of activations, in the specification's order: each output is one chain of fused multiply-adds over k.
//
// A CTA takes 128 rows of activations by 128 features, a thread 16 by 8 of them; both operands go through shared memory as floats, 8 columns
// at a time, while those of the stage after the next are on their way to registers.
#include "async_copy.cuh"
#include "float_product.cuh"

constexpr int TILE = 128;
constexpr int ROWS = 16;  // of activations of a thread
constexpr int THREADS = TILE * TILE / (ROWS * 8);
constexpr int STAGE_K = 8;  // with 16 a thread needs more registers than there are
constexpr int OWN_K = STAGE_K * TILE / THREADS;  // that a thread loads of one row
constexpr int OWN_UNITS = OWN_K / UNIT_K;
static_assert(PADDED_K % STAGE_K == 0, "stages are whole");

struct Stage {
    float x[STAGE_K][TILE], w[STAGE_K][TILE];
};

// What a thread loads: OWN_K columns of a stage from `k`, of one row of either operand.
template <bool WIDE>
struct Loads {
    const float *x;
    const u8 *w;
    int row, k;
    bool inside;
    float4 next_x[OWN_K / 4];
    uint4 next_w[OWN_UNITS];

    __device__ __forceinline__ Loads(const FloatArgs &args, int m, int n) {
        row = threadIdx.x % TILE;
        k = threadIdx.x / TILE * OWN_K;
        inside = m + row < args.m;
        x = args.x + (size_t)(m + row) * args.k;
        // Features beyond N repeat the last strip; they are not written.
        const int strip = min(n / STRIP_ROWS + row / STRIP_ROWS, (args.n - 1) / STRIP_ROWS);
        w = args.w + (((size_t)strip * args.units + k / UNIT_K) * STRIP_ROWS + row % STRIP_ROWS) * UNIT_BYTES;
    }

    __device__ __forceinline__ float4 load_four(const FloatArgs &args, int at) const {
        if (WIDE) {
            float4 four = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (inside && at < args.k) four = *(const float4 *)(x + at);
            return four;
        }
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = inside && at + i < args.k ? x[at + i] : 0.0f;
        return make_float4(v[0], v[1], v[2], v[3]);
    }

    __device__ __forceinline__ void load(const FloatArgs &args, int stage) {
#pragma unroll
        for (int i = 0; i < OWN_K / 4; i++) next_x[i] = load_four(args, stage * STAGE_K + k + 4 * i);
#pragma unroll
        for (int i = 0; i < OWN_UNITS; i++)
            next_w[i] = *(const uint4 *)(w + ((size_t)stage * (STAGE_K / UNIT_K) + i) * STRIP_ROWS * UNIT_BYTES);
    }

    __device__ __forceinline__ void store(Stage &to) const {
#pragma unroll
        for (int i = 0; i < OWN_K; i++) {
            const float4 four = next_x[i / 4];
            to.x[k + i][row] = i % 4 == 0 ? four.x : i % 4 == 1 ? four.y : i % 4 == 2 ? four.z : four.w;
            to.w[k + i][row] = value_of(next_w[i / UNIT_K], i % UNIT_K);
        }
    }
};

template <int COUNT>
__device__ __forceinline__ void load_fours(float (&to)[COUNT], const float *from, int apart) {
#pragma unroll
    for (int i = 0; i < COUNT; i += 4) {
        const uint4 four = load_shared_16(shared_address(from + i / 4 * apart));
        to[i] = __uint_as_float(four.x), to[i + 1] = __uint_as_float(four.y);
        to[i + 2] = __uint_as_float(four.z), to[i + 3] = __uint_as_float(four.w);
    }
}

// A warp takes 4 * ROWS rows by 64 features; a lane four rows and each 16 behind them four more, four features and 32 behind them four more.
struct Thread {
    int rows, features;
    float sums[ROWS][8];

    // The next column's values are on their way while this one's are multiplied.
    __device__ __forceinline__ void add(const Stage &stage) {
        float x[2][ROWS], w[2][8];
        load_fours(x[0], &stage.x[0][rows], 16);
        load_fours(w[0], &stage.w[0][features], 32);
#pragma unroll
        for (int k = 0; k < STAGE_K; k++) {
            if (k + 1 < STAGE_K) {
                load_fours(x[(k + 1) % 2], &stage.x[k + 1][rows], 16);
                load_fours(w[(k + 1) % 2], &stage.w[k + 1][features], 32);
            }
#pragma unroll
            for (int i = 0; i < 8 * ROWS; i++) sums[i / 8][i % 8] = __fmaf_rn(x[k % 2][i / 8], w[k % 2][i % 8], sums[i / 8][i % 8]);
        }
    }

    __device__ __forceinline__ void write(const FloatArgs &args, int m, int n) const {
        const bool wide = args.n % 4 == 0 && (u64)args.d % 16 == 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int feature = n + features + 32 * half;
            float bias[4];
#pragma unroll
            for (int i = 0; i < 4; i++) bias[i] = bias_of(args, min(feature + i, args.n - 1));
#pragma unroll
            for (int row = 0; row < ROWS; row++) {
                const int token = m + rows + row / 4 * 16 + row % 4;
                if (token >= args.m) continue;
                float *d = args.d + (size_t)token * args.n + feature;
                float v[4];
#pragma unroll
                for (int i = 0; i < 4; i++) v[i] = __fadd_rn(sums[row][4 * half + i], bias[i]);
                if (wide) {
                    if (feature < args.n) *(float4 *)d = make_float4(v[0], v[1], v[2], v[3]);
                } else {
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        if (feature + i < args.n) d[i] = v[i];
                }
            }
        }
    }
};

template <bool WIDE>
__device__ __forceinline__ void multiply(const FloatArgs &args, Stage *stages) {
    const int m_tiles = (args.m + TILE - 1) / TILE;
    const int m = blockIdx.x % m_tiles * TILE, n = blockIdx.x / m_tiles * TILE;
    const int count = args.units * UNIT_K / STAGE_K, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    Loads<WIDE> loads(args, m, n);
    Thread own;
    own.rows = warp / 2 * (4 * ROWS) + lane / 8 * 4;
    own.features = warp % 2 * 64 + lane % 8 * 4;
#pragma unroll
    for (int i = 0; i < 8 * ROWS; i++) own.sums[i / 8][i % 8] = 0.0f;
    loads.load(args, 0);
    loads.store(stages[0]);
    loads.load(args, min(1, count - 1));
    __syncthreads();
    // Loads begin in front of a barrier, or the compiler would put them behind the products that are to hide them; past the end the last
    // stage is loaded again, for a branch around loads waits for them.
#pragma unroll 1
    for (int at = 0; at < count; at++) {
        own.add(stages[at % 2]);
        loads.store(stages[(at + 1) % 2]);
        loads.load(args, min(at + 2, count - 1));
        __syncthreads();
    }
    own.write(args, m, n);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) gemm_float_tiled(const FloatArgs args) {
    let_dependents_start();
    wait_for_producers();
    __shared__ __align__(16) Stage stages[2];
    if (wide_rows(args))
        multiply<true>(args, stages);
    else
        multiply<false>(args, stages);
}
