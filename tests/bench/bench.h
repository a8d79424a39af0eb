/* What the benchmarks share: repeated timing, an end on the first error, the operations of the ops
 * that are counted in GFLOP/s, and a text to work on. */
#ifndef BENCH_H
#define BENCH_H

#include <support.h>

/* Prints the message and exits with 1 unless the status is FW_OK; likewise for missing memory. */
void stop_on(fw_status status, const fw_error *error);
void *must(void *memory);

/* Seconds of the wall clock; after bench_use_thread_clock(), processor seconds of this thread,
 * which neighbours on a busy machine disturb least. */
double bench_seconds(void);
void bench_use_thread_clock(void);

typedef struct timing {
    double median, best; /* seconds; the median tells more about the neighbours */
} timing;

typedef fw_status timed_call(const void *argument, fw_error *error);

/* Times a call at least `least` times, more while they fit into `budget` seconds, after one that
 * warms up; once, when that one took longer than the budget. The call waits for the device itself.
 */
timing bench_measure(timed_call *call, const void *argument, int least, double budget);

/* Floating-point operations by the arguments' shapes. Attention: of the pairs that are seen; its
 * backward pass is 2.5 times the forward. */
double gemm_flops(const fw_gemm *gemm);
double attention_flops(const fw_flash_attention *attention);
double newton_schulz_flops(const fw_newton_schulz *newton_schulz);

/* n tokens of synthetic text, the caller frees: words of 1 to 8 tokens from a random lexicon of
 * 20,000, drawn with Zipf frequencies, each word's successor half of the time taken from four
 * favourites of its own. */
uint32_t *synthetic_text(uint32_t vocabulary, size_t n);

#endif
