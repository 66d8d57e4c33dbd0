// What a gated feed-forward hands to its last product: f(gate) * up, in some models through a Hadamard transform, as INT8 codes, their
// scale and their sum. A cluster of eight CTAs takes a row, so that few tokens keep many multiprocessors loading; a thread holds its
// elements in registers. Warps send what they find straight into the shared memory of the CTAs that want it.
#include "codes.cuh"
#include "gated.cuh"
#include "input_type.cuh"

#ifndef FUNCTION
#define FUNCTION SILU
#endif
#ifndef ROUNDS
#define ROUNDS 2  // of four neighbours that a thread holds
#endif

constexpr int CLUSTER = 8;
constexpr int MOST_WARPS = 32 / ROUNDS;
// Registers for as many threads as a multiprocessor takes, unless the function needs more of them.
constexpr int MIN_CTAS = FUNCTION < GELU_TANH ? 2048 / (32 * MOST_WARPS) : 1;
constexpr int MOST_NUMBERS = CLUSTER * MOST_WARPS;
static_assert(MOST_NUMBERS % 32 == 0, "numbers for every lane");
constexpr int EACH = 4;  // neighbours of a thread

// Mirrors `GateArgs` of the host, by value.
struct GateArgs {
    const In *x;  // [m, 2 k]: gate, up; k is a multiple of 4
    signed char *codes;
    float *scales;
    int *sums;
    float static_scale;  // above 0: one scale for all tokens
    int k, row_bytes;    // codes past k are set to 0
    int share;           // codes of a CTA, EACH in every round for each thread
    int block;           // runs of so many columns are transformed: a power of two, at most those of a warp in a round; 0: none
    float factor;        // 1 / sqrt(block)
};

#if __CUDA_ARCH__ >= 900
// A number from every warp of the cluster, and the barrier that counts their bytes.
struct Mailbox {
    u32 numbers[MOST_NUMBERS];
    u64 barrier;
};

__device__ __forceinline__ u32 shared_address(const void *at) {
    return (u32)__cvta_generic_to_shared(at);
}

__device__ __forceinline__ u32 of_peer(u32 address, int rank) {
    u32 theirs;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(theirs) : "r"(address), "r"(rank));
    return theirs;
}

__device__ __forceinline__ void open_mailbox(Mailbox &box, int numbers) {
    const u32 barrier = shared_address(&box.barrier);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(numbers * 4) : "memory");
}

// Into the mailbox of the CTA `rank`.
__device__ __forceinline__ void send(Mailbox &box, int place, u32 number, int rank) {
    const u32 to = of_peer(shared_address(&box.numbers[place]), rank), barrier = of_peer(shared_address(&box.barrier), rank);
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(to), "r"(number), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ void wait_for_mail(Mailbox &box) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], 0;\n@!done bra again;\n}" ::"r"(
            shared_address(&box.barrier))
        : "memory");
}

// Every mailbox of the cluster is open.
__device__ __forceinline__ void wait_for_peers() {
    asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// The gated elements of a thread, zeros behind the row; `gate` is the first of them, columns are counted from the row's.
__device__ __forceinline__ void load_gated(const In *gate, int column, int k, float (&v)[ROUNDS][EACH]) {
    const int step = blockDim.x * EACH;
    float4 g[ROUNDS] = {}, u[ROUNDS] = {};
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        if (column + round * step >= k) continue;
        g[round] = load_fresh(gate + round * step);
        u[round] = load_fresh(gate + k + round * step);
    }
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const float by[EACH] = {u[round].x, u[round].y, u[round].z, u[round].w};
        v[round][0] = g[round].x, v[round][1] = g[round].y, v[round][2] = g[round].z, v[round][3] = g[round].w;
        gated<FUNCTION>(v[round], by);
    }
}

// The pair (a, b) becomes (a + b, a - b).
__device__ __forceinline__ void add_and_subtract(float &a, float &b) {
    const float sum = __fadd_rn(a, b);
    b = __fadd_rn(a, -b);
    a = sum;
}

// The Hadamard transform of runs of columns: a warp holds 128 neighbours in every round, so pairs meet in a thread or by shuffles.
__device__ __forceinline__ void transform(float (&v)[ROUNDS][EACH], int block, float factor) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        float(&four)[EACH] = v[round];
        if (block >= 2) add_and_subtract(four[0], four[1]), add_and_subtract(four[2], four[3]);
        if (block >= 4) add_and_subtract(four[0], four[2]), add_and_subtract(four[1], four[3]);
        for (int apart = 1; apart * EACH < block; apart *= 2) {
            const bool upper = lane & apart;
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                const float other = __shfl_xor_sync(ALL_LANES, four[e], apart);
                four[e] = upper ? __fadd_rn(other, -four[e]) : __fadd_rn(four[e], other);
            }
        }
#pragma unroll
        for (int e = 0; e < EACH; e++) four[e] = __fmul_rn(four[e], factor);
    }
}

// The scale of a row, known to every thread of its cluster.
__device__ __forceinline__ Scale row_scale(Mailbox &box, int place, const float (&v)[ROUNDS][EACH]) {
    const int lane = threadIdx.x % 32, numbers = CLUSTER * (blockDim.x / 32);
    float max = 0.0f;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) max = largest_of(max, v[round]);
    max = largest_of_warp(max);
    if (lane < CLUSTER) send(box, place, __float_as_uint(max), lane);
    wait_for_mail(box);
#pragma unroll
    for (int i = 0; i < MOST_NUMBERS; i += 32) {
        if (i + lane < numbers) max = fmaxf(max, __uint_as_float(box.numbers[i + lane]));
    }
    return scale_of(largest_of_warp(max));
}
#endif

extern "C" __global__ void __launch_bounds__(32 * MOST_WARPS, MIN_CTAS) gate_quantize(const GateArgs args) {
#if __CUDA_ARCH__ >= 900
    let_dependents_start();
    __shared__ Mailbox maxima, sums;
    const int row = blockIdx.x / CLUSTER, rank = blockIdx.x % CLUSTER, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    const int place = rank * warps + threadIdx.x / 32, c = rank * args.share + threadIdx.x * EACH;
    const In *gate = args.x + (size_t)row * 2 * args.k + c;
    if (threadIdx.x == 0) {
        open_mailbox(maxima, CLUSTER * warps);
        open_mailbox(sums, CLUSTER * warps);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    wait_for_peers();
    wait_for_producers_of(gate);
    float v[ROUNDS][EACH];
    load_gated(gate, c, args.k, v);
    if (args.block > 0) transform(v, args.block, args.factor);
    const bool given = args.static_scale > 0.0f;
    const Scale scale = given ? usable_scale(args.static_scale) : row_scale(maxima, place, v);
    signed char *codes = args.codes + (size_t)row * args.row_bytes;
    int sum = 0;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        const int at = c + round * blockDim.x * EACH;
        const u32 four = codes_of(v[round], scale.inverse, given);
        if (at < args.row_bytes) *(u32 *)(codes + at) = four;
        sum = sum_of_codes(four, sum);
    }
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (lane == 0) send(sums, place, (u32)sum, 0);
    if (rank != 0 || threadIdx.x >= 32) return;
    wait_for_mail(sums);
    sum = 0;
#pragma unroll
    for (int i = 0; i < MOST_NUMBERS; i += 32) {
        if (i + lane < CLUSTER * warps) sum += (int)sums.numbers[i + lane];
    }
    sum = __reduce_add_sync(ALL_LANES, sum);
    if (lane != 0) return;
    args.sums[row] = sum;
    args.scales[row] = scale.scale;
#endif
}
