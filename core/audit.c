#include "audit.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "prediction.h"
#include "random.h"

enum {
    FEWEST_SAMPLES = 128,
    LONGEST_STEP = 4096, /* positions from one sample to the next */
    TWIN_SHARE = 256,    /* the twin accompanies one position in so many, when not all */
    SHORTEST_TWIN = 256,
    LONGEST_TWIN = 4096,
    PRELUDE = 48 /* positions of the stream that a twin reads before the real one */
};

static const double SUM_TOLERANCE = 1e-9;

/* What the cache left in the host's buffers for one statement. */
struct kept {
    uint32_t n, form;
    uint32_t *tokens;
    double *values; /* those of the list, or the dense ones */
};

struct cache_audit {
    struct cache_audit_options options;
    uint64_t every;
    struct cache_watcher watcher, twin_watcher;
    bool sampled;           /* the position that is scored now */
    uint64_t begin, sample; /* of the step at hand, and its sampled position */
    double *full;           /* V */
    struct kept kept;
    struct prediction_buffers *own; /* for statements of the host's that change nothing */
    fw_host quiet;                  /* the host, but that it takes no note of effects */
    struct cache_stream *twin;      /* NULL: no longer, or none */
    uint64_t twin_left;
    uint64_t digest, twin_digest; /* of this position's statements */
    struct probe *sum, *target, *before_update, *zero_weight, *replay;
};

/* ---- sampling ---- */

uint64_t audit_sample_every(uint64_t targets) {
    const uint64_t every = targets / FEWEST_SAMPLES;
    return every < 1 ? 1 : every > LONGEST_STEP ? LONGEST_STEP : every;
}

uint64_t audit_sample(uint64_t seed, uint64_t every, uint64_t step) {
    struct random random = random_seeded(seed + step);
    return step * every + random_below(&random, every);
}

static bool is_sampled(struct cache_audit *a, uint64_t position) {
    if (position - a->begin >= a->every) {
        const uint64_t step = position / a->every;
        a->begin = step * a->every;
        a->sample = audit_sample(a->options.seed, a->every, step);
    }
    return position == a->sample;
}

/* ---- digests ---- */

static uint64_t mix_word(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return hash ^ (hash >> 32);
}

static uint64_t mix_values(uint64_t hash, const double *values, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uint64_t bits = 0;
        memcpy(&bits, &values[i], sizeof bits);
        hash = mix_word(hash, bits);
    }
    return hash;
}

fw_status statement_digest(const struct cache_statement *statement, double *scratch,
                           uint64_t *digest, fw_error *error) {
    const struct prediction_buffers *buffers = statement->buffers;
    const fw_prediction *stated = statement->prediction;
    uint64_t hash = mix_word(statement->row->position, stated->form);
    if (stated->form == FW_PREDICT_DENSE) {
        hash = mix_values(hash, buffers->dense, buffers->vocabulary);
    } else if (stated->form == FW_PREDICT_UNVERIFIED) {
        FW_TRY(prediction_full(statement->buffers, statement->row, stated, scratch, error));
        hash = mix_values(hash, scratch, buffers->vocabulary);
    } else {
        if (stated->form == FW_PREDICT_MIX) hash = mix_values(hash, &stated->lm_weight, 1);
        for (uint32_t i = 0; i < stated->n; i++) hash = mix_word(hash, buffers->tokens[i]);
        hash = mix_values(hash, buffers->values, stated->n);
    }
    *digest = hash;
    return FW_OK;
}

/* ---- probes of one statement ---- */

static void probe_sum(struct cache_audit *a, const struct cache_statement *statement) {
    const uint32_t V = statement->row->vocabulary;
    const unsigned long long position = statement->row->position;
    double sum = 0;
    a->sum->positions++;
    for (uint32_t v = 0; v < V; v++) {
        sum += a->full[v];
        if (!(a->full[v] >= 0))
            probe_fail(a->sum, "position %llu: token %u has the probability %g", position, v,
                       a->full[v]);
    }
    if (!(fabs(sum - 1) <= SUM_TOLERANCE))
        probe_fail(a->sum, "position %llu: the probabilities sum to %.9g; 1 would be right",
                   position, sum);
}

