// Random operands, made where they are used: gigabytes a second instead of a bus. Every value is a hash of its place, so that the
// host can say what any of them is.
#include "w4a8.cuh"

constexpr int THREADS = 256;
// Group scales and zero points for which every nibble keeps the int8 guard: 9 * 14 <= 127.
constexpr u32 LEAST_S2 = 4, S2_VALUES = 11, LEAST_ZERO = 6, ZERO_VALUES = 4;

__device__ __forceinline__ u32 hashed(u64 seed, u64 at) {
    u64 z = seed * 0x100000000000ull + (at + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (u32)((z ^ (z >> 31)) >> 16);
}

struct Scale {
    u32 s2, zero;
};

// Of group `group` of row n; beyond the layer the scale is 1 and the zero point 0.
__device__ __forceinline__ Scale scale_of(u64 seed, int n, int group, int rows, int groups) {
    if (n >= rows || group >= groups) return {1, 0};
    const u32 bits = hashed(seed + 1, (u64)n * groups + group);
    return {LEAST_S2 + (bits & 0xffff) % S2_VALUES, LEAST_ZERO + (bits >> 16) % ZERO_VALUES};
}

// Group of column k, counted along the row.
__device__ __forceinline__ int group_at(int k) { return GROUP_SIZE == 0 ? 0 : k / (GROUP_SIZE == 0 ? 1 : GROUP_SIZE); }

// Where the code of (row, k) of a block lies: see packing.rs.
__device__ __forceinline__ int code_word(int row, int k) {
    const int warp = row / 16, lane_row = row % 8, upper = row % 16 / 8, step = k / 32, lane_k = k % 16 / 4;
    return ((warp * 2 + step / 2) * 32 + lane_row * 4 + lane_k) * 4 + step % 2 * 2 + upper;
}

// The packed image of a random layer: one CTA a block of 64 x 128, a thread for four of its words.
extern "C" __global__ void __launch_bounds__(THREADS) random_w4(u32 *image, int rows, int columns, int k_blocks, u64 seed) {
    const int strip = blockIdx.x / k_blocks, k_block = blockIdx.x % k_blocks;
    const int groups = GROUP_SIZE == 0 ? 1 : (columns + GROUP_SIZE - 1) / (GROUP_SIZE == 0 ? 1 : GROUP_SIZE);
    u32 *block = image + (size_t)blockIdx.x * (BLOCK_BYTES / 4);
    for (int word = threadIdx.x; word < BLOCK_WEIGHT_BYTES / 4; word += THREADS) {
        const int upper = word % 2, lane_k = word / 4 % 4, lane_row = word / 16 % 8, warp = word / 256;
        const int step = word / 128 % 2 * 2 + word / 2 % 2;
        const int n = strip * BLOCK_ROWS + warp * 16 + upper * 8 + lane_row;
        const u32 random = hashed(seed, (u64)blockIdx.x * (BLOCK_WEIGHT_BYTES / 4) + word);
        u32 codes = 0;
        for (int byte = 0; byte < 4; byte++) {
            for (int half = 0; half < 2; half++) {
                const int k = k_block * BLOCK_K + step * 32 + half * 16 + lane_k * 4 + byte, shift = 8 * byte + 4 * half;
                const u32 code = k < columns ? random >> shift & 15 : scale_of(seed, n, group_at(k), rows, groups).zero;
                if (n < rows) codes |= code << shift;
            }
        }
        block[word] = codes;
    }
    for (int word = threadIdx.x; word < BLOCK_ROWS / 2 * BLOCK_GROUPS; word += THREADS) {
        const int lane_row = word % 8, sub = word / 8 % BLOCK_GROUPS, warp = word / 8 / BLOCK_GROUPS;
        const int n = strip * BLOCK_ROWS + warp * 16 + lane_row;
        const int group = GROUP_SIZE == 0 ? 0 : k_block * BLOCK_GROUPS + sub;
        const Scale low = scale_of(seed, n, group, rows, groups), high = scale_of(seed, n + 8, group, rows, groups);
        block[BLOCK_WEIGHT_BYTES / 4 + word] = low.s2 | low.zero << 8 | high.s2 << 16 | high.zero << 24;
    }
}

// The int8 weights [rows, columns] an image stands for, code by code: no trick, so that it can be held against the kernels.
extern "C" __global__ void __launch_bounds__(THREADS) expand_w4(const u8 *image, int columns, int k_blocks, signed char *w8) {
    const int n = blockIdx.x, row = n % BLOCK_ROWS;
    for (int k = threadIdx.x; k < columns; k += THREADS) {
        const u8 *block = image + ((size_t)(n / BLOCK_ROWS) * k_blocks + k / BLOCK_K) * BLOCK_BYTES;
        const int in_block = k % BLOCK_K, sub = BLOCK_GROUPS == 1 ? 0 : in_block / (BLOCK_K / BLOCK_GROUPS);
        const int code = block[4 * code_word(row, in_block) + k % 4] >> (k % 32 / 16 * 4) & 15;
        const u8 *scale = block + BLOCK_WEIGHT_BYTES + 4 * ((row / 16 * BLOCK_GROUPS + sub) * 8 + row % 8) + row % 16 / 8 * 2;
        w8[(size_t)n * columns + k] = (signed char)(scale[0] * (code - scale[1]));
    }
}

// Codes over the whole range -127..127, their sums, and scales: one CTA a token.
extern "C" __global__ void __launch_bounds__(THREADS)
    random_tokens(signed char *codes, int *sums, float *scales, int columns, int row_bytes, u64 seed) {
    __shared__ int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    int sum = 0;
    for (int k = threadIdx.x; k < row_bytes; k += THREADS) {
        const int code = (int)(hashed(seed, (u64)blockIdx.x * columns + k) % 255) - 127;
        codes[(size_t)blockIdx.x * row_bytes + k] = k < columns ? code : 0;
        sum += k < columns ? code : 0;
    }
    atomicAdd(&total, sum);
    __syncthreads();
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = total;
        scales[blockIdx.x] = 1e-4f + (hashed(seed + 1, blockIdx.x) & 0xffff) * 1e-6f;
    }
}

