// Attention of single tokens over an INT8 cache, on cards with bulk copies: CTAs stay and take spans of 512 positions of a token's
// key/value head, one after the other; the heads of a group share what is read.
//
// A warp brings pages to shared memory ahead of teams that attend, a warp a page of the span (see page_ring.cuh). Both products run in
// the matrix units, keys and values in the place of the large operand; k is permuted, for both operands alike. A warp joins the pages of
// some elements of a head and leaves reference, sum and output of the span; that which leaves the token's last one joins the spans.
#include "ring_page.cuh"

constexpr int PIECES = (HEAD_DIM + 31) / 32;                          // of a head
constexpr int PARTS = WARPS / HEADS < PIECES ? WARPS / HEADS : PIECES;  // of a head, a warp each
constexpr int ELEMENTS = (PIECES + PARTS - 1) / PARTS;                // of a lane
constexpr int JOINED_SPANS = HEAD_DIM % 32 == 0 && ELEMENTS <= 2 ? 16 : 8;  // at once

__device__ __forceinline__ void team_sync() {
    asm volatile("bar.sync %0, %1;" ::"r"(threadIdx.x / 32 / WARPS + 1), "n"(WARPS * 32) : "memory");
}

// Elements of a head that a warp looks after.
struct Part {
    int head, part;

    __device__ __forceinline__ int element(int e) const {
        return (e * PARTS + part) * 32 + threadIdx.x % 32;
    }
};

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
    const int lane = threadIdx.x % 32;
    float v[COUNT][ELEMENTS];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) v[i][e] = i < count ? load(i, e) : 0.0f;
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
        if (i >= count) break;
        const float my_before = __shfl_sync(ALL_LANES, before, i), my_factor = __shfl_sync(ALL_LANES, factor, i);
        joined.sum = __fmaf_rn(__shfl_sync(ALL_LANES, mine.sum, i), __shfl_sync(ALL_LANES, added, i), joined.sum * my_before);
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++) joined.out[e] = __fmaf_rn(v[i][e], my_factor, joined.out[e] * my_before);
    }
    joined.reference = __shfl_sync(ALL_LANES, reference, count - 1);
}

__device__ __forceinline__ Joined nothing() {
    Joined joined{-LARGEST, 0.0f, {}};
    return joined;
}

__device__ __forceinline__ void write_out(const AttentionArgs &args, const Item &item, const Part &part, const Joined &joined) {
    const float inverse = __fdiv_rn(1.0f, joined.sum);
    float *row = args.out + ((size_t)item.token * (args.kv_heads * GROUP) + item.first_head + part.head) * HEAD_DIM;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        if (part.element(e) < HEAD_DIM) row[part.element(e)] = joined.out[e] * inverse + 0.0f;
    }
}

__device__ __forceinline__ Joined join_pages(const Team &team, const Item &item, const Part &part) {
    const int lane = min((int)threadIdx.x % 32, item.pages - 1);
    const Joining page{team.reference[lane][part.head], team.sum[lane][part.head], team.scale[lane][part.head]};
    Joined span = nothing();
    // What lies behind the head is shared memory still, and is written nowhere.
    join<SPAN_PAGES>(span, page, item.pages, [&](int i, int e) { return team.out[i][part.head][min(part.element(e), ROW - 1)]; });
    return span;
}

// All spans of a token that it sees, in order.
__device__ __forceinline__ Joined join_spans(const AttentionArgs &args, const Item &item, const Part &part) {
    const u32 heads = args.kv_heads * GROUP;
    const size_t first = (size_t)item.first_slot * heads + item.first_head + part.head;
    Joined whole = nothing();
#pragma unroll 1
    for (int span = 0; span < item.spans; span += JOINED_SPANS) {
        const int count = min((int)item.spans - span, JOINED_SPANS);
        const float2 state = __ldcg((const float2 *)args.partial_state + first + (size_t)(span + min((int)threadIdx.x % 32, count - 1)) * heads);
        join<JOINED_SPANS>(whole, Joining{state.x, state.y, 1.0f}, count, [&](int i, int e) {
            return part.element(e) < HEAD_DIM ? __ldcg(args.partial + (first + (size_t)(span + i) * heads) * HEAD_DIM + part.element(e)) : 0.0f;
        });
    }
    return whole;
}

// Leaves a part of the span for whoever comes last; true for that warp.
__device__ __forceinline__ bool leave_span(const AttentionArgs &args, const Item &item, const Part &part, const Joined &span) {
    const u32 heads = args.kv_heads * GROUP, head = item.first_head + part.head, lane = threadIdx.x % 32;
    const size_t slot = (size_t)item.slot * heads + head;
    // All parts of a head write the same state.
    if (lane == 0) ((float2 *)args.partial_state)[slot] = make_float2(span.reference, span.sum);
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        if (part.element(e) < HEAD_DIM) args.partial[slot * HEAD_DIM + part.element(e)] = span.out[e];
    }
    __syncwarp();
    u32 arrival = 0;
    if (lane == 0) {
        u32 *arrived = args.arrived + ((size_t)item.entry * heads + head) * PARTS + part.part;
        asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(arrival) : "l"(arrived) : "memory");
        if (arrival == item.spans - 1) *arrived = 0;
    }
    return __shfl_sync(ALL_LANES, arrival, 0) == item.spans - 1;
}

__device__ __forceinline__ void finish_span(const AttentionArgs &args, const Team &team, const Item &item) {
    const int warp = warp_of_team();
    const Part part{warp / PARTS, warp % PARTS};
    if (part.head >= item.heads) return;
    Joined joined = join_pages(team, item, part);
    if (item.spans > 1) {
        if (!leave_span(args, item, part, joined)) return;
        joined = join_spans(args, item, part);
    }
    write_out(args, item, part, joined);
}

__device__ __forceinline__ Item told_item(Shared &shared, u32 count) {
    barrier_wait(shared.told[count % ITEMS], count / ITEMS);
    return shared.items[count % ITEMS];
}

// What the warps of a team do.
__device__ __forceinline__ void attend_items(const AttentionArgs &args, Shared &shared) {
    const u32 number = threadIdx.x / 32 / WARPS;
    Team &team = shared.teams[number];
    wait_for_producers();
#pragma unroll 1
    for (u32 count = number;; count += TEAMS) {
        const Item item = told_item(shared, count);
        if (item.pages == 0) return;
        place_query(team, load_query(args, item));
        team_sync();
        attend_page(args, shared, team, item);
        team_sync();
        finish_span(args, team, item);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_ring(const AttentionArgs args) {
    let_dependents_start();
    Shared &shared = *(Shared *)shared_bytes;
    begin_ring(shared);
    if (threadIdx.x / 32 == TEAMS * WARPS)
        bring_items(args, shared);
    else
        attend_items(args, shared);
}
