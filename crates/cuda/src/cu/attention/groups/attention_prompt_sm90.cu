// Attention of consecutive tokens of one sequence over an INT8 cache on Hopper: as attention_prompt, with products of warp groups. A group
// of four warps takes 64 rows (tokens times the heads of a group); the groups of a CTA share the pages that four more warps bring.
// CTAs stay, and have equal parts of all pages (see attention_parts.cuh).
#include "attention_group.cuh"

// The stage is full.
__device__ __forceinline__ void announce(Shared &shared, u32 stage) {
    show_to_products();
    __syncwarp();
    if (thread_again() % 32 == 0) barrier_arrive(shared.full[stage]);
}

__device__ __forceinline__ void bring_page(const AttentionArgs &args, Shared &shared, u32 stage, size_t place) {
    const u32 lane = thread_again() % 32;
    // A row of keys is eight pieces, one of values four: pieces change places as the products expect them.
    const u32 key = lane / 8 * ROW + (lane % 8 ^ lane / 8) * 16;
    const u32 value = lane / 4 * PAGE + (lane % 4 ^ lane / 8 % 4) * 16;
    const u8 *keys = args.keys + place * PAGE * ROW + lane * 16, *values = args.values + place * PAGE * ROW + lane * 16;
    const u32 key_stage = shared_address(shared.keys[stage]), value_stage = shared_address(shared.values[stage]);
#pragma unroll
    for (u32 turn = 0; turn < PAGE * ROW / 512; turn++) {
        copy_ahead(key_stage + turn * 512 + (turn % 2 ? key ^ 64 : key), keys + turn * 512);
        copy_ahead(value_stage + turn * 512 + value, values + turn * 512);
    }
#if FORMAT == 2
    const u32 scale = lane % 16 * 4;
    const float *scales = lane < 16 ? args.key_scales : args.value_scales;
    copy_ahead(shared_address(lane < 16 ? &shared.key_scales[stage][scale] : &shared.value_scales[stage][scale]), scales + place * PAGE + scale);
#endif
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Parts and their pages in order, a page to each of the warps in turn: so each is announced as soon as it is there, and all stages but one
// can be ahead of the slowest group. (One warp that announces a page when three more are on their way: 1 to 2 % slower.)
__device__ __forceinline__ void bring_parts(const AttentionArgs &args, Shared &shared) {
    u32 next = thread_again() / 32 % BRINGERS;  // the warp's next page, of all that the block takes
    u32 before = 0;                             // pages of parts before
    for (int turn = 0; turn < count_parts(shared.cuts); turn++) {
        const u32 *numbers_of_pages;
        const Part part = find_part(args, shared.cuts, turn, numbers_of_pages);
        numbers_of_pages += part.first_page;
        const u32 pages = part.last_page - part.first_page + 1;
        const u32 head = part.tile().kv_head;
        for (; next < before + pages; next += BRINGERS) {
            const size_t place = (size_t)numbers_of_pages[next - before] * args.kv_heads + head;
            const u32 stage = next % STAGES, round = next / STAGES;
            if (round > 0) barrier_wait(shared.empty[stage], round - 1);
            // Nobody reads it before the part's first page is there.
            if (next == before && thread_again() % 32 == 0) shared.parts[turn % PARTS] = part;
            bring_page(args, shared, stage, place);
            asm volatile("cp.async.wait_group 0;" ::: "memory");
            announce(shared, stage);
        }
        before += pages;
    }
}

// A page by the rules, or nothing of it where the warp sees none.
__device__ __forceinline__ void weigh_by_rules(const AttentionArgs &args, const PageScales &scales, const Rows &kept, const u8 *queries, const u8 *keys,
                                               RowState (&rows)[2], int page, bool whole, const float (&slopes)[2], u32 (&weights)[2][4],
                                               PageJoin (&joins)[2]) {
    int sums[8][4];
    float v[8][4];
    multiply_keys_alone(queries, keys, ROUND_BITS, sums);
    score_page(args, scales, kept, page, sums, v, slopes);
    if (!whole) hide_unseen(kept, args.window, page, v);
    joins[0] = weigh_row(args, scales, rows[0], v, 0);
    joins[1] = weigh_row(args, scales, rows[1], v, 2);
    pack_weights(v, weights);
}

// A page whose scores may lie apart, or that not all rows see as a whole. False: it goes by the rules.
__device__ __forceinline__ bool weigh_wide(u32 thread, const AttentionArgs &args, const PageScales &scales, const Rows &kept, const u8 *queries,
                                           const u8 *keys, RowState (&rows)[2], int page, bool whole, u32 (&weights)[2][4], PageJoin (&joins)[2]) {
    int sums[8][4];
    multiply_keys_alone(queries, keys, SEAM_BITS, sums);
    return weigh_plain_page<true>(thread, args, scales, kept, SEAM, sums, rows, weights, joins, page, whole);
}

// Pages that any row of a warp sees, and those that all rows see as a whole.
struct Seen {
    int from, to, whole_from, whole_end;
};

// What the rows of a tile see up to.
__device__ __forceinline__ void place_rows(const Tile &tile, Rows &kept) {
    const int thread = thread_again();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = thread / 32 * 16 + thread % 32 / 4 + r * 8, token = token_of_row(tile, row);
        // Rows without a token see what the last one does.
        kept.last[row] = tile.position + (token < 0 ? tile.count - 1 : token);
    }
}

