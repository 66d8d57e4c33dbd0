// Attention of single tokens over an INT8 cache, on cards with bulk copies: CTAs stay and take spans of 512 positions of a token's
// key/value head, or all of its spans, one after the other; the heads of a group share what is read.
//
// A warp brings pages to shared memory ahead of teams that attend, a warp a page of a span (see page_ring.cuh). Both products run in
// the matrix units, keys and values in the place of the large operand; k is permuted, for both operands alike. A warp joins the pages of
// some elements of a head. Of an item of all spans it joins them as they come; else it leaves reference, sum and output of the span, and that
// which leaves the token's last one joins the spans.
#include "token_codes.cuh"

constexpr int PIECES = (HEAD_DIM + 31) / 32;                          // of a head
constexpr int PARTS = WARPS / HEADS < PIECES ? WARPS / HEADS : PIECES;  // of a head, a warp each
constexpr int ELEMENTS = (PIECES + PARTS - 1) / PARTS;                // of a lane
constexpr int JOINED_SPANS = ELEMENTS > 2 ? 4 : 8;                    // at once
constexpr int FEW_SPANS = 4;                                          // short tokens go through fewer instructions

// Elements of a head that a warp looks after.
struct Part {
    int head, part;

    __device__ __forceinline__ int element(int e) const {
        return (e * PARTS + part) * 32 + this_thread() % 32;
    }
};

__device__ __forceinline__ Part part_of_warp() {
    return Part{warp_of_team() / PARTS, warp_of_team() % PARTS};
}

// Sum of weighted values so far, relative to its reference.
struct Joined {
    float reference, sum, out[ELEMENTS];
};

// Reference, sum and scale of something that joins, in the lane of its number.
struct Joining {
    float reference, sum, scale;
};

// Joins the first `count` of COUNT parts in order; `load` gives an element of a part.
template <int COUNT, typename Load>
__device__ __forceinline__ void join(Joined &joined, Joining mine, int count, const Load &load) {
    const int lane = this_thread() % 32;
    float v[COUNT][ELEMENTS];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) v[i][e] = load(i, e);
    }
    float reference = larger(joined.reference, lane < count ? mine.reference : -LARGEST);
#pragma unroll
    for (int step = 1; step < COUNT; step *= 2) {
        const float other = __shfl_up_sync(ALL_LANES, reference, step);
        if (lane >= step) reference = larger(other, reference);
    }
    float previous = __shfl_up_sync(ALL_LANES, reference, 1);
    if (lane == 0) previous = joined.reference;
    const float before = power_of_two(previous - reference), added = power_of_two(mine.reference - reference), factor = mine.scale * added;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        // Not a branch: what comes of all parts is on its way at once.
        const bool is_there = i < count;
        const float my_before = __shfl_sync(ALL_LANES, before, i), my_factor = __shfl_sync(ALL_LANES, factor, i);
        const float sum = __fmaf_rn(__shfl_sync(ALL_LANES, mine.sum, i), __shfl_sync(ALL_LANES, added, i), joined.sum * my_before);
        joined.sum = is_there ? sum : joined.sum;
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) {
            const float out = __fmaf_rn(v[i][e], my_factor, joined.out[e] * my_before);
            joined.out[e] = is_there ? out : joined.out[e];
        }
    }
    joined.reference = __shfl_sync(ALL_LANES, reference, count - 1);
}

__device__ __forceinline__ Joined nothing() {
    Joined joined{-LARGEST, 0.0f, {}};
    return joined;
}

__device__ __forceinline__ Joined join_pages(const Team &team, int pages, const Part &part) {
    const int lane = min((int)this_thread() % 32, pages - 1);
    const Joining page{team.reference[lane][part.head], team.sum[lane][part.head], team.scale[lane][part.head]};
    Joined span = nothing();
    // What lies behind the head is shared memory still, and is written nowhere.
    join<SPAN_PAGES>(span, page, pages, [&](int i, int e) { return team.out[i][part.head][min(part.element(e), ROW - 1)]; });
    return span;
}

__device__ __forceinline__ void write_out(const AttentionArgs &args, const Item &item, const Part &part, const Joined &joined) {
    const Whole whole = with_sink(args, item.first_head + part.head, joined.reference, joined.sum);
    const float inverse = __fdiv_rn(1.0f, whole.sum);
    const size_t row = ((size_t)item.token * (args.kv_heads * GROUP) + item.first_head + part.head) * HEAD_DIM;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        if (part.element(e) >= HEAD_DIM) continue;
        const float out = joined.out[e] * whole.before * inverse + 0.0f;
#if CODES
        store_word(args.rows + row + part.element(e), left_word(out));
#else
        args.out[row + part.element(e)] = out;
#endif
    }
}

