#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

void stop_on(fw_status status, const fw_error *error) {
    if (status == FW_OK) return;
    (void)fprintf(stderr, "%s\n", error->message);
    exit(1);
}

void *must(void *memory) {
    if (memory != NULL) return memory;
    (void)fprintf(stderr, "out of memory\n");
    exit(1);
}

/* ---- timing ---- */

static clockid_t timer = CLOCK_MONOTONIC;

void bench_use_thread_clock(void) { timer = CLOCK_THREAD_CPUTIME_ID; }

double bench_seconds(void) {
    struct timespec now;
    (void)clock_gettime(timer, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

timing bench_measure(timed_call *call, const void *argument, int least, double budget) {
    enum { MOST = 101 };
    double times[MOST];
    int n = 0;
    fw_error error = {.struct_size = sizeof error};
    double start = bench_seconds();
    stop_on(call(argument, &error), &error);
    if (bench_seconds() - start > budget) least = 1;
    start = bench_seconds();
    while (n < MOST && (n < least || bench_seconds() - start < budget)) {
        const double begin = bench_seconds();
        stop_on(call(argument, &error), &error);
        times[n++] = bench_seconds() - begin;
    }
    qsort(times, (size_t)n, sizeof times[0], compare);
    return (timing){times[n / 2], times[0]};
}

/* ---- operations ---- */

double gemm_flops(const fw_gemm *gemm) {
    const uint32_t inner = gemm->transpose_a ? gemm->a.rank - 2 : gemm->a.rank - 1;
    return 2.0 * (double)fw_tensor_count(&gemm->c) * (double)gemm->a.shape[inner];
}

double attention_flops(const fw_flash_attention *attention) {
    const int64_t tokens = attention->q.shape[1], keys = attention->k.shape[1];
    double pairs = 0;
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t seen = t + 1 + keys - tokens;
        pairs +=
            (double)(attention->window > 0 && attention->window < seen ? attention->window : seen);
    }
    const double heads = (double)(attention->q.shape[0] * attention->q.shape[2]);
    return 4.0 * pairs * heads * (double)attention->q.shape[3];
}

double newton_schulz_flops(const fw_newton_schulz *newton_schulz) {
    const fw_tensor *x = &newton_schulz->x;
    const int64_t *shape = &x->shape[x->rank - 2];
    const double rows = (double)(shape[0] < shape[1] ? shape[0] : shape[1]);
    const double columns = (double)(shape[0] < shape[1] ? shape[1] : shape[0]);
    const double matrices = x->rank == 3 ? (double)x->shape[0] : 1.0;
    return matrices * newton_schulz->iterations * rows * rows * (4.0 * columns + 2.0 * rows);
}

/* ---- text ---- */

enum { WORDS = 20000, WORD_LENGTH = 8, FAVOURITES = 4 };

/* Zipf by inversion of a continuous 1/x: rank r with probability about 1 / (r ln n). */
static uint32_t zipf(test_random *random, uint32_t n) {
    const double rank = exp(test_uniform(random) * log((double)n + 1)) - 1;
    return rank < n ? (uint32_t)rank : n - 1;
}

uint32_t *synthetic_text(uint32_t vocabulary, size_t n) {
    test_random random = {vocabulary};
    uint32_t(*lexicon)[WORD_LENGTH] = must(calloc(WORDS, sizeof *lexicon));
    uint32_t(*favourites)[FAVOURITES] = must(calloc(WORDS, sizeof *favourites));
    uint32_t *lengths = must(calloc(WORDS, sizeof *lengths));
    for (uint32_t w = 0; w < WORDS; w++) {
        lengths[w] = 1 + (uint32_t)test_below(&random, WORD_LENGTH);
        for (uint32_t i = 0; i < WORD_LENGTH; i++) lexicon[w][i] = zipf(&random, vocabulary);
        for (uint32_t i = 0; i < FAVOURITES; i++) favourites[w][i] = zipf(&random, WORDS);
    }
    uint32_t *text = must(calloc(n, sizeof *text));
    uint32_t word = 0;
    for (size_t done = 0; done < n;) {
        word = test_uniform(&random) < 0.5 ? favourites[word][test_below(&random, FAVOURITES)]
                                           : zipf(&random, WORDS);
        for (uint32_t i = 0; i < lengths[word] && done < n; i++) text[done++] = lexicon[word][i];
    }
    free(lexicon);
    free(favourites);
    free(lengths);
    return text;
}