// Floats around 0 of variance 1, nearly normal (three uniform ones added), in the type OUT.
extern "C" __global__ void __launch_bounds__(THREADS) random_floats(void *out, u64 count, u64 seed) {
    for (u64 i = (u64)blockIdx.x * THREADS + threadIdx.x; i < count; i += (u64)gridDim.x * THREADS) {
        const u32 bits = hashed(seed, i);
        const float sum = (float)((bits & 1023) + (bits >> 10 & 1023) + (bits >> 20 & 1023)) / 512.0f - 2.99707031f;
#if OUT == OUT_F32
        // Bits for the whole mantissa.
        ((float *)out)[i] = sum + (float)(hashed(seed + 1, i) & 0xffff) * 0x1p-26f;
#else
        ((u16 *)out)[i] = (u16)pack_half(sum, 0.0f);
#endif
    }
}

// Counts outputs that are not `(acc * ta) * s1` rounded to OUT, bit for bit; `sums` were verified before.
extern "C" __global__ void __launch_bounds__(THREADS)
    count_wrong_outputs(const int *sums, const float *ta, const float *s1, const void *d, int columns, u32 *wrong) {
    u32 count = 0;
    for (int n = threadIdx.x; n < columns; n += THREADS) {
        const size_t at = (size_t)blockIdx.x * columns + n;
        const float should = scaled(sums[at], ta[blockIdx.x], s1[n], -0.0f);
#if OUT == OUT_F32
        count += ((const u32 *)d)[at] != __float_as_uint(should);
#else
        count += ((const u16 *)d)[at] != (u16)pack_half(should, 0.0f);
#endif
    }
    if (count) atomicAdd(wrong, count);
}
