#include "probe_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

enum {
    PASSES = 3, /* of a round that is not thorough */
    MOST_ROUNDS = 8,
    MOST_ROWS_BYTES = 1 << 28,
    KINDS = 4 /* of windows around documents */
};

static const double SUM_TOLERANCE = 1e-3;

/* A window as it is read, and the rows of it that are compared: [first, flip]. */
struct probed_window {
    uint64_t start; /* in the stream, for messages */
    int64_t n;      /* tokens; the rest is padding */
    int64_t flip;   /* tokens behind it change; -1: the window is too short */
    int64_t first;
};

struct probing {
    const struct model_probes *probes;
    struct random random;
    const char *what; /* NULL: each probe under its own name; else all under this one */
    int64_t length, most;
    struct probed_window *windows; /* [batch] */
    int32_t *base, *changed;       /* [batch, length] inputs */
    float *rows;                   /* [batch, most, V] of the base pass */
    float *again;                  /* [most, V] */
    struct verdicts *verdicts;
};

double model_probe_rounding(const fw_device *device) {
    return device != NULL && device->compute_dtype == FW_BF16 ? 0.25 : 1e-3;
}

uint64_t model_probe_rounds(const struct windows *windows, int64_t batch) {
    const uint64_t passes = windows_count(windows) / (uint64_t)batch;
    const uint64_t rounds = passes / (100 * PASSES);
    return rounds < 1 ? 1 : rounds > MOST_ROUNDS ? MOST_ROUNDS : rounds;
}

static struct probe *probe_of(struct probing *p, const char *what) {
    return verdicts_probe(p->verdicts, "model", p->what != NULL ? p->what : what);
}

/* ---- windows ---- */

static uint32_t vocabulary(const struct probing *p) { return p->probes->table->vocabulary; }

static int32_t any_token(struct probing *p) {
    return (int32_t)random_below(&p->random, vocabulary(p));
}

static int32_t other_token(struct probing *p, int32_t token) {
    const uint32_t V = vocabulary(p);
    return V > 1 ? (int32_t)(((uint64_t)token + 1 + random_below(&p->random, V - 1)) % V) : token;
}

static void choose_flip(struct probing *p, struct probed_window *window) {
    window->flip = window->n >= 2 ? (int64_t)random_below(&p->random, (uint64_t)window->n - 1) : -1;
    window->first = window->flip + 1 > p->most ? window->flip + 1 - p->most : 0;
}

static void read_stream_windows(struct probing *p, uint64_t round) {
    const struct model_probes *o = p->probes;
    const uint64_t count = windows_count(o->windows);
    for (int64_t b = 0; b < o->batch; b++) {
        uint64_t index = (round * (uint64_t)o->batch + (uint64_t)b) % count;
        if (!o->all_windows) index = random_below(&p->random, count);
        const struct window window = windows_get(o->windows, index);
        p->windows[b] = (struct probed_window){.start = window.start, .n = (int64_t)window.n};
        choose_flip(p, &p->windows[b]);
        int32_t *inputs = p->base + b * p->length;
        for (int64_t i = 0; i < p->length; i++)
            inputs[i] = i < (int64_t)window.n ? o->tokens[window.start + (uint64_t)i] : 0;
    }
}

/* Kinds of windows around documents, in turn. */
static void fill_edges(struct probing *p, int64_t kind, int32_t *inputs) {
    const int32_t begin = (int32_t)token_table_begin(p->probes->table);
    const int64_t half = p->length / 2;
    for (int64_t i = 0; i < p->length; i++) {
        switch (kind % KINDS) {
        case 0: inputs[i] = begin; break;                             /* documents of nothing */
        case 1: inputs[i] = i % 2 == 0 ? begin : any_token(p); break; /* of one token */
        default: inputs[i] = i == 0 || i == half ? begin : any_token(p);
        }
    }
}

/* Windows 2 and 3 of four hold two documents, in either order, where they are in one batch. */
static void make_edge_windows(struct probing *p, int64_t round) {
    for (int64_t b = 0; b < p->probes->batch; b++) {
        const int64_t kind = round * p->probes->batch + b;
        int32_t *inputs = p->base + b * p->length;
        p->windows[b] = (struct probed_window){.n = p->length};
        choose_flip(p, &p->windows[b]);
        fill_edges(p, kind, inputs);
        if (kind % KINDS != KINDS - 1 || b == 0) continue;
        const int64_t half = p->length / 2;
        memcpy(inputs, inputs - p->length + half, (size_t)half * sizeof *inputs);
        memcpy(inputs + half, inputs - p->length, (size_t)half * sizeof *inputs);
    }
}

