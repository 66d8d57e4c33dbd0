// Attention of consecutive tokens of one sequence over an INT8 cache: a CTA takes a tile of rows (tokens times the heads of a group) over
// all pages that they see, a warp 16 rows; pages come to shared memory one ahead of the one in use. Both products run in the matrix units.
//
// A thread's scores of 16 positions are the neighbours that the second product wants of it, since the cache keeps values in that order
// (`value_place`): weights never leave their thread.
#include "attention_tile.cuh"

// Behind Hopper the compiler wants a few more registers than three CTAs leave.
#if __CUDA_ARCH__ >= 1000
constexpr int CTAS = MIN_CTAS > 1 ? MIN_CTAS - 1 : 1;
#else
constexpr int CTAS = MIN_CTAS;
#endif

extern "C" __global__ void __launch_bounds__(THREADS, CTAS) attention_prompt(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const Tile tile = find_tile(args);
    if (tile.count == 0) return;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int first_page = first_seen(tile.position, args.window) / PAGE;
    // The same in all lanes, and known to be.
    const int last_page = __reduce_max_sync(0xffffffffu, (tile.position + tile.count - 1) / PAGE);
    if (KEY_WIDTH > ROW) {
        for (int i = threadIdx.x; i < 2 * PAGE; i += THREADS) *(uint4 *)&shared.stage[i / PAGE].keys[i % PAGE][ROW] = make_uint4(0, 0, 0, 0);
    }
    load_page(args, shared.stage[0], tile.pages[first_page], tile.kv_head, tile.pages + min(first_page + 1, last_page));
    Rows &kept = shared.rows;
    RowState rows[2];
    float slopes[2] = {0.0f, 0.0f};
    int last[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first_row() + r * 8, token = token_of_row(tile, row);
        // Rows without a token see what the last one does.
        kept.last[row] = last[r] = tile.position + (token < 0 ? tile.count - 1 : token);
        rows[r].reference = kept.whole_reference[row] = -LARGEST;
        rows[r].sum = kept.whole_sum[row] = 0.0f;
#if ALIBI
        slopes[r] = args.slopes[tile.kv_head * GROUP + row % GROUP];
#endif
    }
    // What all rows of the warp see, and what any of them does.
    const int lowest = __reduce_min_sync(0xffffffffu, min(last[0], last[1]));
    const int highest = __reduce_max_sync(0xffffffffu, max(last[0], last[1]));
    const int warp_first = first_seen(lowest, args.window), all_first = first_seen(highest, args.window);
    const int seen_from = warp_first / PAGE, seen_to = highest / PAGE;
    const int whole_from = (all_first + PAGE - 1) / PAGE, whole_end = (lowest + 1) / PAGE;
    Queries queries;
#if HEAD_DIM > 128
    prepare_queries(args, shared.queries[warp][0], tile, queries, kept);
#else
    prepare_queries(args, (u8 *)shared.total[warp], tile, queries, kept);
#endif
    if (lane < 16) kept.plain_factor[warp * 16 + lane] = plain_factor(kept.query_scale[warp * 16 + lane], args.scale);
    __syncwarp();
    int plain_from = whole_from;  // scores of pages before lie apart
    float out[TILES][4];
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) {
        out[i / 4][i % 4] = 0.0f;
        shared.total[warp][i][lane] = 0.0f;
    }
#pragma unroll 1
    for (int page = first_page; page <= last_page; page++) {
        const Stage &stage = shared.stage[(page - first_page) % 2];
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        if (page < last_page) {
            Stage &next = shared.stage[(page - first_page + 1) % 2];
            load_page(args, next, stage.next[0], tile.kv_head, tile.pages + min(page + 2, last_page));
        }
        if (page >= seen_from && page <= seen_to) {
            const bool tried = !ALIBI && !SOFT_CAP && SMALL && page >= plain_from && page < whole_end;
            if (!tried || !take_plain_page(args, stage, queries, kept, rows, out)) {
                // Those of the same span will too.
                if (tried) plain_from = (page | (SPAN_PAGES - 1)) + 1;
                take_page(args, stage, queries, kept, rows, page, page >= whole_from && page < whole_end, slopes, out);
            }
        }
        if (page % SPAN_PAGES == SPAN_PAGES - 1 || page == last_page) join_span(shared.total[warp], kept, rows, out);
    }
    write_rows(args, tile, shared.total[warp], kept);
}
