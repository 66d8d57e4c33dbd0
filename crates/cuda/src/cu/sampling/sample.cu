// Chooses a token from every row of logits, by the rule of the specification, and counts it for its sequence.
//
// A cluster takes a row and holds it in shared memory, where it has room: the row is read once. Greedy rows are done after that;
// the others look for where top-k and top-p cut the order of tokens, then draw a point among the weights that are left.
#include "sample_logprobs.cuh"

struct SampleRow {
    u32 slot, unused;
    u64 position;
};

// What is read back for a row. Kinds: 0 a token, 1 a logit that is no number, 2 no token is possible, 3 nor
// under the mask.
struct Result {
    u32 kind, token;
    float got, logprob;
    u32 num_top, unused[3];
};

constexpr u32 NO_LOGPROBS = 0xffffffffu;

struct SampleArgs {
    const float *logits;  // [rows, vocab]
    const SampleRow *rows;
    const Slot *slots;
    u32 *counts;          // [slots, vocab]
    const float *biases;  // [slots, vocab]
    const u32 *masks;     // [slots, ceil(vocab / 32)]
    Result *results;      // [rows]
    Top *tops;            // [rows, MOST_TOP]
    u32 *last_tokens;     // [slots]
    u32 vocab;
    u32 chunk;  // tokens of a block, a multiple of 16
    u32 room;   // logits that shared memory has room for
    u32 unused;
};

struct Shared {
    u64 best[CLUSTER], wrong[CLUSTER];
    u64 left;  // of the drawn point, where the owner's tokens begin
    u32 owner, token;
    Sequence sequence;
};

__shared__ Shared shared;

__device__ __forceinline__ Row share_of(const SampleArgs &args, u32 index, u32 rank) {
    Row row;
    row.logits = args.logits + (u64)index * args.vocab;
    row.begin = min(args.vocab, rank * args.chunk);
    row.end = min(args.vocab, row.begin + args.chunk);
    row.is_held = args.chunk <= args.room;
    return row;
}

// Copies the slot into shared memory: it would take more registers than there are.
__device__ __forceinline__ Sequence &take_sequence(const SampleArgs &args, u32 slot) {
    if (threadIdx.x == 0) {
        (Slot &)shared.sequence = args.slots[slot];
        shared.sequence.counts = args.counts + (u64)slot * args.vocab;
        shared.sequence.biases = args.biases + (u64)slot * args.vocab;
        shared.sequence.mask = args.masks + (u64)slot * ((args.vocab + 31) / 32);
    }
    __syncthreads();
    return shared.sequence;
}

// The survey of the whole row.
__device__ __forceinline__ Survey survey_of(const Row &row, const Sequence &slot, float (&first)[EACH], u32 rank) {
    Survey survey = read_logits(row, slot, first);
    survey.best = block_maximum(survey.best);
    if (__syncthreads_or(survey.wrong != 0)) survey.wrong = block_maximum(survey.wrong);
    cluster_sync();  // all blocks are there
    publish(&shared.best[rank], survey.best);
    publish(&shared.wrong[rank], survey.wrong);
    cluster_sync();
#pragma unroll
    for (u32 r = 0; r < CLUSTER; r++) {
        survey.best = max(survey.best, shared.best[r]);
        survey.wrong = max(survey.wrong, shared.wrong[r]);
    }
    return survey;
}

// Random bits of a position of a sequence: Philox 4x32-10, its first two words.
__device__ __forceinline__ u64 random_u64(u64 seed, u64 position) {
    u32 key0 = (u32)seed, key1 = (u32)(seed >> 32);
    u32 c0 = (u32)position, c1 = (u32)(position >> 32), c2 = 0, c3 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 even = (u64)0xd2511f53u * c0, odd = (u64)0xcd9e8d57u * c2;
        c0 = (u32)(odd >> 32) ^ c1 ^ key0;
        c2 = (u32)(even >> 32) ^ c3 ^ key1;
        c1 = (u32)odd, c3 = (u32)even;
        key0 += 0x9e3779b9u, key1 += 0xbb67ae85u;
    }
    return (u64)c1 << 32 | c0;
}

// A token's weight where it may be drawn.
__device__ __forceinline__ u64 kept_weight(const Row &row, const Sequence &slot, const Measure &measure, const Cut &cut, u32 token) {
    const float logit = logit_at(row, slot, token), exponent = exponent_of(logit, measure);
    if (!is_inside(cut, logit, place_of(logit, exponent, measure), token)) return 0;
    const u64 weight = weight_of(logit, exponent, measure);
    return weight >= slot.least_weight ? weight : 0;
}

// The token of from..to in whose share `left` lies; a warp's work.
__device__ __forceinline__ u32 token_at(
    const Row &row, const Sequence &slot, const Measure &measure, const Cut &cut, u32 from, u32 to, u64 left) {
    for (; from < to; from += 32) {
        const u32 lane = threadIdx.x % 32, token = from + lane;
        u64 through = token < to ? kept_weight(row, slot, measure, cut, token) : 0;
#pragma unroll
        for (u32 step = 1; step < 32; step *= 2) {
            const u64 before = __shfl_up_sync(ALL_LANES, through, step);
            if (lane >= step) through += before;
        }
        const u32 beyond = __ballot_sync(ALL_LANES, through > left);
        if (beyond != 0) return from + __ffs(beyond) - 1;
        left -= __shfl_sync(ALL_LANES, through, 31);
    }
    return NO_TOKEN;
}

