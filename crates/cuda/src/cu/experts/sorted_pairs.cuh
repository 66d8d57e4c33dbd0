// What sorting the pairs of a routing writes.
#pragma once
#include "experts.cuh"

// Mirrors `SortArgs` of the host, by value.
struct SortArgs {
    const u32 *experts;    // [pairs]
    u32 *rows;             // [pairs] row of each pair
    u32 *tokens;           // [pairs] token of each row
    volatile u32 *starts;  // [num_experts + 1]: others have written what the last CTA reads
    Tile *tiles;           // [most_tiles], those that are not needed without rows
    int *done;             // experts that are sorted; 0 before and after
    int pairs, num_chosen, num_experts, tile_rows, most_tiles;
};

__device__ __forceinline__ int num_tiles(const SortArgs &args, int rows) {
    return (rows + args.tile_rows - 1) / args.tile_rows;
}

// The tiles of an expert, from `tile`; tells the next one.
__device__ __forceinline__ int write_tiles(const SortArgs &args, int expert, int start, int end, int tile) {
    for (; start < end; start += args.tile_rows) args.tiles[tile++] = Tile{expert, start, min(end, start + args.tile_rows), 0};
    return tile;
}
