// Pages on their way to a CTA: a ring of stages in shared memory, filled by bulk copies, and the items they belong to.
//
// One warp brings pages and runs ahead across items. Teams of WARPS others take items in turn, a warp a page: while one joins and
// leaves, another attends. A stage has a barrier that says it is full and one that says its warp is done with it. Items are dealt as CTAs
// come for them: which CTA takes which changes no result.
#pragma once
#include "attention.cuh"

#ifndef STAGES
#define STAGES 4
#endif
#ifndef TEAMS
#define TEAMS 2
#endif

constexpr int WARPS = SPAN_PAGES;  // of a team
constexpr int THREADS = (TEAMS * WARPS + 1) * 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int HEADS = GROUP < 8 ? GROUP : 8;  // of an item
constexpr int HEAD_TILES = (GROUP + HEADS - 1) / HEADS;
constexpr int COLUMNS = HEADS > 4 ? 2 : 1;   // heads that a lane looks after; few stand twice in an operand of eight columns
constexpr int LANE_HEADS = 4 * COLUMNS;
constexpr int CHUNKS = (ROW + 63) / 64;      // of an INT8 query
constexpr int QUERY_ROW = (CHUNKS | 1) * 64;  // bytes; 64 more than banks repeat
constexpr int WEIGHT_ROW = PAGE + 16;
constexpr int OUT_ROW = ROW + (COLUMNS == 1 ? 8 : 4);  // lanes write to banks of their own
// The producer tells of an item when it has sent the pages of those before it, and each waits for a stage that a team has left, in order:
// so it never overtakes a team by a whole round of items.
constexpr int ITEMS = STAGES + 2 * TEAMS;

// A warp may wait for a stage while another one waits for the page before it: by parity alone it would take the one for the other, so
// uses of a stage have two barriers in turn.
constexpr int FULLS = 2 * STAGES;
static_assert(FULLS >= TEAMS * SPAN_PAGES, "pages that warps wait for at once");

extern __shared__ __align__(128) u8 shared_bytes[];

struct Stage {
    u8 keys[PAGE * ROW], values[ROW * PAGE];
    float key_scales[PAGE], value_scales[PAGE];
};
constexpr u32 STAGE_BYTES = FORMAT == 2 ? sizeof(Stage) : 2 * PAGE * ROW;  // that arrive

// One span of a token's heads. No pages: nothing comes after it.
struct alignas(16) Item {
    int token, position, first;  // of positions seen
    int first_head, heads;
    int first_page, pages;  // of the span, as far as they are seen
    u32 slot;               // of the span among all
    u32 first_slot, spans;  // of the token, as far as they are seen
    u32 entry;
    u32 number;  // of the first page among those of the CTA
};

struct Team {
    float out[SPAN_PAGES][HEADS][OUT_ROW];  // of pages
    u8 weights[WARPS][LANE_HEADS][WEIGHT_ROW];
    u8 queries[LANE_HEADS][QUERY_ROW];
    float reference[SPAN_PAGES][LANE_HEADS], sum[SPAN_PAGES][LANE_HEADS], scale[SPAN_PAGES][LANE_HEADS];  // of pages
    float query_scale[8];
};

struct Shared {
    Stage stages[STAGES];
    Team teams[TEAMS];
    Item items[ITEMS];
    u64 told[ITEMS], full[FULLS], empty[STAGES];
};
#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host's count of shared memory");
#endif

__device__ __forceinline__ u32 shared_address(const void *p) {
    return (u32)__cvta_generic_to_shared(p);
}

__device__ __forceinline__ void barrier_init(u64 &barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void barrier_arrive(u64 &barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

__device__ __forceinline__ void barrier_expect(u64 &barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

// Until the barrier's use number `use`, counted from 0, is complete.
__device__ __forceinline__ void barrier_wait(u64 &barrier, u32 use) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra ready;\n"
        "bra again;\n"
        "ready:\n}" ::"r"(shared_address(&barrier)),
        "r"(use & 1)
        : "memory");
}

// Contiguous bytes to shared memory, counted by `barrier`. Sizes and addresses are multiples of 16.
__device__ __forceinline__ void copy_bulk(void *to, const void *from, u32 bytes, u64 &barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from),
                 "r"(bytes), "r"(shared_address(&barrier))
                 : "memory");
}

__device__ __forceinline__ void begin_ring(Shared &shared) {
    const int i = threadIdx.x;
    if (i < ITEMS) barrier_init(shared.told[i], 1);
    if (i < FULLS) barrier_init(shared.full[i], 1);
    if (i < STAGES) barrier_init(shared.empty[i], 1);
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
}