/* ---- passes ---- */

static float *row_of(struct probing *p, int64_t b) {
    return p->rows + (size_t)(b * p->most) * vocabulary(p);
}

static fw_status fetch(struct probing *p, int64_t slot, const struct probed_window *window,
                       float *rows, fw_error *error) {
    const struct language_model *model = &p->probes->model;
    const int64_t most = model->most_rows > 0 ? model->most_rows : p->length;
    const int64_t end = slot * p->length + window->flip + 1;
    for (int64_t first = slot * p->length + window->first; first < end; first += most) {
        const int64_t n = end - first < most ? end - first : most;
        FW_TRY(model->log_probabilities(model->self, first, n, rows, error));
        rows += n * (int64_t)vocabulary(p);
    }
    return FW_OK;
}

static fw_status infer(struct probing *p, const int32_t *inputs, fw_error *error) {
    const struct language_model *model = &p->probes->model;
    return model->infer(model->self, inputs, p->probes->batch, p->length, error);
}

static void check_sums(struct probing *p, const struct probed_window *window, const float *rows) {
    struct probe *probe = probe_of(p, "row-sums");
    const uint32_t V = vocabulary(p);
    for (int64_t i = window->first; i <= window->flip; i++, rows += V) {
        double sum = 0;
        for (uint32_t v = 0; v < V; v++) sum += exp((double)rows[v]);
        probe->positions++;
        if (!(fabs(sum - 1) <= SUM_TOLERANCE))
            probe_fail(probe, "position %llu: the model's probabilities sum to %.9g",
                       (unsigned long long)(window->start + (uint64_t)i), sum);
    }
}

static fw_status read_base(struct probing *p, fw_error *error) {
    FW_TRY(infer(p, p->base, error));
    for (int64_t b = 0; b < p->probes->batch; b++) {
        if (p->windows[b].flip < 0) continue;
        FW_TRY(fetch(p, b, &p->windows[b], row_of(p, b), error));
        check_sums(p, &p->windows[b], row_of(p, b));
    }
    return FW_OK;
}

/* What is compared: window `from` of the base pass with what was read last in place `slot`. */
struct comparison {
    const char *what, *words; /* the probe, and what had been changed */
    int64_t from, slot;
    double rounding; /* 0: bit for bit */
};

static fw_status compare(struct probing *p, const struct comparison *c, fw_error *error) {
    const struct probed_window *window = &p->windows[c->from];
    struct probe *probe = probe_of(p, c->what);
    const uint32_t V = vocabulary(p);
    if (window->flip < 0) return FW_OK;
    FW_TRY(fetch(p, c->slot, window, p->again, error));
    for (int64_t i = 0; i <= window->flip - window->first; i++) {
        const float *a = row_of(p, c->from) + (size_t)i * V, *b = p->again + (size_t)i * V;
        probe->positions++;
        if (memcmp(a, b, V * sizeof *a) == 0) continue;
        for (uint32_t v = 0; v < V; v++)
            if (!(fabs((double)a[v] - (double)b[v]) <= c->rounding))
                probe_fail(probe,
                           "position %llu: with %s, the log-probability of token %u goes from %.7g "
                           "to %.7g (row %lld of its window, changed behind row %lld)",
                           (unsigned long long)(window->start + (uint64_t)(window->first + i)),
                           c->words, v, (double)a[v], (double)b[v], (long long)(window->first + i),
                           (long long)window->flip);
    }
    return FW_OK;
}

static fw_status flip_future(struct probing *p, fw_error *error) {
    const size_t all = (size_t)(p->probes->batch * p->length);
    memcpy(p->changed, p->base, all * sizeof *p->changed);
    for (int64_t b = 0; b < p->probes->batch; b++)
        for (int64_t i = p->windows[b].flip + 1; i < p->length && p->windows[b].flip >= 0; i++)
            p->changed[b * p->length + i] = other_token(p, p->base[b * p->length + i]);
    FW_TRY(infer(p, p->changed, error));
    for (int64_t b = 0; b < p->probes->batch; b++) {
        const struct comparison c = {"future-flip", "other tokens behind it", b, b, 0};
        FW_TRY(compare(p, &c, error));
    }
    return FW_OK;
}

