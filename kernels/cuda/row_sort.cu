/* A stable radix sort of row numbers by token, for lists of some 100,000 rows and vocabularies that
 * mostly take one pass. Each pass: every block counts the digits of its share, the counts are
 * summed over blocks, and every block moves its share to where the sums say, in order. */
#include "row_sort.h"
#include "vector.cuh"

namespace {

#define SORT_THREADS 1024
#define SORT_WARPS (SORT_THREADS / WARP_LANES)
#define SORT_BLOCKS 128 /* at most */
#define DIGIT_BITS 12   /* at most */
#define DIGITS (1 << DIGIT_BITS)
#define DIGITS_EACH (DIGITS / SORT_THREADS)

/* One pass, by `digits` values of (key >> shift) & mask. */
struct pass {
    const int32_t *tokens;                 /* the first pass's input */
    const uint32_t *from_keys, *from_rows; /* the others' */
    uint32_t *keys, *rows;
    uint32_t *counts; /* [blocks][digits], then sums over the blocks before */
    uint32_t *totals; /* [digits] */
    int n, share;     /* rows, and rows of one block */
    int blocks;
    uint32_t vocabulary, shift, mask, digits;
};

__device__ __forceinline__ uint32_t key_at(const pass &p, int i) {
    if (p.tokens == nullptr) return p.from_keys[i];
    return min(static_cast<uint32_t>(p.tokens[i]), p.vocabulary);
}

__global__ void __launch_bounds__(SORT_THREADS) count_digits(pass p) {
    __shared__ uint32_t counts[DIGITS];
    for (uint32_t d = threadIdx.x; d < p.digits; d += SORT_THREADS) counts[d] = 0;
    __syncthreads();
    const int begin = blockIdx.x * p.share, end = min(begin + p.share, p.n);
    for (int i = begin + threadIdx.x; i < end; i += SORT_THREADS)
        atomicAdd(&counts[key_at(p, i) >> p.shift & p.mask], 1u);
    __syncthreads();
    for (uint32_t d = threadIdx.x; d < p.digits; d += SORT_THREADS)
        p.counts[blockIdx.x * p.digits + d] = counts[d];
}

/* The sum over the threads of the warp before this one. */
__device__ __forceinline__ uint32_t sum_before(uint32_t value) {
    uint32_t sum = value;
#pragma unroll
    for (int step = 1; step < WARP_LANES; step *= 2) {
        const uint32_t other = __shfl_up_sync(0xffffffffu, sum, step);
        if (threadIdx.x % WARP_LANES >= step) sum += other;
    }
    return sum - value;
}

/* Blocks of 32 digits x 32 parts of the list of blocks. */
__global__ void __launch_bounds__(SORT_THREADS) sum_counts(pass p) {
    __shared__ uint32_t parts[WARP_LANES][WARP_LANES + 1];
    constexpr int each = SORT_BLOCKS / WARP_LANES;
    const uint32_t digit = blockIdx.x * WARP_LANES + threadIdx.x;
    const bool there = digit < p.digits;
    uint32_t counts[each], sum = 0;
#pragma unroll
    for (int i = 0; i < each; i++) {
        const int block = threadIdx.y * each + i;
        counts[i] = there && block < p.blocks ? p.counts[block * p.digits + digit] : 0;
        sum += counts[i];
    }
    parts[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    const uint32_t part = parts[threadIdx.x][threadIdx.y], before = sum_before(part);
    __syncthreads();
    parts[threadIdx.x][threadIdx.y] = before;
    if (threadIdx.x == WARP_LANES - 1 && blockIdx.x * WARP_LANES + threadIdx.y < p.digits)
        p.totals[blockIdx.x * WARP_LANES + threadIdx.y] = before + part;
    __syncthreads();
    uint32_t at = parts[threadIdx.y][threadIdx.x];
#pragma unroll
    for (int i = 0; i < each; i++) {
        const int block = threadIdx.y * each + i;
        if (there && block < p.blocks) p.counts[block * p.digits + digit] = at;
        at += counts[i];
    }
}

/* places[d] = how many keys come before the block's first of digit d. */
__device__ __forceinline__ void find_places(const pass &p, uint32_t *places) {
    __shared__ uint32_t warps[SORT_WARPS];
    uint32_t totals[DIGITS_EACH], before[DIGITS_EACH], sum = 0;
#pragma unroll
    for (int i = 0; i < DIGITS_EACH; i++) {
        const uint32_t digit = threadIdx.x * DIGITS_EACH + i;
        totals[i] = digit < p.digits ? p.totals[digit] : 0;
        before[i] = digit < p.digits ? p.counts[blockIdx.x * p.digits + digit] : 0;
        sum += totals[i];
    }
    const unsigned lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    uint32_t at = sum_before(sum);
    if (lane == WARP_LANES - 1) warps[warp] = at + sum;
    __syncthreads();
    if (warp == 0) warps[lane] = sum_before(warps[lane]);
    __syncthreads();
    at += warps[warp];
#pragma unroll
    for (int i = 0; i < DIGITS_EACH; i++) {
        const uint32_t digit = threadIdx.x * DIGITS_EACH + i;
        if (digit < p.digits) places[digit] = at + before[i];
        at += totals[i];
    }
    __syncthreads();
}

/* Warps take their turns, so that equal digits keep their order; within a warp lanes do. */
__global__ void __launch_bounds__(SORT_THREADS) move_rows(pass p) {
    __shared__ uint32_t places[DIGITS];
    find_places(p, places);
    const int begin = blockIdx.x * p.share, end = min(begin + p.share, p.n);
    const unsigned lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    for (int base = begin; base < end; base += SORT_THREADS) {
        const int i = base + threadIdx.x;
        const uint32_t key = i < end ? key_at(p, i) : 0;
        const uint32_t digit = i < end ? key >> p.shift & p.mask : DIGITS;
        const uint32_t row = p.tokens != nullptr || i >= end ? i : p.from_rows[i];
        const uint32_t peers = __match_any_sync(0xffffffffu, digit);
        const int leader = __ffs(peers) - 1;
        uint32_t place = 0;
        for (unsigned turn = 0; turn < SORT_WARPS; turn++) {
            if (turn == warp && lane == leader && digit < DIGITS) {
                place = places[digit];
                places[digit] = place + __popc(peers);
            }
            __syncthreads();
        }
        place = __shfl_sync(0xffffffffu, place, leader) + __popc(peers & ((1u << lane) - 1));
        if (i < end) {
            p.keys[place] = key;
            p.rows[place] = row;
        }
    }
}

/* ---- on the host ---- */

int bits_of(int64_t largest) {
    int bits = 1;
    while (largest >> bits > 0) bits++;
    return bits;
}

pass make_pass(const row_sort *s, const int32_t *tokens, int shift, int bits) {
    pass p = {.tokens = shift == 0 ? tokens : nullptr,
              .from_keys = s->keys[0],
              .from_rows = s->rows[0],
              .keys = s->keys[1],
              .rows = s->rows[1],
              .counts = s->counts,
              .totals = s->totals,
              .n = static_cast<int>(s->n),
              .vocabulary = static_cast<uint32_t>(s->vocabulary),
              .shift = static_cast<uint32_t>(shift),
              .mask = (1u << bits) - 1};
    p.digits = static_cast<uint32_t>(cuda_min(p.mask, s->vocabulary >> shift) + 1);
    const int64_t rounds = cuda_divide_up(s->n, static_cast<int64_t>(SORT_THREADS) * SORT_BLOCKS);
    p.share = static_cast<int>(rounds * SORT_THREADS);
    p.blocks = static_cast<int>(cuda_divide_up(s->n, p.share));
    return p;
}

fw_status run_pass(cuda_device *cuda, const char *op, const pass &p, fw_error *error) {
    count_digits<<<p.blocks, SORT_THREADS, 0, cuda->stream>>>(p);
    FW_TRY(cuda_launched(cuda, op, "count_digits", error));
    const dim3 square(WARP_LANES, WARP_LANES);
    const unsigned groups = static_cast<unsigned>(cuda_divide_up(p.digits, WARP_LANES));
    sum_counts<<<groups, square, 0, cuda->stream>>>(p);
    FW_TRY(cuda_launched(cuda, op, "sum_counts", error));
    move_rows<<<p.blocks, SORT_THREADS, 0, cuda->stream>>>(p);
    return cuda_launched(cuda, op, "move_rows", error);
}

uint32_t *take(char **memory, int64_t n) {
    uint32_t *here = reinterpret_cast<uint32_t *>(*memory);
    *memory += (n * sizeof *here + 255) / 256 * 256;
    return here;
}

} // namespace

char *row_sort_carve(char *memory, int64_t n, int64_t vocabulary, row_sort *sort) {
    sort->n = n;
    sort->vocabulary = vocabulary;
    for (int i = 0; i < 2; i++) {
        sort->keys[i] = take(&memory, n);
        sort->rows[i] = take(&memory, n);
    }
    sort->counts = take(&memory, static_cast<int64_t>(SORT_BLOCKS) * DIGITS);
    sort->totals = take(&memory, DIGITS);
    return memory;
}

fw_status row_sort_run(cuda_device *cuda, const char *op, const int32_t *tokens, row_sort *sort,
                       fw_error *error) {
    const int all = bits_of(sort->vocabulary);
    const int passes = static_cast<int>(cuda_divide_up(all, DIGIT_BITS));
    const int bits = static_cast<int>(cuda_divide_up(all, passes));
    for (int i = 0; i < passes; i++) {
        FW_TRY(run_pass(cuda, op, make_pass(sort, tokens, i * bits, bits), error));
        uint32_t *keys = sort->keys[0], *rows = sort->rows[0];
        sort->keys[0] = sort->keys[1], sort->rows[0] = sort->rows[1];
        sort->keys[1] = keys, sort->rows[1] = rows;
    }
    return FW_OK;
}
