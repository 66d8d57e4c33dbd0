// Attention of consecutive tokens of one sequence over an INT8 cache: a CTA takes a tile of rows (tokens times the heads of a group) over
// all pages that they see, a warp 16 rows; pages come to shared memory one ahead of the one in use. Both products run in the matrix units.
//
// A thread's scores of 16 positions are the neighbours that the second product wants of it, since the cache keeps values in that order
// (`value_place`): weights never leave their thread.
#include "attention_plain.cuh"

// Behind Hopper the compiler wants a few more registers than three CTAs leave, and with heads of 80 everywhere.
#if __CUDA_ARCH__ >= 1000 || HEAD_DIM > 64 && HEAD_DIM <= 80
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
    const int first_page = first_seen(tile.position, args.window) / PAGE, last_page = (tile.position + tile.count - 1) / PAGE;
    if (KEY_WIDTH > ROW) {
        for (int i = threadIdx.x; i < 2 * PAGE; i += THREADS) *(uint4 *)&shared.stage[i / PAGE].keys[i % PAGE][ROW] = make_uint4(0, 0, 0, 0);
    }
    load_page(args, shared.stage[0], tile.pages[first_page], tile.kv_head);
    RowState rows[2];
    float slopes[2] = {0.0f, 0.0f};
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = warp * 16 + lane / 4 + r * 8, token = token_of_row(tile, row);
        rows[r].last = tile.position + (token < 0 ? tile.count - 1 : token);
        rows[r].reference = rows[r].whole_reference = -LARGEST;
        rows[r].sum = rows[r].whole_sum = 0.0f;
#if ALIBI
        slopes[r] = args.slopes[tile.kv_head * GROUP + row % GROUP];
#endif
    }
    // What all rows of the warp see, and what any of them does.
    const int lowest = __reduce_min_sync(0xffffffffu, min(rows[0].last, rows[1].last));
    const int highest = __reduce_max_sync(0xffffffffu, max(rows[0].last, rows[1].last));
    const int warp_first = first_seen(lowest, args.window), all_first = first_seen(highest, args.window);
    Queries queries;
#if HEAD_DIM > 128
    prepare_queries(args, shared.queries[warp][0], tile, queries, rows);
#else
    prepare_queries(args, (u8 *)shared.total[warp], tile, queries, rows);
#endif
    const PlainRow plain[2] = {plain_row(rows[0].query_scale, args.scale), plain_row(rows[1].query_scale, args.scale)};
    bool apart = false;  // scores of the span's last pages
    float out[TILES][4];
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) {
        out[i / 4][i % 4] = 0.0f;
        shared.total[warp][i][lane] = 0.0f;
    }
    u32 upcoming = first_page < last_page ? tile.pages[first_page + 1] : 0;
#pragma unroll 1
    for (int page = first_page; page <= last_page; page++) {
        const Stage &stage = shared.stage[(page - first_page) % 2];
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
        if (page < last_page) {
            load_page(args, shared.stage[(page - first_page + 1) % 2], upcoming, tile.kv_head);
            if (page + 1 < last_page) upcoming = tile.pages[page + 2];
        }
        if (page * PAGE <= highest && page * PAGE + PAGE > warp_first) {
            const bool whole = page * PAGE + PAGE - 1 <= lowest && page * PAGE >= all_first;
            const bool tried = !ALIBI && SMALL && whole && !apart;
            if (!tried || !take_plain_page(args, stage, queries, plain, rows, out)) {
                apart = tried;
                take_page(args, stage, queries, rows, page, whole, slopes, out);
            }
        }
        if (page % SPAN_PAGES == SPAN_PAGES - 1 || page == last_page) {
            join_span(shared.total[warp], rows, out);
            apart = false;
        }
    }
    write_rows(args, tile, shared.total[warp], rows);
}