static void probe_target(struct cache_audit *a, const struct cache_statement *statement) {
    const double among_all = a->full[statement->target];
    a->target->positions++;
    if (among_all != statement->probability)
        probe_fail(a->target,
                   "position %llu: token %u, the target, has the probability %.9g when it is "
                   "scored and %.9g among all tokens; one answer would be right",
                   (unsigned long long)statement->row->position, statement->target,
                   statement->probability, among_all);
}

static void probe_identity(struct cache_audit *a, const fw_row *row, const fw_prediction *statement,
                           const char *what) {
    const unsigned long long position = row->position;
    fw_error why = {.struct_size = sizeof why};
    if (prediction_full(a->own, row, statement, a->full, &why) != FW_OK)
        probe_fail(a->zero_weight, "%s: %s", what, why.message);
    for (uint32_t v = 0; v < row->vocabulary; v++)
        if (a->full[v] != row->probabilities[v])
            probe_fail(a->zero_weight,
                       "position %llu: %s gives token %u %.17g instead of the model's %.17g",
                       position, what, v, a->full[v], row->probabilities[v]);
}

/* Of the host's own arithmetic: what changes nothing leaves the model's row as it is. */
static void probe_zero_weight(struct cache_audit *a, const fw_row *row) {
    fw_prediction statement;
    prediction_prepare(a->own, &statement);
    a->zero_weight->positions++;
    statement.form = FW_PREDICT_MIX;
    statement.lm_weight = 1;
    probe_identity(a, row, &statement, "weight 1 for the model");
    statement.form = FW_PREDICT_TILT;
    statement.n = row->vocabulary;
    for (uint32_t v = 0; v < row->vocabulary; v++) {
        a->own->tokens[v] = v;
        a->own->values[v] = 1;
    }
    probe_identity(a, row, &statement, "a gain of 1 for all");
}

static void keep(struct cache_audit *a, const struct cache_statement *statement) {
    const struct prediction_buffers *buffers = statement->buffers;
    const bool dense = statement->prediction->form == FW_PREDICT_DENSE;
    struct kept *kept = &a->kept;
    kept->form = statement->prediction->form;
    kept->n = dense ? buffers->vocabulary : statement->prediction->n;
    if (kept->form == FW_PREDICT_UNVERIFIED) kept->n = 0; /* it has no list */
    memcpy(kept->values, dense ? buffers->dense : buffers->values, kept->n * sizeof(double));
    if (!dense) memcpy(kept->tokens, buffers->tokens, kept->n * sizeof(uint32_t));
}

static void probe_before_update(struct cache_audit *a, const struct cache_statement *statement) {
    const struct kept *kept = &a->kept;
    const struct prediction_buffers *buffers = statement->buffers;
    const bool dense = kept->form == FW_PREDICT_DENSE;
    const double *values = dense ? buffers->dense : buffers->values;
    a->before_update->positions++;
    for (uint32_t i = 0; i < kept->n; i++) {
        const uint32_t token = dense ? i : kept->tokens[i];
        if (dense || token == buffers->tokens[i])
            if (memcmp(&values[i], &kept->values[i], sizeof values[i]) == 0) continue;
        probe_fail(a->before_update,
                   "position %llu: once told that token %u came, the cache rewrote what it had "
                   "stated: %.9g for token %u became %.9g for token %u",
                   (unsigned long long)statement->row->position, statement->target, kept->values[i],
                   token, values[i], dense ? i : buffers->tokens[i]);
        return;
    }
}

/* ---- watching ---- */

