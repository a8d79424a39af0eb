/* Speed of the caches on realistic streams (bench_stream.h).
 *
 *     bench_cache [SHARD.bin | FILE.rows [TOKENS [CACHE...]]]     (TOKENS: 200000)
 *
 * Without a file the tokens are synthetic text. "M tok/s" is cache_stream_score as an evaluation
 * calls it, with all of the host's checks: the row is copied for the cache, the cache predicts, the
 * host validates, looks up the target, takes the logarithm and tells the cache. "cache" is the
 * cache's part of that, predict and update called without the host, and "host" the rest. "update"
 * is update alone, as when a cache is warm-started. "two thr." is what two threads do, M tokens/s
 * of the one that has more to do (struct turns). "rows" is forming a row in float64 from float32
 * log-probabilities, which is no part of M tok/s; "audit" a full distribution of one position. A
 * second table is the same scoring in the host's process and in one of the cache's own
 * (eval.isolate), by the wall clock, as the host waits there.
 *
 * Each number is the sum over pieces of 128 tokens of the best that a piece took in several runs,
 * in processor time, where not said otherwise: what other programs take away is left out as far as
 * can be. */
#include <math.h>
#include <stdio.h>

#include "bench.h"
#include "bench_stream.h"
#include "cache_child.h"
#include "cache_process.h"
#include "cache_stream.h"
#include "clock.h"
#include "host.h"
#include "prediction.h"
#include "relay.h"
#include "rows.h"

enum { RUNS = 4 };

static const fw_host *services; /* those of a run, as memory matters */

/* The best times of each piece, over the runs so far. */
typedef struct best {
    double *seconds;
    size_t n, next;
} best;

static void best_begin(best *b, size_t n) {
    if (b->seconds == NULL) {
        b->n = n;
        b->seconds = must(calloc(n, sizeof *b->seconds));
        for (size_t i = 0; i < n; i++) b->seconds[i] = INFINITY;
    }
    b->next = 0;
}

static void best_add(best *b, double seconds) {
    double *slot = &b->seconds[b->next++];
    *slot = fmin(*slot, seconds);
}

/* Microseconds for each of n tokens. */
static double best_per_token(const best *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < b->n; i++) sum += b->seconds[i];
    return 1e6 * sum / (double)n;
}

typedef struct bench_case {
    struct plugin_choice choice;
    const fw_cache *cache;
    struct token_table *table;
    bench_stream *stream;
    struct rows rows;
    best forming, scoring, asking, updating, here, apart;
} bench_case;

static size_t n_pieces(const bench_case *c) {
    return (c->stream->n + STREAM_AT_ONCE - 1) / STREAM_AT_ONCE;
}

static struct token_table *make_table(uint32_t vocabulary) {
    struct token_table *table = must(calloc(1, sizeof *table));
    table->vocabulary = vocabulary;
    table->begin_token = -1;
    table->tokens = must(calloc(vocabulary, sizeof *table->tokens));
    for (uint32_t v = 0; v < vocabulary; v++)
        table->tokens[v] = (fw_token_info){.base_bytes = 1, .boundary = v == 0};
    return table;
}

static uint32_t context_tokens(const fw_cache *cache) {
    return FW_COVERS(cache, context_tokens) ? cache->context_tokens : 0;
}

/* The next piece's rows, formed. */
static size_t next_rows(bench_case *c, size_t *first) {
    fw_error error = {.struct_size = sizeof error};
    size_t n = 0;
    const float *l = bench_stream_next(c->stream, first, &n);
    const double begin = bench_seconds();
    if (n == 0) return 0;
    stop_on(rows_form(&c->rows, services, l, (int64_t)n, c->cache->needs_entropy != 0, &error),
            &error);
    best_add(&c->forming, bench_seconds() - begin);
    return n;
}

static fw_row row_at(const bench_case *c, size_t i, size_t position) {
    const uint64_t wanted = context_tokens(c->cache), there = position + 1;
    const uint64_t n = wanted < there ? wanted : there;
    return (fw_row){.struct_size = sizeof(fw_row),
                    .vocabulary = c->stream->vocabulary,
                    .position = position,
                    .probabilities = c->rows.probabilities + i * c->stream->vocabulary,
                    .entropy = c->rows.entropy[i],
                    .context = c->stream->tokens + position + 1 - n,
                    .n_context = (uint32_t)n};
}

typedef struct scoring {
    double nats, model_nats, megabytes;
} scoring;

static void rewind_to_begin(bench_case *c) {
    bench_stream_rewind(c->stream);
    best_begin(&c->forming, n_pieces(c));
}