/* Every second window stays, from a random one on; of a single one, all. */
static fw_status change_others(struct probing *p, fw_error *error) {
    const int64_t batch = p->probes->batch;
    const int64_t stays = batch > 1 ? (int64_t)random_below(&p->random, 2) : 0;
    memcpy(p->changed, p->base, (size_t)(batch * p->length) * sizeof *p->changed);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < p->length && b % 2 != stays; i++)
            p->changed[b * p->length + i] = other_token(p, p->base[b * p->length + i]);
    FW_TRY(infer(p, p->changed, error));
    for (int64_t b = stays; b < batch; b += 2) {
        const struct comparison c = {
            "batch-independence", "other windows in its batch, and another pass before", b, b, 0};
        FW_TRY(compare(p, &c, error));
    }
    return FW_OK;
}

static fw_status move_windows(struct probing *p, fw_error *error) {
    const int64_t batch = p->probes->batch;
    if (batch == 1) {
        probe_skip(probe_of(p, "batch-position"),
                   "one window is read at a time: there is one place");
        return FW_OK;
    }
    for (int64_t b = 0; b < batch; b++)
        memcpy(p->changed + (b + 1) % batch * p->length, p->base + b * p->length,
               (size_t)p->length * sizeof *p->changed);
    FW_TRY(infer(p, p->changed, error));
    for (int64_t b = 0; b < batch; b++) {
        const struct comparison c = {"batch-position", "its window in another place of the batch",
                                     b, (b + 1) % batch, p->probes->rounding};
        FW_TRY(compare(p, &c, error));
    }
    return FW_OK;
}

static fw_status probe_round(struct probing *p, bool moved, fw_error *error) {
    FW_TRY(read_base(p, error));
    FW_TRY(flip_future(p, error));
    FW_TRY(change_others(p, error));
    return moved ? move_windows(p, error) : FW_OK;
}

/* ---- the whole ---- */

static fw_status allocate(struct probing *p, fw_error *error) {
    const size_t batch = (size_t)p->probes->batch, V = vocabulary(p);
    const size_t fit = MOST_ROWS_BYTES / (batch * V * sizeof(float));
    if (p->most > (int64_t)fit) p->most = fit > 0 ? (int64_t)fit : 1;
    p->windows = calloc(batch, sizeof *p->windows);
    p->base = calloc(batch * (size_t)p->length, sizeof *p->base);
    p->changed = calloc(batch * (size_t)p->length, sizeof *p->changed);
    p->rows = malloc(batch * (size_t)p->most * V * sizeof *p->rows);
    p->again = malloc((size_t)p->most * V * sizeof *p->again);
    if (p->windows != NULL && p->base != NULL && p->changed != NULL && p->rows != NULL &&
        p->again != NULL)
        return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory to probe a model");
}

static fw_status probe_all(struct probing *p, fw_error *error) {
    for (uint64_t round = 0; round < p->probes->rounds; round++) {
        read_stream_windows(p, round);
        FW_TRY(probe_round(p, p->probes->thorough, error));
    }
    if (!p->probes->thorough) return FW_OK;
    p->what = "document-edges";
    for (int64_t round = 0; round * p->probes->batch < KINDS; round++) {
        make_edge_windows(p, round);
        FW_TRY(probe_round(p, false, error));
    }
    return FW_OK;
}

fw_status model_probe(const struct model_probes *probes, struct verdicts *verdicts,
                      fw_error *error) {
    const int64_t length = (int64_t)probes->windows->length;
    struct probing p = {.probes = probes,
                        .random = random_seeded(probes->seed),
                        .length = length,
                        .most = probes->rows > 0 && probes->rows < length ? probes->rows : length,
                        .verdicts = verdicts};
    fw_status status = allocate(&p, error);
    if (status == FW_OK) status = probe_all(&p, error);
    free(p.windows);
    free(p.base);
    free(p.changed);
    free(p.rows);
    free(p.again);
    return status;
}
