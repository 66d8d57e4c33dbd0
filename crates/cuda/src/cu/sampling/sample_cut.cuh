// Where the most likely tokens of a row end, by their number or by their weights, without sorting the row.
//
// Tokens fall into bins in the order of their likelihood, and a bin knows how many it has and what they weigh together. The bin in which
// the sum passes its target is divided again, until one token is left. Sums of integers have no order, so neither the blocks' shares nor
// the order of their threads changes a cut.
#pragma once

#include "sample_row.cuh"

constexpr u32 BINS = CLUSTER == 1 ? THREADS : 1024;
constexpr u32 BIN_BITS = CLUSTER == 1 ? 9 : 10;
constexpr u32 SLICE = BINS / CLUSTER;  // bins whose totals one block makes
static_assert(SLICE <= THREADS, "a thread for every bin of a slice");

// The first bins are as wide as 1/BINS_EACH in the exponent; no token below -27.8 weighs anything.
constexpr float BINS_EACH = BINS / 28.0f;

// Tokens whose key is at least `key` and whose place among the first bins is below `bin_end`.
struct Cut {
    u64 key;
    float bin_end;
};

// The bin in which a sum passes its target.
struct Found {
    u64 left;  // of the target, when the better bins are taken off
    u32 bin, count;
};

struct Bins {
    u32 counts[BINS];
    u32 lows[BINS], highs[BINS];  // words of the sums of weights
    u64 slices[CLUSTER];          // what every block's slice of the bins holds; also used for other sums of blocks
    Found found;
};

__shared__ Bins bins;

// A sum of the whole row, and what of it comes before this block's part.
struct Total {
    u64 before, all;
};

// Place of an exponent among the first bins: its bin, where there are so many, and what is behind the point.
__device__ __forceinline__ float place_of(float logit, float exponent, const Measure &measure) {
    return logit == measure.max ? 0.0f : fminf(__fmul_rn(exponent, -BINS_EACH), BINS - 1);
}

__device__ __forceinline__ u32 bin_at(float place) {
    return __float2uint_rz(place);
}

__device__ __forceinline__ bool is_inside(const Cut &cut, float logit, float place, u32 token) {
    return place < cut.bin_end && key_of(logit, token) >= cut.key;
}

// All tokens.
__device__ __forceinline__ Cut everything() {
    return Cut{0, BINS};
}

__device__ __forceinline__ void clear_bins() {
    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) bins.counts[bin] = bins.lows[bin] = bins.highs[bin] = 0;
    __syncthreads();
}

__device__ __forceinline__ void add_to_bin(u32 bin, u64 weight) {
    const u32 low = (u32)weight;
    const u32 before = atomicAdd(&bins.lows[bin], low);
    const u32 high = (u32)(weight >> 32) + (before + low < before ? 1 : 0);
    if (high != 0) atomicAdd(&bins.highs[bin], high);
}

// Adds up what every block has; all arrive here.
__device__ __forceinline__ Total total_of(u64 mine, u32 rank) {
    publish(&bins.slices[rank], mine);
    cluster_sync();
    Total total{0, 0};
#pragma unroll
    for (u32 r = 0; r < CLUSTER; r++) {
        if (r < rank) total.before += bins.slices[r];
        total.all += bins.slices[r];
    }
    return total;
}

// The least sum of weights that a nucleus must reach.
__device__ __forceinline__ u64 nucleus_weight(float top_p, u64 total) {
    const double target = ceil(__dmul_rn((double)top_p, __ull2double_rn(total)));
    const u64 weight = __double2ull_rz(target);
    return weight < 1 ? 1 : (weight > total ? total : weight);
}

// The bin in which the sum, of weights or of counts, passes `target`; a target of 0 is that of a nucleus.
template <bool WEIGHED>
__device__ __forceinline__ Found find_bin(u64 target, float top_p, u32 rank) {
    cluster_sync();
    u32 count = 0;
    u64 sum = 0;
    const u32 bin = rank * SLICE + threadIdx.x;
    if (threadIdx.x < SLICE) {
#pragma unroll 4
        for (u32 r = 0; r < CLUSTER; r++) {
            const Bins *theirs = of_peer(&bins, r);
            count += theirs->counts[bin];
            if (WEIGHED) sum += (u64)theirs->highs[bin] << 32, sum += theirs->lows[bin];
        }
    }
    if (!WEIGHED) sum = count;
    u64 in_slice;
    const u64 through = block_scan(sum, in_slice);
    const Total total = total_of(in_slice, rank);
    if (target == 0) target = nucleus_weight(top_p, total.all);
    const u64 above = total.before + through - sum;
    if (sum != 0 && above < target && above + sum >= target) {
#pragma unroll
        for (u32 r = 0; r < CLUSTER; r++) *of_peer(&bins.found, r) = Found{target - above, bin, count};
    }
    cluster_sync();
    return bins.found;
}