/* As an evaluation does it, with a fresh instance. */
static scoring score(bench_case *c, best *times, double (*seconds)(void)) {
    fw_error error = {.struct_size = sizeof error};
    struct cache_stream *cache = NULL;
    scoring sum = {0};
    size_t first = 0, n = 0;
    stop_on(cache_stream_open(&c->choice, services, c->table, c->stream->n, true, &cache, &error),
            &error);
    rewind_to_begin(c);
    best_begin(times, n_pieces(c));
    while ((n = next_rows(c, &first)) > 0) {
        const uint32_t *targets = c->stream->tokens + first + 1;
        for (size_t i = 0; i < n; i++)
            sum.model_nats -= log(c->rows.probabilities[i * c->stream->vocabulary + targets[i]]);
        const double begin = seconds();
        for (size_t i = 0; i < n; i++) {
            const fw_row row = row_at(c, i, first + i);
            double nats = 0;
            stop_on(cache_stream_score(cache, &row, targets[i], &nats, &error), &error);
            sum.nats += nats;
        }
        stop_on(cache_stream_end_window(cache, &error), &error);
        best_add(times, seconds() - begin);
    }
    struct cache_summary summary;
    cache_stream_summary(cache, &summary);
    cache_stream_close(cache);
    sum.megabytes = (double)summary.memory_bytes / (1 << 20);
    return sum;
}

static void *open_alone(const bench_case *c) {
    fw_error error = {.struct_size = sizeof error};
    const fw_cache_shape shape = {.struct_size = sizeof shape,
                                  .vocabulary = c->stream->vocabulary,
                                  .max_entries = c->stream->vocabulary,
                                  .stream_tokens = c->stream->n};
    void *self = NULL;
    stop_on(c->cache->create(services, c->choice.values, &shape, &self, &error), &error);
    stop_on(c->cache->begin(self, &error), &error);
    return self;
}

/* ---- two threads ---- */

enum { TURNS = 2 };

/* What two threads do in an evaluation that has others for rows and no audit. Of a cache whose
 * state depends on the tokens alone there are two instances, which take turns: each scores every
 * other piece and learns the others, and another thread forms rows. Any other cache is scored by
 * one thread, and the second one forms its rows. */
typedef struct turns {
    bench_case *c;
    struct cache_stream *streams[TURNS];
    best seconds[TURNS];
    double nats[TURNS];
    uint16_t *tokens;
    size_t first, n;
    uint64_t number;
} turns;

static fw_status take_turn(void *self, uint32_t consumer, uint32_t slot, fw_error *error) {
    (void)slot;
    turns *t = self;
    const double begin = bench_seconds();
    if (t->number % TURNS != consumer) {
        FW_TRY(cache_stream_learn(t->streams[consumer], t->tokens + t->first + 1, t->n, error));
    } else {
        for (size_t i = 0; i < t->n; i++) {
            const fw_row row = row_at(t->c, i, t->first + i);
            double nats = 0;
            FW_TRY(cache_stream_score(t->streams[consumer], &row,
                                      t->c->stream->tokens[t->first + i + 1], &nats, error));
            t->nats[consumer] += nats;
        }
    }
    best_add(&t->seconds[consumer], bench_seconds() - begin);
    return FW_OK;
}

static void run_turns(bench_case *c, turns *t) {
    fw_error error = {.struct_size = sizeof error};
    const struct relay_options options = {
        .slots = 1, .consumers = TURNS, .threads = true, .consume = take_turn, .self = t};
    struct relay *relay = NULL;
    for (int k = 0; k < TURNS; k++) {
        best_begin(&t->seconds[k], n_pieces(c));
        t->nats[k] = 0;
        stop_on(cache_stream_open(&c->choice, services, c->table, c->stream->n, false,
                                  &t->streams[k], &error),
                &error);
    }
    stop_on(relay_create(&options, &relay, &error), &error);
    rewind_to_begin(c);
    for (t->number = 0;; t->number++) {
        uint32_t slot = 0;
        stop_on(relay_slot(relay, &slot, &error), &error);
        t->n = next_rows(c, &t->first);
        if (t->n == 0) break;
        stop_on(relay_post(relay, &error), &error);
    }
    stop_on(relay_finish(relay, &error), &error);
    relay_destroy(relay);
    for (int k = 0; k < TURNS; k++) cache_stream_close(t->streams[k]);
}