static fw_status stated(void *self, const struct cache_statement *statement, fw_error *error) {
    struct cache_audit *a = self;
    if (a->twin != NULL) FW_TRY(statement_digest(statement, a->full, &a->digest, error));
    if (!a->sampled) return FW_OK;
    keep(a, statement);
    FW_TRY(
        prediction_full(statement->buffers, statement->row, statement->prediction, a->full, error));
    probe_sum(a, statement);
    probe_target(a, statement);
    probe_zero_weight(a, statement->row);
    return FW_OK;
}

static fw_status told(void *self, const struct cache_statement *statement, fw_error *error) {
    struct cache_audit *a = self;
    (void)error;
    if (a->sampled) probe_before_update(a, statement);
    return FW_OK;
}

/* ---- the twin ---- */

static fw_status twin_stated(void *self, const struct cache_statement *statement, fw_error *error) {
    struct cache_audit *a = self;
    return statement_digest(statement, a->full, &a->twin_digest, error);
}

static fw_status twin_told(void *self, const struct cache_statement *statement, fw_error *error) {
    (void)self, (void)statement, (void)error;
    return FW_OK;
}

static void end_twin(struct cache_audit *a) {
    cache_stream_close(a->twin);
    a->twin = NULL;
}

/* Another stream, of random tokens and rows that know nothing, which begin() must forget. */
static fw_status play_prelude(struct cache_audit *a, fw_error *error) {
    const uint32_t V = a->options.table->vocabulary;
    struct random random = random_seeded(a->options.seed + 1);
    uint32_t tokens[PRELUDE + 1] = {(uint32_t)random_below(&random, V)};
    for (uint32_t v = 0; v < V; v++) a->full[v] = 1.0 / V;
    for (uint32_t t = 0; t < PRELUDE; t++) {
        const fw_row row = {.struct_size = sizeof row,
                            .vocabulary = V,
                            .position = t,
                            .probabilities = a->full,
                            .entropy = cache_stream_needs_entropy(a->twin) ? log(V) : -1,
                            .context = tokens,
                            .n_context = t + 1};
        double nats = 0;
        tokens[t + 1] = (uint32_t)random_below(&random, V);
        FW_TRY(cache_stream_score(a->twin, &row, tokens[t + 1], &nats, error));
    }
    return cache_stream_begin(a->twin, error);
}

/* What a twin achieves is no effect of the run's. */
static void ignore_effect(const fw_host *host, const char *name, double size) {
    (void)host, (void)name, (void)size;
}

static fw_status begin_twin(struct cache_audit *a, fw_error *error) {
    const struct cache_audit_options *o = &a->options;
    const struct cache_conditions conditions = {.asked_twice = true, .decoys = o->seed | 1};
    a->quiet = *o->host;
    a->quiet.effect = ignore_effect;
    FW_TRY(cache_stream_open(o->choice, &a->quiet, o->table, o->targets, o->allow_unverified,
                             &a->twin, error));
    cache_stream_set_conditions(a->twin, &conditions);
    FW_TRY(play_prelude(a, error));
    a->twin_watcher = (struct cache_watcher){a, twin_stated, twin_told};
    cache_stream_watch(a->twin, &a->twin_watcher);
    return FW_OK;
}

static void open_twin(struct cache_audit *a) {
    const uint64_t targets = a->options.targets;
    uint64_t n = targets / TWIN_SHARE;
    n = n < SHORTEST_TWIN ? SHORTEST_TWIN : n > LONGEST_TWIN ? LONGEST_TWIN : n;
    if (choice_is_unverified(a->options.choice)) n = SHORTEST_TWIN; /* asked about every token */
    a->twin_left = a->options.full || n > targets ? targets : n;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = begin_twin(a, &why);
    if (status == FW_OK) return;
    end_twin(a);
    if (status == FW_E_MEMORY)
        probe_skip(a->replay, "no memory for a second instance");
    else
        probe_fail(a->replay, "a second instance fails: %s", why.message);
}

