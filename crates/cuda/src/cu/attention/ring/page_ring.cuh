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
#ifndef WHOLE
#define WHOLE 1  // 0: no piece of the step is a whole token
#endif
#ifndef JOINED
#define JOINED 0  // 1: every sequence has one token; its query and key are to be rotated, its key and value written
#endif
#ifndef CODES
#define CODES 0  // 1: a token's outputs become codes
#endif

constexpr int WARPS = SPAN_PAGES;  // of a team
// Codes take registers that two teams have not: they come from warps that do nothing, four of which hand them out.
constexpr int THREADS = CODES && TEAMS > 1 ? (TEAMS * WARPS + 4) * 32 : (TEAMS * WARPS + 1) * 32;
constexpr u32 ALL_LANES = 0xffffffffu;
constexpr int HEADS = GROUP < 8 ? GROUP : 8;  // of an item
constexpr int HEAD_TILES = (GROUP + HEADS - 1) / HEADS;
constexpr int COLUMNS = HEADS > 4 ? 2 : 1;   // heads that a lane looks after; few stand twice in an operand of eight columns
constexpr int LANE_HEADS = 4 * COLUMNS;
constexpr int CHUNKS = (ROW + 63) / 64;      // of an INT8 query
constexpr int QUERY_ROW = (CHUNKS | 1) * 64;  // bytes; 64 more than banks repeat
constexpr int WEIGHT_ROW = PAGE + 16;
constexpr int OUT_ROW = ROW + (COLUMNS == 1 ? 8 : 4);  // lanes write to banks of their own
constexpr int MOST_PAGES = 32;  // of an item
// The producer tells of an item before it sends the pages of the one before, and each of these waits for a stage that a team has left,
// in order: so it never overtakes a team by a whole round of items.
constexpr int ITEMS = STAGES + 2 * TEAMS + 1;

// A warp may wait for a page that is not sent yet, of an item that is told, while another one waits for a page before it: by parity alone
// it would take the one for the other where they shared a barrier, so pages that lie so far apart have barriers of their own.
constexpr int FULLS = STAGES + MOST_PAGES + SPAN_PAGES;

extern __shared__ __align__(128) u8 shared_bytes[];

struct Stage {
    u8 keys[PAGE * ROW], values[ROW * PAGE];
    float key_scales[PAGE], value_scales[PAGE];
};
constexpr u32 STAGE_BYTES = FORMAT == 2 ? sizeof(Stage) : 2 * PAGE * ROW;  // that arrive

// One span of a token's heads, or all spans. No pages: nothing comes after it.
struct alignas(16) Item {
    int token, position, first;  // of positions seen
    int first_head, heads;
    int first_page, pages;  // of the item, as far as they are seen
    u32 slot;               // of the span among all
    u32 first_slot, spans;  // of the token, as far as they are seen and other items have them
    int settled;            // pages before this one were written by earlier steps
    u32 number;             // of the first page among those of the CTA

    __device__ __forceinline__ bool has_newest() const {
        return first_page + pages == position / PAGE + 1;
    }
};

struct alignas(16) Team {
    float out[SPAN_PAGES][HEADS][OUT_ROW];  // of pages
    u8 weights[WARPS][LANE_HEADS][WEIGHT_ROW];
    u8 queries[LANE_HEADS][QUERY_ROW];
    float reference[SPAN_PAGES][LANE_HEADS], sum[SPAN_PAGES][LANE_HEADS], scale[SPAN_PAGES][LANE_HEADS];  // of pages
    float query_scale[8];
    float2 joined[WARPS];  // reference and sum of the item's spans so far
#if JOINED
    u8 newest[2][ROW];  // codes of the token's own key and value
    float newest_scale[2];
#endif
#if CODES
    u32 complete;        // number of a token whose outputs are all in rows, and 1
    u32 tokens[WARPS];   // of which warps have told last
    float row_max[WARPS];
    int row_sum[WARPS];
#endif
};

struct Shared {
    Stage stages[STAGES];
    Team teams[TEAMS];
    Item items[ITEMS];
    u64 told[ITEMS], full[FULLS], empty[STAGES];
#if JOINED
    u32 pages[STAGES];  // where a stage's page lies in the cache
#endif
};
#ifdef SHARED_BYTES
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host's count of shared memory");
#endif

