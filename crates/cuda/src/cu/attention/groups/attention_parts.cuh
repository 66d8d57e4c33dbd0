// Which pages of which tiles a thread block of a prompt takes (see attention_prompt_sm90.cu).
//
// All pages of all tiles stand in a row, and each block takes as long a part of it as any other. A tile that is cut is begun by one block
// and ended by the next one, which goes on from the state that the first one leaves. A block begins with what it passes on and ends with
// what it is given, so that nobody waits: only where a tile is longer than a block's part do blocks of it wait for one another, those behind
// for those before.
#pragma once
#include "attention_rows.cuh"

constexpr int TILE_COST = 4;   // of beginning and ending a tile, in pages
constexpr int LEAST_PART = 2;  // pages of a tile that are worth a block's change
constexpr u32 MANY_RUNS = 32;

// Where a block's part begins: a tile and how many of its pages another block takes. Tiles are counted with their key/value heads.
struct Cut {
    int tile, pages;
};

// Pages of a tile that one block takes, as the warp that brings them tells those that attend.
struct Part {
    int token, position, first_page, last_page;
    u32 words;  // key/value head, tokens, whether another block has begun the tile, whether another one ends it

    __device__ __forceinline__ Tile tile() const {
        return Tile{token, position, (int)(words >> 2 & 1023), (int)(words >> 12)};
    }

    __device__ __forceinline__ bool is_given() const {
        return words >> 1 & 1;
    }

    __device__ __forceinline__ bool is_passed() const {
        return words & 1;
    }
};
static_assert(TILE_TOKENS < 1024, "tokens of a part");

__device__ __forceinline__ int tile_pages(int window, int position, int count) {
    return (position + count - 1) / PAGE - first_seen(position, window) / PAGE + 1;
}

__device__ __forceinline__ int tiles_of(u32 tokens) {
    return (tokens + TILE_TOKENS - 1) / TILE_TOKENS;
}

struct RunTiles {
    Run run;
    u32 tokens;
};

__device__ __forceinline__ RunTiles run_tiles(const AttentionArgs &args, const StepHead &step, u32 r) {
    const Run run = run_of(args.step, step.first_run, r);
    const u32 end = r + 1 < step.runs ? run_of(args.step, step.first_run, r + 1).tokens_before : step.run_tokens;
    return RunTiles{run, end - run.tokens_before};
}

// What a lane's tile of a run costs, in pages; nothing behind the last one.
__device__ __forceinline__ u32 tile_cost(const AttentionArgs &args, const RunTiles &tiles, int tile) {
    const int first = tile * TILE_TOKENS, count = min((int)tiles.tokens - first, TILE_TOKENS);
    return count > 0 ? tile_pages(args.window, tiles.run.position + first, count) + TILE_COST : 0;
}

// The cuts before the block and behind it, by a warp.
__device__ __forceinline__ void find_cuts(const AttentionArgs &args, Cut (&cuts)[2]) {
    const int lane = threadIdx.x % 32;
    const StepHead step = step_head(args.step);
    u32 cost = 0, tiles = 0;
    for (u32 r = 0; r < step.runs; r++) {
        const RunTiles run = run_tiles(args, step, r);
        for (int tile = lane; tile < tiles_of(run.tokens); tile += 32) cost += tile_cost(args, run, tile);
        tiles += tiles_of(run.tokens);
    }
    cost = __reduce_add_sync(0xffffffffu, cost);
    tiles *= args.kv_heads;
    // Many short prompts are as many tiles for each block: to look for equal parts would take longer than the difference.
    const bool whole = tiles <= gridDim.x || step.runs > MANY_RUNS;
    u32 before = 0;  // tiles in front of a run
    u64 spent = 0;
    u64 targets[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        targets[side] = (u64)cost * args.kv_heads * (blockIdx.x + side) / gridDim.x;
        cuts[side] = Cut{(int)(whole ? (u64)tiles * (blockIdx.x + side) / gridDim.x : tiles), 0};
    }
    for (u32 r = 0; r < step.runs && !whole; r++) {
        const RunTiles run = run_tiles(args, step, r);
        for (int first = 0; first < tiles_of(run.tokens); first += 32) {
            const u32 mine = tile_cost(args, run, first + lane);
            u32 to = mine;
#pragma unroll
            for (int other = 1; other < 32; other *= 2) {
                const u32 left = __shfl_up_sync(0xffffffffu, to, other);
                to += lane >= other ? left : 0;
            }
#pragma unroll
            for (int side = 0; side < 2; side++) {
                const u64 from = spent + (u64)(to - mine) * args.kv_heads;
                const u32 found = __ballot_sync(0xffffffffu, targets[side] >= from && targets[side] < from + (u64)mine * args.kv_heads);
                if (found == 0) continue;
                const u32 into = (u32)(targets[side] - from), head = into / max(mine, 1);
                const int pages = (int)mine - TILE_COST, left = (int)(into % max(mine, 1)) - TILE_COST / 2;
                // Few pages are not worth a change.
                const Cut cut = left < LEAST_PART ? Cut{0, 0} : left > pages - LEAST_PART ? Cut{1, 0} : Cut{0, left};
                const int place = (before + first + lane) * args.kv_heads + head + cut.tile;
                cuts[side].tile = __shfl_sync(0xffffffffu, place, __ffs(found) - 1);
                cuts[side].pages = __shfl_sync(0xffffffffu, cut.pages, __ffs(found) - 1);
            }
            spent += (u64)__shfl_sync(0xffffffffu, to, 31) * args.kv_heads;
        }
        before += tiles_of(run.tokens);
    }
}

// How many parts lie between two cuts.
__device__ __forceinline__ int count_parts(const Cut (&cuts)[2]) {
    if (cuts[0].tile == cuts[1].tile) return cuts[1].pages > cuts[0].pages;
    return cuts[1].tile - cuts[0].tile + (cuts[1].pages > 0);
}

// Which tile a block takes in its turn `at`: what it passes on, whole ones, and what it is given.
__device__ __forceinline__ int tile_in_turn(const Cut (&cuts)[2], int at) {
    if (cuts[1].pages > 0) at--;
    if (at < 0) return cuts[1].tile;
    if (cuts[0].pages == 0) return cuts[0].tile + at;
    return cuts[0].tile + 1 + at < cuts[1].tile ? cuts[0].tile + 1 + at : cuts[0].tile;
}

__device__ __forceinline__ Part find_part(const AttentionArgs &args, const Cut (&cuts)[2], int turn, const u32 *&pages) {
    const int at = tile_in_turn(cuts, turn);
    const Tile tile = tile_at(args, at);
    const int first = first_seen(tile.position, args.window) / PAGE, last = (tile.position + tile.count - 1) / PAGE;
    const bool is_given = at == cuts[0].tile && cuts[0].pages > 0, is_passed = at == cuts[1].tile;
    pages = tile.pages;
    return Part{tile.token, tile.position, first + (is_given ? cuts[0].pages : 0), is_passed ? first + cuts[1].pages - 1 : last,
                (u32)tile.kv_head << 12 | (u32)tile.count << 2 | is_given << 1 | is_passed};
}
