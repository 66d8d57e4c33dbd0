// What the products of experts share: where the weights of each expert lie, and which rows go to which.
//
// The rows of a routing are sorted by expert. The routing has cut them into tiles, none of two experts, and as many CTAs are launched as there
// can be at most: the host does not know which experts were chosen. So a recorded step can be replayed for other tokens.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// Mirrors `Entry` of the host.
struct __align__(16) Expert {
    const u8 *weights;
    const float *s1;    // [n], not for float weights
    const float *bias;  // [n] or null
    int kind;           // whose kernel takes it
    int groups;         // of a block of 4-bit weights
};

// Rows first .. end of a routing, of one expert. Mirrors `Tile` of the host.
struct __align__(16) Tile {
    int expert, first, end, unused;
};

// Mirrors `ExpertArgs` of the host, by value.
struct ExpertArgs {
    const Expert *experts;
    const Tile *tiles;
    const u32 *tokens;     // [rows] row of `a` that a row of the routing reads, or null: its own
    const void *a;         // [.., row] codes or floats
    const int *a_sum;      // [..] sum of a row's codes
    const float *ta;       // [..] scale of a row
    float *d;              // [rows, n]
    int n, row, k_parts;   // K in parts as the kernel counts them
    int cuts;              // a tile is 2^cuts parts where it has more rows than a CTA takes
    int kind;
    int shares;            // 2^shares warps share a strip, where the kernel lets them
};

// What a CTA does: x of the grid are parts of N, y are tiles and parts of them.
struct Work {
    Expert expert;
    int expert_idx, first, rows, n_part;

    // False where there is nothing to do for a CTA that takes `most` rows.
    __device__ __forceinline__ bool find(const ExpertArgs &args, int most) {
        return find_rows(args, most) && find_expert(args);
    }

    __device__ __forceinline__ bool find_rows(const ExpertArgs &args, int most) {
        const int4 tile = *(const int4 *)(args.tiles + (blockIdx.y >> args.cuts));
        n_part = blockIdx.x;
        expert_idx = tile.x;
        first = tile.y + (blockIdx.y & ((1 << args.cuts) - 1)) * most;
        rows = min(most, tile.z - first);
        return rows > 0;
    }

    __device__ __forceinline__ bool find_expert(const ExpertArgs &args) {
        expert = args.experts[expert_idx];
        return expert.kind == args.kind;
    }

    // The row of `a` that row `at` of the CTA reads; rows behind the last one repeat it.
    __device__ __forceinline__ u32 source(const ExpertArgs &args, int at) const {
        const int own = first + min(at, rows - 1);
        return args.tokens ? args.tokens[own] : own;
    }

    __device__ __forceinline__ float bias(int feature) const {
        return expert.bias ? expert.bias[feature] : -0.0f;
    }
};