// From Blackwell on, what comes of the thread's number is kept in registers from page to page, more than there are, unless it seems to be
// another number each time.
__device__ __forceinline__ u32 this_thread() {
    u32 thread = threadIdx.x;
#if __CUDA_ARCH__ >= 1000
    asm volatile("" : "+r"(thread));
#endif
    return thread;
}

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

// What is read once goes first from the cache of the card: what spans leave stays there.
__device__ __forceinline__ u64 read_once() {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

// Contiguous bytes to shared memory, counted by `barrier`. Sizes and addresses are multiples of 16.
__device__ __forceinline__ void copy_bulk(void *to, const void *from, u32 bytes, u64 &barrier, u64 policy) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(&barrier)), "l"(policy)
                 : "memory");
}

__device__ __forceinline__ void begin_ring(Shared &shared) {
    const int i = threadIdx.x;
    if (i < ITEMS) barrier_init(shared.told[i], 1);
    if (i < FULLS) barrier_init(shared.full[i], 1);
    if (i < STAGES) barrier_init(shared.empty[i], 1);
#if CODES
    if (i < TEAMS) shared.teams[i].complete = 0;
#endif
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    __syncthreads();
}

// The item of a tile of a piece and, lane by lane, its pages; false where a window hides the span.
__device__ __forceinline__ bool item_of(const AttentionArgs &args, const Piece &piece, u32 tile, Item &item, u32 &page) {
    const int span = piece.span();
    item.token = piece.token;
    item.position = piece.position;
    item.slot = piece.first_slot() + span;
    item.settled = span * SPAN_PAGES + piece.settled();
    item.first = first_seen(item.position, args.window);
    if (!(WHOLE && piece.is_whole()) && span < item.first / SPAN) return false;
    const int kv_head = tile / HEAD_TILES, first = tile % HEAD_TILES * HEADS;
    item.first_head = kv_head * GROUP + first;
    item.heads = min(HEADS, GROUP - first);
    item.first_page = max(item.first / PAGE, span * SPAN_PAGES);
    item.pages = min(item.position / PAGE, span * SPAN_PAGES + SPAN_PAGES - 1) - item.first_page + 1;
    item.first_slot = piece.first_slot() + item.first / SPAN;
    item.spans = item.position / SPAN - item.first / SPAN + 1;
    if (WHOLE && piece.is_whole()) {
        item.first_page = item.first / PAGE;
        item.pages = item.position / PAGE - item.first_page + 1;
        item.spans = 1;
    }
    const int lane = threadIdx.x % 32;
    if (lane < item.pages) page = args.step[piece.table + item.first_page + lane];
    return true;
}

// The pages of an item, as stages become free. Those of earlier steps are brought before the launches in front of this one are done; with
// JOINED also a token's last page, whose newest position is put in here.
__device__ __forceinline__ void bring_pages(const AttentionArgs &args, Shared &shared, const Item &item, u32 page) {
    const u32 kv_head = item.first_head / GROUP;
    const u64 policy = read_once();
#pragma unroll 1
    for (int p = 0; p < item.pages; p++) {
        const size_t place = (size_t)__shfl_sync(ALL_LANES, page, p) * args.kv_heads + kv_head;
        if (!JOINED && item.first_page + p >= item.settled) wait_for_producers();
        if (threadIdx.x % 32 == 0) {
            const u32 number = item.number + p, at = number % STAGES;
            Stage &stage = shared.stages[at];
            u64 &full = shared.full[number % FULLS];
            if (number >= STAGES) barrier_wait(shared.empty[at], number / STAGES - 1);
#if JOINED
            shared.pages[at] = (u32)place;
#endif
            // Keys behind the token are hidden whatever they are.
            const u32 key_bytes = min(PAGE, item.position - (item.first_page + p) * PAGE + 1) * ROW;
            barrier_expect(full, STAGE_BYTES - PAGE * ROW + key_bytes);
            copy_bulk(stage.keys, args.keys + place * (PAGE * ROW), key_bytes, full, policy);
            copy_bulk(stage.values, args.values + place * (PAGE * ROW), PAGE * ROW, full, policy);
            if (FORMAT == 2) {
                copy_bulk(stage.key_scales, args.key_scales + place * PAGE, 4 * PAGE, full, policy);
                copy_bulk(stage.value_scales, args.value_scales + place * PAGE, 4 * PAGE, full, policy);
            }
        }
        __syncwarp();
    }
}