__device__ __forceinline__ Seen see_pages(int window, const Rows &kept) {
    const int thread = thread_again(), row = thread / 32 * 16 + thread % 32 / 4;
    const int last[2] = {kept.last[row], kept.last[row + 8]};
    const int lowest = __reduce_min_sync(ALL_LANES, min(last[0], last[1])), highest = __reduce_max_sync(ALL_LANES, max(last[0], last[1]));
    const int first = first_seen(lowest, window), all_first = first_seen(highest, window);
    return Seen{first / PAGE, highest / PAGE, (all_first + PAGE - 1) / PAGE, (lowest + 1) / PAGE};
}

__device__ __forceinline__ void begin_rows(float4 (&total)[TILES][32], Rows &kept, RowState (&rows)[2], float (&out)[TILES][4]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
        rows[r].reference = kept.whole_reference[first_row() + r * 8] = -LARGEST;
        rows[r].sum = kept.whole_sum[first_row() + r * 8] = 0.0f;
    }
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int i = 0; i < 4; i++) out[t][i] = 0.0f;
        total[t][threadIdx.x % 32] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }
}

// Pages that are tried in the shortest way; scores of pages before lie apart.
struct Plain {
    int from, end;
};

__device__ __forceinline__ Plain begin_plain(int window, const Rows &kept) {
    const Seen seen = see_pages(window, kept);
    return Plain{ALIBI || SOFT_CAP ? seen.whole_end : seen.whole_from, seen.whole_end};
}

// The weights of a page in the shortest way that gives those of the rules.
__device__ __forceinline__ void weigh_page(u32 thread, const AttentionArgs &args, Shared &shared, u32 stage, const int (&scores)[8][4],
                                           RowState (&rows)[2], int page, Plain &plain, const float (&slopes)[2], u32 (&weights)[2][4],
                                           PageJoin (&joins)[2]) {
    const PageScales scales{shared.key_scales[stage], shared.value_scales[stage]};
    const Rows &kept = shared.rows;
    const bool tried = page >= plain.from && page < plain.end;
    if (tried && weigh_plain_page<false>(thread, args, scales, kept, LIFTED, scores, rows, weights, joins)) return;
    // Others will lie apart too.
    if (tried) plain.from = (page | (8 * SPAN_PAGES - 1)) + 1;
    const Seen seen = see_pages(args.window, kept);
    if (page < seen.from || page > seen.to) {
        weigh_nothing(weights, joins);
        return;
    }
    const bool whole = page >= seen.whole_from && page < seen.whole_end;
    const u8 *queries = shared.queries[threadIdx.x / 128], *keys = shared.keys[stage];
    // A page that was tried goes by the rules: one in eight spans, and what it would need stays out of registers.
    if (!ALIBI && !SOFT_CAP && !tried && weigh_wide(thread, args, scales, kept, queries, keys, rows, page, whole, weights, joins)) return;
    weigh_by_rules(args, scales, kept, queries, keys, rows, page, whole, slopes, weights, joins);
}

// Where pages lie in the ring.
struct Ring {
    u32 stage, round;
};