// Reference and sum of a span, for each part of a head.
__device__ __forceinline__ u64 *left_state(const AttentionArgs &args, size_t row, const Part &part) {
    return (u64 *)args.partial_state + row * PARTS + part.part;
}

__device__ __forceinline__ void store_state(u64 *to, float reference, float sum) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(to), "l"((u64)left_word(reference) << 32 | left_word(sum)) : "memory");
}

__device__ __forceinline__ u64 load_state(const u64 *from) {
    u64 v;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(v) : "l"(from) : "memory");
    return v;
}

// `count` spans of a token, from row `first` of those left; COUNT at most. All of them are on their way.
template <int COUNT>
__device__ __forceinline__ void join_some(const AttentionArgs &args, Joined &whole, size_t first, int count, const Part &part) {
    const u32 heads = args.kv_heads * GROUP;
    const int lane = this_thread() % 32;
    u64 *state = left_state(args, first + (size_t)min(lane, count - 1) * heads, part);
    u32 *left = (u32 *)args.partial + first * HEAD_DIM + part.element(0);
    const auto is_mine = [&](int i, int e) { return i < count && part.element(e) < HEAD_DIM; };
    u32 words[COUNT][ELEMENTS];
    u64 found;
    bool is_there;
    do {
        found = load_state(state);
        is_there = found != 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
#pragma unroll
            for (int e = 0; e < ELEMENTS; e++) {
                words[i][e] = is_mine(i, e) ? load_word(left + (size_t)i * heads * HEAD_DIM + e * PARTS * 32) : 1;
            }
        }
#pragma unroll
        for (int i = 0; i < COUNT * ELEMENTS; i++) is_there = is_there && words[i / ELEMENTS][i % ELEMENTS] != 0;
    } while (!__all_sync(ALL_LANES, is_there));
    join<COUNT>(whole, Joining{left_float(found >> 32), left_float((u32)found), 1.0f}, count, [&](int i, int e) { return left_float(words[i][e]); });
    if (lane < count) *state = 0;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) {
            if (is_mine(i, e)) left[(size_t)i * heads * HEAD_DIM + e * PARTS * 32] = 0;
        }
    }
}

// All spans of a token that it sees, in order.
__device__ __forceinline__ Joined join_spans(const AttentionArgs &args, const Item &item, const Part &part) {
    const u32 heads = args.kv_heads * GROUP;
    const size_t first = (size_t)item.first_slot * heads + item.first_head + part.head;
    Joined whole = nothing();
    if (item.spans <= FEW_SPANS) {
        join_some<FEW_SPANS>(args, whole, first, item.spans, part);
        return whole;
    }
#pragma unroll 1
    for (int span = 0; span < item.spans; span += JOINED_SPANS)
        join_some<JOINED_SPANS>(args, whole, first + (size_t)span * heads, min((int)item.spans - span, JOINED_SPANS), part);
    return whole;
}

// Leaves a part of the span for whoever comes last; true for that warp.
__device__ __forceinline__ bool leave_span(const AttentionArgs &args, const Item &item, const Part &part, const Joined &span) {
    const u32 heads = args.kv_heads * GROUP, head = item.first_head + part.head, lane = this_thread() % 32;
    const size_t row = (size_t)item.slot * heads + head;
    if (lane == 0) store_state(left_state(args, row, part), span.reference, span.sum);
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        if (part.element(e) < HEAD_DIM) store_word((u32 *)args.partial + row * HEAD_DIM + part.element(e), left_word(span.out[e]));
    }
    __syncwarp();
    u32 arrival = 0;
    if (lane == 0) {
        u32 *arrived = args.arrived + ((size_t)item.first_slot * heads + head) * PARTS + part.part;
        asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(arrival) : "l"(arrived) : "memory");
        if (arrival == item.spans - 1) *arrived = 0;
    }
    return __shfl_sync(ALL_LANES, arrival, 0) == item.spans - 1;
}

// One span more.
__device__ __forceinline__ void join_span(Joined &whole, const Joined &span) {
    const Join join = join_of(whole.reference, span.reference);
    whole.reference = join.reference;
    whole.sum = __fmaf_rn(span.sum, join.added, whole.sum * join.before);
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) whole.out[e] = __fmaf_rn(span.out[e], join.added, whole.out[e] * join.before);
}

// True where the token's part is complete.
__device__ __forceinline__ bool finish_item(const AttentionArgs &args, const Item item, const Part &part, Joined joined) {
    if (item.spans > 1) {
        if (!leave_span(args, item, part, joined)) return false;
        joined = join_spans(args, item, part);
    }
    write_out(args, item, part, joined);
    return true;
}