// A CTA takes tickets until one lies behind the items: the first OWN without asking, one a round, then what it draws. So all CTAs
// together draw as often as there are items behind the rounds before the last of these.
constexpr u32 OWN = 4;

struct Tickets {
    u32 items, taken, drawn;

    __device__ __forceinline__ void draw(const AttentionArgs &args) {
        wait_for_producers();
        // Not atomicAdd, behind which all lanes would wait for the result.
        if (threadIdx.x % 32 == 0) asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], 1;" : "=r"(drawn) : "l"(args.drawn) : "memory");
    }

    // The next one, to all lanes; whoever has the last one leaves the counter for the next launch.
    __device__ __forceinline__ u32 take(const AttentionArgs &args) {
        if (taken < OWN) return blockIdx.x + taken++ * gridDim.x;
        if (threadIdx.x % 32 == 0 && drawn == items - (OWN - 1) * gridDim.x - 1) *args.drawn = 0;
        return OWN * gridDim.x + __shfl_sync(ALL_LANES, drawn, 0);
    }
};

__device__ __forceinline__ void tell(Shared &shared, const Item &item, u32 count) {
    if (threadIdx.x % 32 != 0) return;
    shared.items[count % ITEMS] = item;
    barrier_arrive(shared.told[count % ITEMS]);
}

// What comes after the item whose pages are brought: the piece after the next, and the next item with its pages.
struct Ahead {
    Tickets tickets;
    u32 tiles, ticket;
    Piece piece;  // of the ticket, when it is one
    bool drawn;

    __device__ __forceinline__ bool ends() const {
        return ticket >= tickets.items;
    }

    __device__ __forceinline__ void look_up(const AttentionArgs &args, const StepHead &step) {
        ticket = tickets.take(args);
        if (!ends()) piece = piece_of(args.step, step.first_piece, ticket / tiles);
    }

    __device__ __forceinline__ void draw(const AttentionArgs &args) {
        drawn = tickets.taken == OWN && !ends();
        if (drawn) tickets.draw(args);
    }

    // The next item that is seen; none has no pages. Heads come one after the other, and lie side by side in a page: CTAs read what is
    // adjacent at about the same time.
    __device__ __forceinline__ void next(const AttentionArgs &args, const StepHead &step, Item &item, u32 &page) {
#pragma unroll 1
        while (!ends()) {
            const Piece found = piece;
            const u32 tile = ticket % tiles;
            if (tickets.taken == OWN && !drawn) tickets.draw(args);
            drawn = false;
            look_up(args, step);
            if (item_of(args, found, tile, item, page)) return;
        }
        item.pages = 0;
    }
};

// What the producing warp does: it looks items up, and tells of them, while the pages before them are on their way.
__device__ __forceinline__ void bring_items(const AttentionArgs &args, Shared &shared) {
    const StepHead step = step_head(args.step);
    Ahead ahead{{step.pieces * args.kv_heads * HEAD_TILES, 0, 0}, args.kv_heads * HEAD_TILES, 0, {}, false};
    Item item, next;
    u32 page = 0, next_page = 0, count = 0;
    ahead.look_up(args, step);
    ahead.next(args, step, item, page);
    item.number = 0;
#pragma unroll 1
    while (item.pages > 0) {
        if (count == 0) tell(shared, item, count);
        ahead.next(args, step, next, next_page);
        next.number = item.number + item.pages;
        tell(shared, next, ++count);
        // Not before the pages that need not wait for the launches in front.
        if (count > 2) ahead.draw(args);
        bring_pages(args, shared, item, page);
        if (count == 2) ahead.draw(args);
        item = next;
        page = next_page;
    }
    for (int team = count == 0 ? 0 : 1; team < TEAMS; team++) tell(shared, item, count + team);
}