// Keys that a first bin may hold: a little wider than it is.
__device__ __forceinline__ void keys_of_bin(u32 bin, const Measure &measure, u64 &low, u64 &high) {
    const double width = (double)measure.temperature / (double)BINS_EACH;
    // A difference of logits beyond the largest float is infinite, so it lies in the last bin whatever the temperature.
    const double from = fmin(bin * width * 0.9998, 3.4e38), to = (bin + 1) * width * 1.0002;
    high = bin == 0 ? key_of(measure.max, 0) : key_of(__double2float_ru((double)measure.max - from), 0);
    low = bin == BINS - 1 ? 0 : key_of(__double2float_rd((double)measure.max - to), NO_TOKEN);
}

// Fills the first bins with the tokens inside `within`: counts of all, or weights of those that weigh anything. Light ones all go to
// the last bin, where a nucleus does not end.
template <bool WEIGHED>
__device__ __forceinline__ void fill_first(
    const Row &row, const Sequence &slot, const Measure &measure, const Cut &within) {
    const float light = slot.light_exponent;
    u64 rest = 0;
#pragma unroll 2
    for (u32 token = row.begin + threadIdx.x; token < row.end; token += THREADS) {
        const float logit = logit_at(row, slot, token), exponent = exponent_of(logit, measure);
        const u64 weight = WEIGHED ? weight_of(logit, exponent, measure) : 0;
        const float place = place_of(logit, exponent, measure);
        if (WEIGHED && (weight == 0 || !is_inside(within, logit, place, token))) continue;
        if (WEIGHED && exponent < light) {
            rest += weight;
            continue;
        }
        // A first bin is divided again in any case, so weighed ones need no counts.
        if (WEIGHED)
            add_to_bin(bin_at(place), weight);
        else
            atomicAdd(&bins.counts[bin_at(place)], 1);
    }
    if (!WEIGHED) return;
#pragma unroll
    for (u32 step = 16; step > 0; step /= 2) rest += __shfl_xor_sync(ALL_LANES, rest, step);
    if (threadIdx.x % 32 == 0 && rest != 0) add_to_bin(BINS - 1, rest);
}

// Divides the first bin `bin`, as far as its keys lie in low..=high.
template <bool WEIGHED>
__device__ __forceinline__ void fill_again(
    const Row &row, const Sequence &slot, const Measure &measure, u32 bin, u64 low, u64 high, u32 shift) {
#pragma unroll 2
    for (u32 token = row.begin + threadIdx.x; token < row.end; token += THREADS) {
        const float logit = logit_at(row, slot, token), exponent = exponent_of(logit, measure);
        const u64 key = key_of(logit, token);
        if (key < low || key > high || bin_at(place_of(logit, exponent, measure)) != bin) continue;
        const u64 weight = WEIGHED ? weight_of(logit, exponent, measure) : 0;
        if (WEIGHED && weight == 0) continue;
        const u32 part = (u32)((high - key) >> shift);
        atomicAdd(&bins.counts[part], 1);
        if (WEIGHED) add_to_bin(part, weight);
    }
}

// The first tokens of `within`: `target` of them, or, for a target of 0, the fewest that make the nucleus.
template <bool WEIGHED>
__device__ __forceinline__ Cut cut_of(
    const Row &row, const Sequence &slot, const Measure &measure, const Cut &within, u64 target, u32 rank) {
    clear_bins();
    fill_first<WEIGHED>(row, slot, measure, within);
    Found found = find_bin<WEIGHED>(target, slot.top_p, rank);
    const u32 bin = found.bin;
    u64 low, high;
    keys_of_bin(bin, measure, low, high);
    while (true) {
        const u32 bits = high == low ? 0 : 64 - __clzll((long long)(high - low));
        const u32 shift = bits > BIN_BITS ? bits - BIN_BITS : 0;
        clear_bins();
        fill_again<WEIGHED>(row, slot, measure, bin, low, high, shift);
        found = find_bin<WEIGHED>(found.left, 1.0f, rank);
        high -= (u64)found.bin << shift;
        const u64 least = high - ((1ull << shift) - 1);
        low = least > high || least < low ? low : least;
        if (shift == 0 || found.count == 1) return Cut{low, (float)(bin + 1)};
    }
}
