// Attention of single tokens: a CTA takes a span of 512 positions of a token's key/value head, its warps take turns with the pages; the
// heads of a group share what is read. (Over an INT8 cache and from Hopper on, attention_ring.cu takes single tokens.)
//
// Split tokens have their spans attended by different CTAs: each leaves reference, sum and output, and the one that arrives last joins
// them in order. With WALK a CTA takes all spans of a token one after the other.
//
// Over an INT8 cache both products run in the matrix units, keys and values in the place of the large operand, straight from memory to
// registers: lanes take 16 bytes of a row, so k is permuted, for both operands alike.
#include "attention_pages.cuh"

// Reference and sum of what has joined so far, of the head that a lane of the first warp looks after.
struct State {
    float reference, sum;
};

// How the pages of a span join, and the span what came before it: a lane each head.
__device__ __forceinline__ State join_pages(Shared &shared, int first_page, int last_page, State &whole) {
    const int head = threadIdx.x;
    State span{-LARGEST, 0.0f};
    for (int p = first_page; p <= last_page; p++) {
        const Join join = join_of(span.reference, shared.reference[p][head]);
        span.sum = __fmaf_rn(shared.sum[p][head], join.added, span.sum * join.before);
        span.reference = join.reference;
        shared.before[p][head] = join.before;
        shared.factor[p][head] = shared.scale[p][head] * join.added;
    }
    const Join join = join_of(whole.reference, span.reference);
    whole.sum = __fmaf_rn(span.sum, join.added, whole.sum * join.before);
    whole.reference = join.reference;
    shared.whole_before[head] = join.before;
    shared.whole_added[head] = join.added;
    shared.whole_sum[head] = whole.sum;
    return span;
}

__device__ __forceinline__ float joined_element(const Shared &shared, int first_page, int last_page, int head, int d) {
    float out = 0.0f;
#pragma unroll
    for (int p = 0; p < SPAN_PAGES; p++) {
        if (p >= first_page && p <= last_page) out = __fmaf_rn(shared.out[p][head][d], shared.factor[p][head], out * shared.before[p][head]);
    }
    return out;
}

__device__ __forceinline__ void write_out(const AttentionArgs &args, const Item &item, int head, int d, float total, float sum) {
    float *row = args.out + (size_t)item.token * (args.kv_heads * GROUP * HEAD_DIM);
    row[(item.first_head + head) * HEAD_DIM + d] = total * __fdiv_rn(1.0f, sum) + 0.0f;
}

// The spans of each head meet its sink; what outputs are multiplied by then is in the place of the last span's factor.
__device__ __forceinline__ void join_sinks(const AttentionArgs &args, Shared &shared, const Item &item, const State &state) {
#if SINKS
    __syncthreads();
    if (threadIdx.x < item.heads) {
        const Whole whole = with_sink(args, item.first_head + threadIdx.x, state.reference, state.sum);
        shared.whole_added[threadIdx.x] = whole.before;
        shared.whole_sum[threadIdx.x] = whole.sum;
    }
    __syncthreads();
#endif
}

__device__ __forceinline__ void place_head(const AttentionArgs &args, Item &item, u32 tile) {
    item.tile = tile;
    item.kv_head = tile / HEAD_TILES;
    item.first_head = item.kv_head * GROUP + tile % HEAD_TILES * HEADS;
    item.heads = min(HEADS, GROUP - (int)(tile % HEAD_TILES) * HEADS);
    item.first = first_seen(item.position, args.window);
}

// One span; `first_page` and `last_page` become those that the token sees, counted from the span's first one.
__device__ __forceinline__ State attend_span(const AttentionArgs &args, Shared &shared, const Item &item, int span, bool new_queries, State &whole,
                                             int &first_page, int &last_page) {
    first_page = max(item.first / PAGE - span * SPAN_PAGES, 0);
    last_page = min(item.position / PAGE - span * SPAN_PAGES, SPAN_PAGES - 1);
    attend_pages(args, shared, item, span * SPAN_PAGES + first_page, span * SPAN_PAGES + last_page, new_queries);
    __syncthreads();
    State state{-LARGEST, 0.0f};
    if (threadIdx.x < item.heads) state = join_pages(shared, first_page, last_page, whole);
    __syncthreads();
    return state;
}

#if WALK

__device__ __forceinline__ void attend_item(const AttentionArgs &args, Shared &shared, const Item &item) {
    State whole{-LARGEST, 0.0f};
    float total[ELEMENTS];
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) total[i] = 0.0f;
    const int first_span = item.first / SPAN;