/* On the row that was just scored. */
static void accompany(struct cache_audit *a, const fw_row *row, uint32_t target) {
    fw_error why = {.struct_size = sizeof why};
    double nats = 0;
    if (cache_stream_score(a->twin, row, target, &nats, &why) != FW_OK) {
        probe_fail(a->replay, "a second instance fails: %s", why.message);
        end_twin(a);
        return;
    }
    a->replay->positions++;
    if (a->digest != a->twin_digest)
        probe_fail(a->replay,
                   "position %llu: a second instance, which had read another stream before and was "
                   "asked twice, answers otherwise; the same bits would be right",
                   (unsigned long long)row->position);
    if (--a->twin_left == 0) end_twin(a);
}

/* ---- lifetime ---- */

static fw_status allocate(struct cache_audit *a, fw_error *error) {
    const uint32_t V = a->options.table->vocabulary;
    a->full = calloc(V, sizeof *a->full);
    a->own = prediction_buffers_create(V);
    a->kept.tokens = calloc(V, sizeof *a->kept.tokens);
    a->kept.values = calloc(V, sizeof *a->kept.values);
    if (a->full != NULL && a->own != NULL && a->kept.tokens != NULL && a->kept.values != NULL)
        return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory for the audit of a cache");
}

static void name_probes(struct cache_audit *a) {
    const struct cache_audit_options *o = &a->options;
    a->sum = verdicts_probe(o->verdicts, o->subject, "sum");
    a->target = verdicts_probe(o->verdicts, o->subject, "target-independence");
    a->before_update = verdicts_probe(o->verdicts, o->subject, "score-before-update");
    a->zero_weight = verdicts_probe(o->verdicts, o->subject, "zero-weight");
    a->replay = verdicts_probe(o->verdicts, o->subject, "replay");
}

fw_status cache_audit_open(const struct cache_audit_options *options, struct cache_audit **audit,
                           fw_error *error) {
    struct cache_audit *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the audit of a cache");
    made->options = *options;
    made->every = options->full ? 1 : audit_sample_every(options->targets);
    made->begin = UINT64_MAX / 2; /* no step yet */
    made->watcher = (struct cache_watcher){made, stated, told};
    const fw_status status = allocate(made, error);
    if (status != FW_OK) {
        cache_audit_close(made);
        return status;
    }
    name_probes(made);
    open_twin(made);
    *audit = made;
    return FW_OK;
}

void cache_audit_close(struct cache_audit *a) {
    if (a == NULL) return;
    end_twin(a);
    prediction_buffers_destroy(a->own);
    free(a->full);
    free(a->kept.tokens);
    free(a->kept.values);
    free(a);
}

/* ---- in place of the stream's own calls ---- */

fw_status cache_audit_score(struct cache_audit *a, struct cache_stream *stream, const fw_row *row,
                            uint32_t target, double *nats, fw_error *error) {
    if (a == NULL) return cache_stream_score(stream, row, target, nats, error);
    a->sampled = is_sampled(a, row->position);
    cache_stream_watch(stream, a->sampled || a->twin != NULL ? &a->watcher : NULL);
    FW_TRY(cache_stream_score(stream, row, target, nats, error));
    if (a->twin != NULL) accompany(a, row, target);
    return FW_OK;
}

/* The twin accompanies the stream's first part alone. */
fw_status cache_audit_begin(struct cache_audit *a, struct cache_stream *stream, fw_error *error) {
    if (a != NULL) end_twin(a);
    return cache_stream_begin(stream, error);
}

fw_status cache_audit_end_window(struct cache_audit *a, struct cache_stream *stream,
                                 fw_error *error) {
    FW_TRY(cache_stream_end_window(stream, error));
    if (a == NULL || a->twin == NULL) return FW_OK;
    fw_error why = {.struct_size = sizeof why};
    if (cache_stream_end_window(a->twin, &why) == FW_OK) return FW_OK;
    probe_fail(a->replay, "a second instance fails: %s", why.message);
    end_twin(a);
    return FW_OK;
}