__device__ __forceinline__ void attend_part(const AttentionArgs &args, Shared &shared, const Part &part, Ring &ring) {
    const int warp = __shfl_sync(ALL_LANES, threadIdx.x / 32, 0), lane = threadIdx.x % 32, group = warp / 4;
    Rows &kept = shared.rows;
    RowState rows[2];
    float out[TILES][4];
    // Known to be the same in all lanes.
    const int first_page = __reduce_max_sync(ALL_LANES, part.first_page), last_page = __reduce_max_sync(ALL_LANES, part.last_page);
    const int ends = part.is_passed() ? -1 : last_page;
    const Tile tile = part.tile();
    place_rows(tile, kept);
    float slopes[2] = {0.0f, 0.0f};
#if ALIBI
#pragma unroll
    for (int r = 0; r < 2; r++) slopes[r] = args.slopes[tile.kv_head * GROUP + (first_row() + r * 8) % GROUP];
#endif
    group_sync();  // nobody multiplies the queries before
    prepare_queries(args, shared.queries[group], tile, kept);
    if (part.is_given()) {
        take_rows(args, shared.total[warp], kept, rows, out);
    } else {
        begin_rows(shared.total[warp], kept, rows, out);
    }
    Plain plain = begin_plain(args.window, kept);
    const u64 queries = rows_of_128(shared.queries[group]);
    const u64 all_keys = rows_of_128(shared.keys[0]), all_values = rows_of_64(shared.values[0]);
    const u64 lift = same_rows(shared.lift[0]);
    u32 stage = ring.stage, round = ring.round;
    u32 thread = thread_again();
    int scores[8][4];
    products_begin();
    begin_scores(scores, lift, queries, all_keys + stage * (PAGE * ROW / 16));
#pragma unroll 1
    for (int page = first_page; page <= last_page; page++) {
        const u32 at = stage * (PAGE * ROW / 16), done = stage;
        u32 weights[2][4];
        PageJoin joins[2];
        asm volatile("" : "+r"(thread));  // one register instead of all that follows from it
        products_wait<0>();
        weigh_page(thread, args, shared, stage, scores, rows, page, plain, slopes, weights, joins);
        // Half of the values' sums take the place of the page's scores, and the next page's scores theirs in turn: the second half is ready
        // when the first has joined, and scores are when the second has.
        int sums[8][4];
        products_begin();
        begin_values(scores, weights, all_values + at);
        begin_values(sums, weights, all_values + at + ROW / 2 * PAGE / 16);
        if (++stage == STAGES) stage = 0, round++;
        if (page < last_page) barrier_wait(shared.full[stage], round);
        // A span begins with outputs of zero.
        if ((page & (SPAN_PAGES - 1)) != 0) bring_to_reference(joins, out);
        products_wait<1>();
        add_values<0>(scores, joins, out);
        // Behind the last page its own scores again, which nobody reads; other keys may come to their place meanwhile.
        products_begin();
        begin_scores(scores, lift, queries, all_keys + (page < last_page ? stage : done) * (PAGE * ROW / 16));
        products_wait<1>();
        if (lane == 0) barrier_arrive(shared.empty[done]);
        add_values<TILES / 2>(sums, joins, out);
        if ((page & (SPAN_PAGES - 1)) == SPAN_PAGES - 1 || page == ends) join_span(shared.total[warp], kept, rows, out);
    }
    products_wait<0>();
    ring = Ring{stage, round};
    if (part.is_passed()) {
        pass_rows(args, shared.total[warp], kept, rows, out);
    } else {
        write_rows(args, part.tile(), shared.total[warp], kept);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_prompt_sm90(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    if (threadIdx.x < STAGES) {
        barrier_init(shared.full[threadIdx.x], 1);
        barrier_init(shared.empty[threadIdx.x], WARPS);
    }
    if (threadIdx.x >= WARPS * 32 && threadIdx.x < WARPS * 32 + 32) {
        Cut cuts[2];
        find_cuts(args, cuts);
        if (threadIdx.x % 32 < 2) shared.cuts[threadIdx.x % 32] = threadIdx.x % 32 ? cuts[1] : cuts[0];
    }
    write_lifts(shared);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
    if (threadIdx.x >= WARPS * 32) {
        registers_give<32>();
        bring_parts(args, shared);
        return;
    }
    registers_take<REGISTERS>();
    Ring ring{0, 0};
    for (int turn = 0; turn < count_parts(shared.cuts); turn++) {
        barrier_wait(shared.full[ring.stage], ring.round);
        attend_part(args, shared, shared.parts[turn % PARTS], ring);
    }
}