// Pages of the span that begins at page number `first` of an item.
__device__ __forceinline__ int pages_of_span(const Item &item, int first) {
    if (!WHOLE) return item.pages;
    return min(item.pages - first, SPAN_PAGES - (item.first_page + first) % SPAN_PAGES);
}

// Item number `count`, once it is told: it stays where it lies until its team has finished it.
__device__ __forceinline__ const Item &told_item(Shared &shared, u32 count) {
    barrier_wait(shared.told[count % ITEMS], count / ITEMS);
    return shared.items[count % ITEMS];
}

// What the warps of a team do. An item's query is on its way while the one before is finished.
__device__ __forceinline__ void attend_items(const AttentionArgs &args, Shared &shared) {
    const u32 number = this_thread() / 32 / WARPS;
    Team &team = shared.teams[number];
    Query query;
#if JOINED
    load_angles(args, told_item(shared, number), query);
#endif
    wait_for_producers();
    load_query(args, told_item(shared, number), true, query);
#if CODES
    u32 before = NONE;
#endif
#pragma unroll 1
    for (u32 count = number;; count += TEAMS) {
        u32 place = count % ITEMS;
        // Addresses of the item are not kept in registers that pages need.
        asm volatile("" : "+r"(place));
        const Item &item = shared.items[place];
        if (item.pages == 0) break;
        place_query(args, team, item, query);
        Joined joined = nothing();
#pragma unroll 1
        for (int first = 0; first < item.pages; first += pages_of_span(item, first)) {
            team_sync();
            attend_page(args, shared, team, item, first, pages_of_span(item, first));
#if CODES
            // What was told with the item before is known by now.
            if (first == 0) note_complete(args, team, before, args.kv_heads * (GROUP * PARTS));
            team_sync();
            if (first == 0 && team.complete > 0) quantize_token(args, team, team.complete - 1);
            before = NONE;
#else
            team_sync();
#endif
            const int pages = pages_of_span(item, first);
            const bool is_last = !WHOLE || first + pages == item.pages;
            u32 next = count + TEAMS;
            asm volatile("" : "+r"(next));
            if (is_last) told_item(shared, next);
            // Not under that condition, which would keep registers for it while pages are attended.
            load_query(args, shared.items[next % ITEMS], is_last, query);
            const Part part = part_of_warp();
            if (!WHOLE) {
                if (part.head < item.heads) joined = join_pages(team, pages, part);
                break;
            }
            if (part.head >= item.heads) continue;
            // Not in registers while pages are attended.
            float2 &state = team.joined[warp_of_team()];
            joined.reference = first > 0 ? state.x : -LARGEST;
            joined.sum = first > 0 ? state.y : 0.0f;
            const Joined span = join_pages(team, pages, part);
            if (pages == item.pages)
                joined = span;
            else
                join_span(joined, span);
            state = make_float2(joined.reference, joined.sum);
        }
#if JOINED
        load_angles(args, shared.items[(count + TEAMS) % ITEMS], query);
#endif
        const Part part = part_of_warp();
#if CODES
        if (part.head < item.heads && finish_item(args, item, part, joined)) before = tell_finished(args, team, item);
#else
        if (part.head < item.heads) finish_item(args, item, part, joined);
#endif
    }
#if CODES
    // A warp without a part of the token may still look for the one before.
    team_sync();
    note_complete(args, team, before, args.kv_heads * (GROUP * PARTS));
    team_sync();
    if (team.complete > 0) quantize_token(args, team, team.complete - 1);
#endif
}

// Of 96 registers of a thread, the warps that bring pages have use for 64.
template <bool ATTENDS>
__device__ __forceinline__ void hand_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    if (TEAMS == 1) return;
    if (ATTENDS)
        asm volatile("setmaxnreg.inc.sync.aligned.u32 104;");
    else
        asm volatile("setmaxnreg.dec.sync.aligned.u32 64;");
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_ring(const AttentionArgs args) {
    let_dependents_start();
    Shared &shared = *(Shared *)shared_bytes;
    begin_ring(shared);
#if CODES
    if (this_thread() / 32 >= TEAMS * WARPS) {
        hand_registers<false>();
        if (this_thread() / 32 == TEAMS * WARPS) bring_items(args, shared);
    } else {
        hand_registers<true>();
        attend_items(args, shared);
    }
#else
    if (this_thread() / 32 == TEAMS * WARPS)
        bring_items(args, shared);
    else
        attend_items(args, shared);
#endif
}