#pragma unroll 1
    for (int span = first_span; span <= item.position / SPAN; span++) {
        int first_page, last_page;
        attend_span(args, shared, item, span, span == first_span, whole, first_page, last_page);
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++) {
            const int at = i * THREADS + threadIdx.x, head = at / HEAD_DIM;
            if (head >= item.heads) break;
            const float out = joined_element(shared, first_page, last_page, head, at % HEAD_DIM);
            total[i] = __fmaf_rn(out, shared.whole_added[head], total[i] * shared.whole_before[head]);
        }
    }
    join_sinks(args, shared, item, whole);
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) {
        const int at = i * THREADS + threadIdx.x, head = at / HEAD_DIM;
        if (head >= item.heads) break;
        if (SINKS) total[i] *= shared.whole_added[head];
        write_out(args, item, head, at % HEAD_DIM, total[i], shared.whole_sum[head]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_CTAS) attention_spans(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const StepHead step = step_head(args.step);
    const u32 tiles = args.kv_heads * HEAD_TILES;
    // The longest contexts first.
    for (u32 at = blockIdx.x; at < step.run_tokens * tiles; at += gridDim.x) {
        const u32 which = step.run_tokens - 1 - at / tiles;
        u32 low = 0, high = step.runs;  // of runs that begin at or before it, the last
        while (high - low > 1) {
            const u32 middle = (low + high) / 2;
            (run_of(args.step, step.first_run, middle).tokens_before <= which ? low : high) = middle;
        }
        const Run run = run_of(args.step, step.first_run, low);
        Item item;
        item.token = run.token + (which - run.tokens_before);
        item.position = run.position + (which - run.tokens_before);
        item.pages = args.step + run.table;
        place_head(args, item, at % tiles);
        attend_item(args, shared, item);
    }
}

#else

// All spans of a token that other CTAs have left, in order.
__device__ __forceinline__ void join_spans(const AttentionArgs &args, const Item &item) {
    const size_t heads = args.kv_heads * GROUP;
#pragma unroll 1
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        State whole{-LARGEST, 0.0f};
        float total = 0.0f;
#pragma unroll 4
        for (int span = item.first / SPAN; span <= item.position / SPAN; span++) {
            const size_t slot = (item.spans_before + span) * heads + item.first_head + head;
            const float2 state = __ldcg((const float2 *)args.partial_state + slot);
            const float out = __ldcg(args.partial + slot * HEAD_DIM + d);
            const Join join = join_of(whole.reference, state.x);
            whole.sum = __fmaf_rn(state.y, join.added, whole.sum * join.before);
            whole.reference = join.reference;
            total = __fmaf_rn(out, join.added, total * join.before);
        }
        const Whole joined = with_sink(args, item.first_head + head, whole.reference, whole.sum);
        write_out(args, item, head, d, total * joined.before, joined.sum);
        // Apart from the loads above, which are not to wait for it.
#pragma unroll 1
        for (int span = item.first / SPAN; span <= item.position / SPAN; span++) {
            args.partial[((item.spans_before + span) * heads + item.first_head + head) * HEAD_DIM + d] = 0.0f;
        }
    }
}

__device__ __forceinline__ void leave_span(const AttentionArgs &args, Shared &shared, const Item &item, int span, State state, int first_page, int last_page) {
    const size_t slot = (size_t)(item.spans_before + span) * (args.kv_heads * GROUP) + item.first_head;
    if (threadIdx.x < item.heads) ((float2 *)args.partial_state)[slot + threadIdx.x] = make_float2(state.reference, state.sum);
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        args.partial[(slot + head) * HEAD_DIM + d] = joined_element(shared, first_page, last_page, head, d);
    }
    __threadfence();
    __syncthreads();
    u32 *arrived = args.arrived + item.entry * args.kv_heads * HEAD_TILES + item.tile;
    if (threadIdx.x == 0) shared.arrival = atomicAdd(arrived, 1u);
    __syncthreads();
    if (shared.arrival != item.position / SPAN - item.first / SPAN) return;
    __threadfence();
    if (threadIdx.x == 0) *arrived = 0;
    join_spans(args, item);
}

__device__ __forceinline__ void attend_item(const AttentionArgs &args, Shared &shared, const Item &item, int span) {
    State whole{-LARGEST, 0.0f};
    int first_page, last_page;
    const State state = attend_span(args, shared, item, span, true, whole, first_page, last_page);
    if (item.first / SPAN != item.position / SPAN) {
        leave_span(args, shared, item, span, state, first_page, last_page);
        return;
    }
    // The factor of the only span is 1, so that a sink's can take its place.
    join_sinks(args, shared, item, whole);
    for (int at = threadIdx.x; at < item.heads * HEAD_DIM; at += THREADS) {
        const int head = at / HEAD_DIM, d = at % HEAD_DIM;
        const float out = joined_element(shared, first_page, last_page, head, d);
        write_out(args, item, head, d, __fmaf_rn(out, shared.whole_added[head], 0.0f * shared.whole_before[head]), shared.whole_sum[head]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_CTAS) attention_spans(const AttentionArgs args) {
    let_dependents_start();
    wait_for_producers();
    Shared &shared = *(Shared *)shared_bytes;
    const StepHead step = step_head(args.step);
    const u32 tiles = args.kv_heads * HEAD_TILES;
    u32 low = 0;
    for (u32 at = blockIdx.x; at < step.spans * tiles; at += gridDim.x) {
        u32 high = step.splits;
        while (high - low > 1) {
            const u32 middle = (low + high) / 2;
            (split_token(args.step, step.first_split, middle).spans_before * tiles <= at ? low : high) = middle;
        }
        const SplitToken split = split_token(args.step, step.first_split, low);
        Item item;
        item.token = split.token;
        item.position = split.position;
        item.pages = args.step + split.table;
        item.entry = low;
        item.spans_before = split.spans_before;
        const u32 spans = split.position / SPAN + 1, inside = at - split.spans_before * tiles;
        place_head(args, item, inside / spans);
        const int span = inside % spans;
        if (span >= item.first / SPAN) attend_item(args, shared, item, span);
    }
}

#endif
