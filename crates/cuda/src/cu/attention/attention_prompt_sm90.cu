// Attention of consecutive tokens of one sequence over an INT8 cache on Hopper: as attention_prompt, with products of warp groups. A group
// of four warps takes 64 rows (tokens times the heads of a group); the groups of a CTA share the pages that one more warp brings.
#include "attention_group.cuh"

// The stage is full.
__device__ __forceinline__ void announce(Shared &shared, u32 stage) {
    show_to_products();
    __syncwarp();
    if (threadIdx.x % 32 == 0) barrier_arrive(shared.full[stage]);
}

// Pages come in order; a page's stage is announced when those after it are on their way.
__device__ __forceinline__ void bring_pages(const AttentionArgs &args, Shared &shared, const Tile &tile, int first_page, int last_page) {
    const u32 lane = threadIdx.x % 32;
    const int pages = last_page - first_page + 1;
    // A row of keys is eight pieces, one of values four: pieces change places as the products expect them.
    const u32 key = lane / 8 * ROW + (lane % 8 ^ lane / 8) * 16, odd_key = lane / 8 * ROW + (lane % 8 ^ (lane / 8 + 4)) * 16;
    const u32 value = lane / 4 * PAGE + (lane % 4 ^ lane / 8 % 4) * 16;
    u32 numbers = 0, stage = 0, round = 0;
    for (int at = 0; at < pages; at++) {
        if (at % 32 == 0) numbers = tile.pages[min(first_page + at + (int)lane, last_page)];
        const size_t place = (size_t)__shfl_sync(ALL_LANES, numbers, at % 32) * args.kv_heads + tile.kv_head;
        if (round > 0) barrier_wait(shared.empty[stage], round - 1);
        const u8 *keys = args.keys + place * PAGE * ROW + lane * 16, *values = args.values + place * PAGE * ROW + lane * 16;
        const u32 key_stage = shared_address(shared.keys[stage]), value_stage = shared_address(shared.values[stage]);
#pragma unroll
        for (u32 turn = 0; turn < PAGE * ROW / 512; turn++) {
            copy_ahead(key_stage + turn * 512 + (turn % 2 ? odd_key : key), keys + turn * 512);
            copy_ahead(value_stage + turn * 512 + value, values + turn * 512);
        }
#if FORMAT == 2
        const u32 scale = lane % 16 * 4;
        const float *scales = lane < 16 ? args.key_scales : args.value_scales;
        copy_ahead(shared_address(lane < 16 ? &shared.key_scales[stage][scale] : &shared.value_scales[stage][scale]), scales + place * PAGE + scale);
#endif
        asm volatile("cp.async.commit_group;" ::: "memory");
        if (at >= AHEAD) {
            asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD) : "memory");
            announce(shared, (stage + STAGES - AHEAD) % STAGES);
        }
        if (++stage == STAGES) stage = 0, round++;
    }
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    for (int at = max(0, pages - AHEAD); at < pages; at++) announce(shared, at % STAGES);
}

// A page by the rules, or nothing of it where the warp sees none.
__device__ __forceinline__ void weigh_by_rules(const AttentionArgs &args, const PageScales &scales, const Rows &kept, const u8 *queries, const u8 *keys,
                                               RowState (&rows)[2], int page, bool whole, const float (&slopes)[2], u32 (&weights)[2][4],
                                               PageJoin (&joins)[2]) {
    int sums[8][4];
    float v[8][4];
    multiply_keys_alone(queries, keys, sums);
    score_page(args, scales, kept, page, sums, v, slopes);
    if (!whole) hide_unseen(kept, args.window, page, v);
    joins[0] = weigh_row(args, scales, rows[0], v, 0);
    joins[1] = weigh_row(args, scales, rows[1], v, 2);
    pack_weights(v, weights);
}

// Pages that any row of a warp sees, and those that all rows see as a whole.
struct Seen {
    int from, to, whole_from, whole_end;
};

__device__ __forceinline__ Seen begin_rows(const AttentionArgs &args, const Tile &tile, Rows &kept, RowState (&rows)[2]) {
    int last[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first_row() + r * 8, token = token_of_row(tile, row);
        // Rows without a token see what the last one does.
        kept.last[row] = last[r] = tile.position + (token < 0 ? tile.count - 1 : token);
        rows[r].reference = kept.whole_reference[row] = -LARGEST;
        rows[r].sum = kept.whole_sum[row] = 0.0f;
    }
    const int lowest = __reduce_min_sync(ALL_LANES, min(last[0], last[1])), highest = __reduce_max_sync(ALL_LANES, max(last[0], last[1]));
    const int first = first_seen(lowest, args.window), all_first = first_seen(highest, args.window);
    return Seen{first / PAGE, highest / PAGE, (all_first + PAGE - 1) / PAGE, (lowest + 1) / PAGE};
}