// Draws among the tokens inside the cut. Every thread takes tokens that follow each other, an odd number of them because of the
// banks of shared memory.
__device__ __forceinline__ u32 draw_inside(
    const Row &row, const Sequence &slot, const Measure &measure, const Cut &cut, u64 random, u32 chunk, u32 rank) {
    const u32 each = (chunk + THREADS - 1) / THREADS | 1;
    const u32 from = min(row.end, row.begin + threadIdx.x * each), to = min(row.end, from + each);
    if (threadIdx.x == 0) shared.owner = NO_TOKEN;
    u64 sum = 0, in_block;
    for (u32 token = from; token < to; token++) sum += kept_weight(row, slot, measure, cut, token);
    const u64 through = block_scan(sum, in_block);
    const Total total = total_of(in_block, rank);
    const u64 point = __umul64hi(random, total.all), before = total.before + through - sum;
    if (before <= point && point < before + sum) shared.owner = threadIdx.x, shared.left = point - before;
    __syncthreads();
    if (shared.owner != NO_TOKEN && threadIdx.x < 32) {
        const u32 first = row.begin + shared.owner * each;
        publish(&shared.token, token_at(row, slot, measure, cut, first, min(row.end, first + each), shared.left));
    }
    cluster_sync();
    return shared.token;
}

__device__ __forceinline__ u32 draw(
    const Row &row, const Sequence &slot, float max, u64 position, const SampleArgs &args, u32 rank) {
    const Measure measure{max, slot.temperature, slot.inv_temperature};
    Cut cut = everything();
    if (slot.top_k > 0 && slot.top_k < args.vocab) cut = cut_of<false>(row, slot, measure, cut, slot.top_k, rank);
    if (slot.top_p < 1.0f) cut = cut_of<true>(row, slot, measure, cut, 0, rank);
    return draw_inside(row, slot, measure, cut, random_u64(slot.seed, position), args.chunk, rank);
}

__device__ __forceinline__ u32 top_count(const Sequence &slot, const SampleArgs &args) {
    return min(slot.num_top, min(args.vocab, MOST_TOP));
}

// Log-probabilities of the row as the model gave it; the first block writes the most likely tokens.
__device__ __forceinline__ float report(
    const Row &row, Sequence &slot, u32 token, const SampleArgs &args, u32 index, u32 rank) {
    __syncthreads();
    if (threadIdx.x == 0) slot.flags = 0;  // nothing is adjusted from here on
    __syncthreads();
    float first[EACH];
    fetch(row, row.begin + threadIdx.x, first);
    const float max = logit_of(survey_of(row, slot, first, rank).best);
    const u32 count = top_count(slot, args);
    if (count > 0) list_top(row, slot, max, count, args.vocab, rank);
    const float log_sum = log_sum_of(row, slot, max, args.room, rank);
    if (rank == 0) write_top(row, log_sum, count, args.tops + (u64)index * MOST_TOP);
    return __fadd_rn(row.logits[token], -log_sum);
}

__device__ __forceinline__ Result fault_of(const Row &row, const Survey &survey, bool is_masked) {
    if (survey.wrong == 0) return Result{is_masked ? 3u : 2u, 0, 0.0f, 0.0f, NO_LOGPROBS, {}};
    const u32 token = ~(u32)survey.wrong;
    return Result{1, token, row.logits[token], 0.0f, NO_LOGPROBS, {}};
}

// The slot is read once more: it would take a register all along.
__device__ __forceinline__ void keep_token(const SampleArgs &args, u32 index, u32 token) {
    args.last_tokens[*(const volatile u32 *)&args.rows[index].slot] = token;
}

// Blocks on a multiprocessor; on cards after Hopper, where nothing was measured, registers rather than a second block.
constexpr int RESIDENT = __CUDA_ARCH__ >= 1000 ? 1 : 2;

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) sample(const SampleArgs args) {
    let_dependents_start();
    wait_for_producers();
    const u32 rank = blockIdx.x % CLUSTER, index = blockIdx.x / CLUSTER;
    const bool writes = rank == 0 && threadIdx.x == 0;
    const Row row = share_of(args, index, rank);
    float first[EACH];
    fetch(row, row.begin + threadIdx.x, first);
    const SampleRow at = args.rows[index];
    Sequence &slot = take_sequence(args, at.slot);
    const u32 flags = slot.flags;
    const Survey survey = survey_of(row, slot, first, rank);
    if (survey.wrong != 0 || survey.best == 0) {
        if (writes) {
            args.results[index] = fault_of(row, survey, slot.flags & MASKED);
            keep_token(args, index, 0);
        }
        return;
    }
    u32 token = token_of(survey.best);
    if (!(flags & GREEDY)) token = draw(row, slot, logit_of(survey.best), at.position, args, rank);
    Result result{0, token, 0.0f, 0.0f, NO_LOGPROBS, {}};
    if (flags & LOGPROBS) {
        result.logprob = report(row, slot, token, args, index, rank);
        result.num_top = top_count(slot, args);
    }
    if (!writes) return;
    args.results[index] = result;
    keep_token(args, index, token);
    if (flags & COUNTS && (slot.counts[token] & 0x7fffffffu) != 0x7fffffffu) slot.counts[token]++;
}