/* Microseconds a token of the thread that has more to do. */
static double two_threads(bench_case *c) {
    const size_t n = c->stream->n;
    if (!c->cache->counts_only || c->cache->prefill == NULL)
        return fmax(best_per_token(&c->scoring, n), best_per_token(&c->forming, n));
    turns t = {.c = c, .tokens = must(calloc(n + 1, sizeof *t.tokens))};
    for (size_t i = 0; i <= n; i++) t.tokens[i] = (uint16_t)c->stream->tokens[i];
    for (int run = 0; run < RUNS; run++) run_turns(c, &t);
    const double slower = fmax(best_per_token(&t.seconds[0], n), best_per_token(&t.seconds[1], n));
    for (int k = 0; k < TURNS; k++) free(t.seconds[k].seconds);
    free(t.tokens);
    return slower;
}

typedef struct parts {
    double seconds;       /* of predict and update */
    double entries;       /* per prediction */
    double audit, audits; /* seconds for full distributions, and how many */
} parts;

static void audit(bench_case *c, struct prediction_buffers *buffers, const fw_row *row,
                  const fw_prediction *prediction, double *full, parts *sum) {
    fw_error error = {.struct_size = sizeof error};
    const double begin = bench_seconds();
    stop_on(prediction_full(buffers, row, prediction, full, &error), &error);
    sum->audit += bench_seconds() - begin;
    sum->audits++;
    (void)c;
}

/* The cache without the host. */
static parts take_apart(bench_case *c) {
    enum { AUDIT_EVERY = 512 };
    fw_error error = {.struct_size = sizeof error};
    const uint32_t V = c->stream->vocabulary;
    struct prediction_buffers *buffers = must(prediction_buffers_create(V));
    double *full = must(calloc(V, sizeof *full));
    void *self = open_alone(c);
    parts sum = {0};
    buffers->cache = self;
    buffers->allow_unverified = true;
    rewind_to_begin(c);
    best_begin(&c->asking, n_pieces(c));
    for (size_t first = 0, n; (n = next_rows(c, &first)) > 0;) {
        const double begin = bench_seconds(), audited = sum.audit;
        for (size_t i = 0; i < n; i++) {
            fw_prediction prediction;
            const fw_row row = row_at(c, i, first + i);
            prediction_prepare(buffers, &prediction);
            stop_on(c->cache->predict(self, &row, &prediction, &error), &error);
            sum.entries += prediction.n;
            if ((first + i) % AUDIT_EVERY == 0) audit(c, buffers, &row, &prediction, full, &sum);
            stop_on(c->cache->update(self, c->stream->tokens + first + i + 1, 1, &error), &error);
        }
        best_add(&c->asking, bench_seconds() - begin - (sum.audit - audited));
    }
    c->cache->destroy(self);
    free(full);
    prediction_buffers_destroy(buffers);
    return sum;
}

static void update_alone(bench_case *c) {
    fw_error error = {.struct_size = sizeof error};
    void *self = open_alone(c);
    best_begin(&c->updating, n_pieces(c));
    for (size_t first = 0; first < c->stream->n; first += STREAM_AT_ONCE) {
        const size_t left = c->stream->n - first, n = left < STREAM_AT_ONCE ? left : STREAM_AT_ONCE;
        const double begin = bench_seconds();
        stop_on(c->cache->update(self, c->stream->tokens + first + 1, n, &error), &error);
        best_add(&c->updating, bench_seconds() - begin);
    }
    c->cache->destroy(self);
}

static void open_case(const char *id, bench_stream *stream, struct registry_entry *entry,
                      bench_case *c) {
    fw_error error = {.struct_size = sizeof error};
    const fw_plugin *plugin = test_plugin(FW_CACHE, id);
    *entry = (struct registry_entry){.plugin = plugin, .path = test_plugin_path(plugin)};
    *c = (bench_case){.choice = {.kind = FW_CACHE,
                                 .section = "cache",
                                 .name = id,
                                 .entry = entry,
                                 .values = test_values(plugin, NULL)},
                      .cache = plugin->vtable,
                      .table = make_table(stream->vocabulary),
                      .stream = stream};
    stop_on(rows_create(STREAM_AT_ONCE, stream->vocabulary, &c->rows, &error), &error);
}

static void close_case(bench_case *c) {
    free(c->forming.seconds);
    free(c->scoring.seconds);
    free(c->asking.seconds);
    free(c->updating.seconds);
    free(c->here.seconds);
    free(c->apart.seconds);
    rows_free(&c->rows);
    token_table_destroy(c->table);
    free(c->choice.values);
}