// Of split tokens, the last whose spans begin at or before `span` of all; all lanes search.
__device__ __forceinline__ SplitToken find_split(const AttentionArgs &args, const StepHead &step, u32 span, u32 &entry) {
    const u32 lane = threadIdx.x % 32;
    SplitToken mine;
    u32 size = step.splits, last;
    entry = 0;
    do {
        const u32 stride = (size + 31) / 32, at = min(lane * stride, size - 1);
        mine = split_token(args.step, step.first_split, entry + at);
        last = 31 - __clz(__ballot_sync(ALL_LANES, lane * stride < size && mine.spans_before <= span));
        entry += last * stride;
        size = min(stride, size - last * stride);
    } while (size > 1);
    return SplitToken{__shfl_sync(ALL_LANES, mine.token, last), __shfl_sync(ALL_LANES, mine.position, last), __shfl_sync(ALL_LANES, mine.table, last),
                      __shfl_sync(ALL_LANES, mine.spans_before, last)};
}

// The item of a ticket and, lane by lane, its pages; false where a window hides the span. Heads come one after the other, and lie side by
// side in a page: CTAs read what is adjacent at about the same time.
__device__ __forceinline__ bool find_item(const AttentionArgs &args, const StepHead &step, u32 tiles, u32 ticket, Item &item, u32 &page) {
    item.pages = 0;
    if (ticket >= step.spans * tiles) return true;
    const u32 tile = ticket % tiles;
    item.slot = ticket / tiles;
    const SplitToken split = find_split(args, step, item.slot, item.entry);
    const int span = item.slot - split.spans_before;
    item.token = split.token;
    item.position = split.position;
    item.first = first_seen(item.position, args.window);
    if (span < item.first / SPAN) return false;
    const int kv_head = tile / HEAD_TILES, first = tile % HEAD_TILES * HEADS;
    item.first_head = kv_head * GROUP + first;
    item.heads = min(HEADS, GROUP - first);
    item.first_page = max(item.first / PAGE, span * SPAN_PAGES);
    item.pages = min(item.position / PAGE, span * SPAN_PAGES + SPAN_PAGES - 1) - item.first_page + 1;
    item.first_slot = split.spans_before + item.first / SPAN;
    item.spans = item.position / SPAN - item.first / SPAN + 1;
    const int lane = threadIdx.x % 32;
    if (lane < item.pages) page = args.step[split.table + item.first_page + lane];
    return true;
}

// The pages of an item, as stages become free.
__device__ __forceinline__ void bring_pages(const AttentionArgs &args, Shared &shared, const Item &item, u32 page) {
    const u32 kv_head = item.first_head / GROUP;
#pragma unroll 1
    for (int p = 0; p < item.pages; p++) {
        const size_t place = (size_t)__shfl_sync(ALL_LANES, page, p) * args.kv_heads + kv_head;
        if (threadIdx.x % 32 == 0) {
            const u32 number = item.number + p, at = number % STAGES;
            Stage &stage = shared.stages[at];
            u64 &full = shared.full[number % FULLS];
            if (number >= STAGES) barrier_wait(shared.empty[at], number / STAGES - 1);
            barrier_expect(full, STAGE_BYTES);
            copy_bulk(stage.keys, args.keys + place * (PAGE * ROW), PAGE * ROW, full);
            copy_bulk(stage.values, args.values + place * (PAGE * ROW), PAGE * ROW, full);
            if (FORMAT == 2) {
                copy_bulk(stage.key_scales, args.key_scales + place * PAGE, 4 * PAGE, full);
                copy_bulk(stage.value_scales, args.value_scales + place * PAGE, 4 * PAGE, full);
            }
        }
        __syncwarp();
    }
}

// The next number of the launch, to lane 0. There are as many draws as items: a CTA's first ticket is its own number, its last one
// lies behind the items.
__device__ __forceinline__ u32 draw(const AttentionArgs &args) {
    return threadIdx.x % 32 == 0 ? atomicAdd(args.drawn, 1u) : 0;
}

// Its ticket, to all lanes; whoever has the last one leaves the counter for the next launch.
__device__ __forceinline__ u32 ticket_of(const AttentionArgs &args, u32 drawn, u32 items) {
    if (threadIdx.x % 32 == 0 && drawn == items - 1) *args.drawn = 0;
    return gridDim.x + __shfl_sync(ALL_LANES, drawn, 0);
}

__device__ __forceinline__ void tell(Shared &shared, const Item &item, u32 count) {
    if (threadIdx.x % 32 != 0) return;
    shared.items[count % ITEMS] = item;
    barrier_arrive(shared.told[count % ITEMS]);
}

// What the producing warp does.
__device__ __forceinline__ void bring_items(const AttentionArgs &args, Shared &shared) {
    const StepHead step = step_head(args.step);
    const u32 tiles = args.kv_heads * HEAD_TILES, items = step.spans * tiles;
    Item item;
    u32 page = 0, count = 0;
    bool seen = find_item(args, step, tiles, blockIdx.x, item, page);
    wait_for_producers();
    item.number = 0;
#pragma unroll 1
    while (true) {
#pragma unroll 1
        while (!seen) seen = find_item(args, step, tiles, ticket_of(args, draw(args), items), item, page);
        if (item.pages == 0) break;
        tell(shared, item, count++);
        const u32 drawn = draw(args);
        bring_pages(args, shared, item, page);
        item.number += item.pages;
        seen = find_item(args, step, tiles, ticket_of(args, drawn, items), item, page);
    }
    for (int team = 0; team < TEAMS; team++) tell(shared, item, count + team);
}