__device__ __forceinline__ void attend_pages(const AttentionArgs &args, Shared &shared, const Tile &tile, int first_page, int last_page) {
    const int warp = __shfl_sync(ALL_LANES, threadIdx.x / 32, 0), lane = threadIdx.x % 32, group = warp / 4;
    Rows &kept = shared.rows;
    RowState rows[2];
    const Seen seen = begin_rows(args, tile, kept, rows);
    float slopes[2] = {0.0f, 0.0f};
#if ALIBI
#pragma unroll
    for (int r = 0; r < 2; r++) slopes[r] = args.slopes[tile.kv_head * GROUP + (first_row() + r * 8) % GROUP];
#endif
    prepare_queries(args, shared.queries[group], tile, kept);
    int plain_from = ALIBI ? seen.whole_end : seen.whole_from;  // scores of pages before lie apart
    float out[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) out[t][i] = 0.0f;
        shared.total[warp][t][lane] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
    const u64 queries = rows_of_128(shared.queries[group]), all_keys = rows_of_128(shared.keys[0]), all_values = rows_of_64(shared.values[0]);
    const u64 lift = same_rows(shared.lift[0]);
    u32 stage = 0, round = 0;
    int scores[8][4];
    barrier_wait(shared.full[0], 0);
    begin_scores(scores, lift, queries, all_keys);
#pragma unroll 1
    for (int page = first_page; page <= last_page; page++) {
        const u32 at = stage * (PAGE * ROW / 16), done = stage;
        const PageScales scales{shared.key_scales[stage], shared.value_scales[stage]};
        u32 weights[2][4];
        PageJoin joins[2];
        products_wait<0>();
        const bool tried = page >= plain_from && page < seen.whole_end;
        if (!tried || !weigh_plain_page(args, scales, kept, LIFTED, scores, rows, weights, joins)) {
            // Those of the same span will too.
            if (tried) plain_from = (page | (SPAN_PAGES - 1)) + 1;
            if (page >= seen.from && page <= seen.to) {
                weigh_by_rules(args, scales, kept, shared.queries[group], shared.keys[stage], rows, page, page >= seen.whole_from && page < seen.whole_end,
                               slopes, weights, joins);
            } else {
                weigh_nothing(weights, joins);
            }
        }
        int sums[8][4];
        begin_values(sums, weights, all_values + at);
        if (++stage == STAGES) stage = 0, round++;
        if (page < last_page) barrier_wait(shared.full[stage], round);
        // Behind the last page its own scores again, which nobody reads.
        begin_scores(scores, lift, queries, all_keys + (page < last_page ? stage : done) * (PAGE * ROW / 16));
        bring_to_reference(joins, out);
        products_wait<1>();
        add_values<0>(sums, joins, out);
        begin_values(sums, weights, all_values + at + ROW / 2 * PAGE / 16);
        products_wait<0>();
        if (lane == 0) barrier_arrive(shared.empty[done]);
        add_values<TILES / 2>(sums, joins, out);
        if ((page & (SPAN_PAGES - 1)) == SPAN_PAGES - 1 || page == last_page) join_span(shared.total[warp], kept, rows, out);
    }
    products_wait<0>();
    write_rows(args, tile, shared.total[warp], kept);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_prompt_sm90(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const Tile tile = find_tile(args);
    if (tile.count == 0) return;
    const int first_page = first_seen(tile.position, args.window) / PAGE;
    // The same in all lanes, and known to be.
    const int last_page = __reduce_max_sync(ALL_LANES, (tile.position + tile.count - 1) / PAGE);
    if (threadIdx.x < STAGES) {
        barrier_init(shared.full[threadIdx.x], 1);
        barrier_init(shared.empty[threadIdx.x], WARPS);
    }
    write_lifts(shared);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
    if (threadIdx.x >= WARPS * 32) {
        registers_give<32>();
        if (threadIdx.x < WARPS * 32 + 32) bring_pages(args, shared, tile, first_page, last_page);
    } else {
        registers_take<REGISTERS>();
        attend_pages(args, shared, tile, first_page, last_page);
    }
}
