// The product every other 4-bit format computes, for comparison with gemm_w4a8_sm90: group scales are floats, so the int32 sums of each
// group of 128 leave the tensor cores, become floats, are scaled and added to float sums (`Consumer::multiply` in gemm_float.cuh).
//
// Everything else is that kernel's own text. What is cheaper here stays cheaper: zero points are 8 throughout, so four weights unpack
// with one or two instructions to s8 = 16 * (q - 8), no token sums are needed, and two f16 scales take the bytes of {s2, zero, s2, zero}.
#define FLOAT_SCALES 1
#define WGMMA_A "s8"
#define KERNEL gemm_w4f_sm90
#include "gemm_w4a8_sm90.cu"
