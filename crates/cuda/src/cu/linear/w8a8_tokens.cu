// INT8 tokens as gemm_w8a8_sm90 takes them: blocks of 128 columns one after the other, in each the tokens in rows of 128 bytes, swizzled as
// wgmma reads them. Columns stand in the order in which lanes hold the weights' (see w8_image.cuh): of a chunk of 64, word 4 t + 2 step + half
// becomes word 8 step + 4 half + t. Zeros stand behind the last token and the last column.
#include "float_rules.cuh"

// Mirrors `TokenArgs` of the host, by value.
struct TokenArgs {
    const signed char *codes;  // [m, row_bytes]
    uint4 *out;                // [blocks][rows][8]
    int m, row_bytes, rows, blocks;
};

extern "C" __global__ void __launch_bounds__(256) w8a8_tokens(const TokenArgs args) {
    let_dependents_start();
    const int at = blockIdx.x * 256 + threadIdx.x, piece = at % 8, token = at / 8 % args.rows, block = at / 8 / args.rows;
    if (block >= args.blocks) return;
    // Four words of a chunk, sixteen bytes apart.
    const int column = block * 128 + piece / 4 * 64 + piece % 4 * 4;
    const signed char *from = args.codes + (size_t)token * args.row_bytes + column;
    u32 words[4];
    wait_for_producers();
#pragma unroll
    for (int t = 0; t < 4; t++) words[t] = token < args.m && column + t * 16 < args.row_bytes ? *(const u32 *)(from + t * 16) : 0;
    args.out[at - piece + (piece ^ token % 8)] = make_uint4(words[0], words[1], words[2], words[3]);
}