static void bench(const char *id, bench_stream *stream) {
    struct registry_entry entry;
    bench_case c;
    open_case(id, stream, &entry, &c);
    scoring sum = {0};
    parts part = {0};
    for (int run = 0; run < RUNS; run++) {
        sum = score(&c, &c.scoring, bench_seconds);
        part = take_apart(&c);
        update_alone(&c);
    }
    const size_t n = stream->n;
    const double whole = best_per_token(&c.scoring, n), cache = best_per_token(&c.asking, n);
    printf("| %-12s | %4u | %-5s | %7zu | %7.2f | %8.2f | %5.2f | %6.2f | %5.2f | %5.2f | %5.3f | "
           "%+7.4f | "
           "%7.1f | %5.1f | %4.0f |\n",
           id, stream->vocabulary, stream->rows, n, 1 / whole, 1 / two_threads(&c), cache,
           best_per_token(&c.updating, n), whole - cache, best_per_token(&c.forming, n),
           sum.nats / (double)n, (sum.nats - sum.model_nats) / (double)n, part.entries / (double)n,
           1e6 * part.audit / part.audits, sum.megabytes);
    close_case(&c);
}

/* ---- in a process of its own ---- */

/* Turns, so that what the machine does otherwise meets both. */
static void bench_apart(const char *id, bench_stream *stream) {
    static const struct apart apart = {.seconds = 60};
    struct registry_entry entry;
    bench_case c;
    open_case(id, stream, &entry, &c);
    for (int run = 0; run < RUNS; run++) {
        c.choice.apart = NULL;
        const double nats = score(&c, &c.here, clock_seconds).nats;
        c.choice.apart = &apart;
        if (score(&c, &c.apart, clock_seconds).nats != nats) {
            (void)fprintf(stderr, "%s scores otherwise in a process of its own\n", id);
            exit(1);
        }
    }
    const double here = best_per_token(&c.here, stream->n);
    const double there = best_per_token(&c.apart, stream->n);
    printf("| %-12s | %4u | %-5s | %7zu | %7.3f | %8.3f | %5.1f | %8.2f |\n", id,
           stream->vocabulary, stream->rows, stream->n, 1 / here, 1 / there, there / here,
           there - here);
    close_case(&c);
}

/* ---- tables ---- */

/* What is scored by which caches. */
struct work {
    const char *file; /* NULL: synthetic text */
    size_t n, n_ids;
    const char *const *ids;
};

static void print_rows(const struct work *work, void (*print)(const char *, bench_stream *)) {
    for (size_t i = 0; i < work->n_ids; i++)
        for (uint32_t V = 256; V <= 1024; V *= 4) {
            if (work->file != NULL && V > 256) continue;
            bench_stream stream = work->file != NULL ? bench_stream_file(work->file, work->n)
                                                     : bench_stream_synthetic(V, work->n);
            print(work->ids[i], &stream);
            bench_stream_free(&stream);
        }
}

static void print_tables(const struct work *work) {
    printf(
        "Processor time, each piece at its best; microseconds a token on one thread unless it says "
        "otherwise.\n");
    printf(
        "| cache        |    V | rows  |  tokens | M tok/s | two thr. | cache | update |  host |  "
        "rows |  nats |  change | entries | audit |  MiB |\n");
    printf(
        "| ------------ | ---: | ----- | ------: | ------: | -------: | ----: | -----: | ----: | "
        "----: | ----: | ------: | ------: | ----: | ---: |\n");
    print_rows(work, bench);
    printf("\nIn the host's process and in one of its own, by the wall clock: M tokens/s, how many "
           "times as long, microseconds a token more.\n");
    printf("| cache        |    V | rows  |  tokens | M tok/s | isolated | times | us more  |\n");
    printf("| ------------ | ---: | ----- | ------: | ------: | -------: | ----: | -------: |\n");
    print_rows(work, bench_apart);
}

int main(int argc, char **argv) {
    static const char *const usual[] = {"none", "ngram_counts", "ngram", "tilt", "ngram_hashed"};
    if (argc > 1 && strcmp(argv[1], CACHE_CHILD_VERB) == 0)
        return cache_child_main(argc - 1, argv + 1);
    fw_error error = {.struct_size = sizeof error};
    struct host *host = NULL;
    stop_on(host_create(&(struct host_options){0}, &host, &error), &error);
    services = host_table(host);
    bench_use_thread_clock();
    print_tables(&(struct work){
        .file = argc > 1 ? argv[1] : NULL,
        .n = argc > 2 ? (size_t)strtoull(argv[2], NULL, 10) : 200000,
        .ids = argc > 3 ? (const char *const *)argv + 3 : usual,
        .n_ids = argc > 3 ? (size_t)argc - 3 : sizeof usual / sizeof *usual,
    });
    host_destroy(host);
    return 0;
}
