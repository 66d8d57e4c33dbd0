// What every W4A8 kernel shares: the arguments, the packed weight image and the unpack.
//
// The image is blocks of 64 rows of N by 128 k: 4 KiB of nibbles in the order of the tensor cores' register operand (a lane's
// 16 bytes are its part of 16 rows by 64 k), then one word {s2, zero, s2, zero} for the rows g and g + 8 of each group.
// Nibbles unpack to u8 = w8 + 128: `w * s2 + (128 - s2 * zero) * 0x01010101`, one multiply-add for four weights. The 128 leaves in
// the epilogue as 128 * sum_k a8, exact modulo 2^32, so no instruction is spent on signs.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef GROUP_SIZE
#define GROUP_SIZE 128
#endif
#ifndef OUT
#define OUT 1
#endif

#define OUT_F32 0
#define OUT_F16 1
#define OUT_BF16 2
#define OUT_I32 3

constexpr int BLOCK_ROWS = 64;
constexpr int BLOCK_K = 128;
// Groups a block: GROUP_SIZE 0 is one scale a channel, stored as groups of 128 of which the first counts.
constexpr int BLOCK_GROUPS = GROUP_SIZE == 0 ? 1 : BLOCK_K / GROUP_SIZE;
constexpr int BLOCK_WEIGHT_BYTES = BLOCK_ROWS * BLOCK_K / 2;
constexpr int BLOCK_BYTES = BLOCK_WEIGHT_BYTES + 2 * BLOCK_ROWS * BLOCK_GROUPS;

// Mirrors `GemmArgs` of the host, by value.
struct GemmArgs {
    const u8 *b;           // packed image
    const signed char *a;  // [m, lda]
    const int *a_sum;      // [m], sum over k of a
    const float *ta;       // [m]
    const float *s1;       // [n]
    const float *bias;     // [n] or null
    void *d;               // [m, ldd]
    void *workspace;       // zero before and after
    int m, n, k, lda, ldd, k_blocks, sk_tiles, raster_m;
};

// Programmatic launch: the next kernel of the stream may begin (its weights do not depend on us)...
__device__ __forceinline__ void let_dependents_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ...and waits here for whatever wrote its activations or still reads its output. Nothing to wait for in a plain launch.
__device__ __forceinline__ void wait_for_producers() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ uint4 load_shared_16(u32 address) {
    uint4 v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "r"(address));
    return v;
}

__device__ __forceinline__ u32 load_shared_4(u32 address) {
    u32 v;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
    return v;
}

struct Group {
    u32 s2;
    u32 offset;  // (128 - s2 * zero) * 0x01010101
};

// Row g (up = 0) or g + 8 (up = 1) of a scale word.
__device__ __forceinline__ Group group_of(u32 word, int up) {
    Group group;
    group.s2 = up ? (word >> 16) & 0xff : word & 0xff;
    u32 zeros = __byte_perm(word, 0, up ? 0x3333 : 0x1111);
    group.offset = 0x80808080u - group.s2 * zeros;
    return group;
}

__device__ __forceinline__ u32 unpack_low(u32 nibbles, Group group) {
    return (nibbles & 0x0f0f0f0fu) * group.s2 + group.offset;
}

__device__ __forceinline__ u32 unpack_high(u32 nibbles, Group group) {
    return ((nibbles >> 4) & 0x0f0f0f0fu) * group.s2 + group.offset;
}

// d = (acc * ta) * s1 + bias, each step rounded: the same on every backend. No bias is -0.0, which leaves every value as it is.
__device__ __forceinline__ float scaled(int acc, float ta, float s1, float bias) {
    return __fadd_rn(__fmul_rn(__fmul_rn(__int2float_rn(acc), ta), s1), bias);
}

// Two floats as two 16-bit floats, `low` in the low half.
__device__ __forceinline__ u32 pack_half(float low, float high) {
    u32 packed;
#if OUT == OUT_BF16
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#endif
    return packed;
}

// One float output in the type OUT.
__device__ __forceinline__ void store_value(const GemmArgs &args, int m, int n, float v) {
    size_t at = (size_t)m * args.ldd + n;
#if OUT == OUT_F32
    ((float *)args.d)[at] = v;
#else
    ((u16 *)args.d)[at] = (u16)pack_half(v, 0.0f);
#endif
}

// One output in the type OUT; `acc` has lost its 128 * a_sum.
__device__ __forceinline__ void store_one(const GemmArgs &args, int m, int n, int acc, float ta, float s1, float bias) {
#if OUT == OUT_I32
    ((int *)args.d)[(size_t)m * args.ldd + n] = acc;
#else
    store_value(args, m, n, scaled(acc, ta, s1, bias));
#endif
}
