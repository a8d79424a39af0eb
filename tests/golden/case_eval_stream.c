/* Each line is an INI of its own, resolved and run as any other. */
#include "case_eval_stream.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "evaluate.h"
#include "folder.h"
#include "session.h"
#include "shard.h"

struct stream {
    const char *directory;
    uint32_t vocabulary;
    uint64_t n_tokens;
    uint16_t *tokens;
    fw_token_info *info;
    int32_t *target_bytes;
};

/* ---- the folder ---- */

/* A copy of a vector, which the caller frees. */
static fw_status read_vector(const struct folder *folder, const char *name, uint32_t dtype,
                             void **data, int64_t *n, fw_error *error) {
    const struct array *array = folder_find(folder, name);
    if (array == NULL || array->dtype != dtype || array->rank != 1 || array->count == 0 ||
        array->count > INT32_MAX)
        return fw_fail(error, FW_E_FORMAT,
                       "%s/manifest.txt has no vector %s of elements of %zu bytes", folder->path,
                       name, fw_dtype_size(dtype));
    *data = malloc(array->bytes);
    if (*data == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for %s", name);
    memcpy(*data, array->data, array->bytes);
    *n = array->count;
    return FW_OK;
}

static fw_status read_table(struct stream *s, const struct folder *folder, fw_error *error) {
    void *bytes = NULL, *space = NULL, *boundary = NULL;
    int64_t n = 0, n_space = 0, n_boundary = 0;
    fw_status status = read_vector(folder, "lut/base_bytes", FW_I32, &bytes, &n, error);
    if (status == FW_OK)
        status = read_vector(folder, "lut/leading_space", FW_U8, &space, &n_space, error);
    if (status == FW_OK)
        status = read_vector(folder, "lut/boundary", FW_U8, &boundary, &n_boundary, error);
    if (status == FW_OK && (n_space != n || n_boundary != n))
        status =
            fw_fail(error, FW_E_FORMAT, "%s: the vectors lut/... differ in length", s->directory);
    if (status == FW_OK) {
        s->vocabulary = (uint32_t)n;
        s->info = calloc((size_t)n, sizeof *s->info);
        if (s->info == NULL) status = fw_fail(error, FW_E_MEMORY, "no memory for a token table");
    }
    for (int64_t v = 0; status == FW_OK && v < n; v++)
        s->info[v] = (fw_token_info){.struct_size = sizeof s->info[v],
                                     .base_bytes = (uint16_t)((const int32_t *)bytes)[v],
                                     .leading_space = ((const uint8_t *)space)[v],
                                     .boundary = ((const uint8_t *)boundary)[v]};
    free(bytes);
    free(space);
    free(boundary);
    return status;
}

static struct token_table table_of(const struct stream *s) {
    return (struct token_table){.vocabulary = s->vocabulary, .begin_token = -1, .tokens = s->info};
}

static fw_status check_bytes(const struct stream *s, fw_error *error) {
    const struct token_table table = table_of(s);
    for (uint64_t i = 0; i < s->n_tokens; i++)
        if (s->tokens[i] >= s->vocabulary)
            return fw_fail(error, FW_E_FORMAT, "%s: token %u is outside lut/...", s->directory,
                           s->tokens[i]);
    for (uint64_t i = 0; i + 1 < s->n_tokens; i++) {
        const uint32_t bytes = token_table_bytes(&table, s->tokens[i], s->tokens[i + 1]);
        if (bytes != (uint32_t)s->target_bytes[i])
            return fw_fail(error, FW_E_FORMAT,
                           "%s: target %" PRIu64 " has %d bytes, but the table gives it %u",
                           s->directory, i, s->target_bytes[i], bytes);
    }
    return FW_OK;
}

static fw_status read_arrays(struct stream *s, const struct folder *folder, fw_error *error) {
    int64_t n = 0, targets = 0;
    void *data = NULL;
    FW_TRY(read_vector(folder, "tokens", FW_U16, &data, &n, error));
    s->tokens = data;
    s->n_tokens = (uint64_t)n;
    FW_TRY(read_vector(folder, "token_bytes_of_targets", FW_I32, &data, &targets, error));
    s->target_bytes = data;
    if (targets + 1 != n)
        return fw_fail(error, FW_E_FORMAT, "%s: %" PRId64 " targets of %" PRId64 " tokens",
                       s->directory, targets, n);
    FW_TRY(read_table(s, folder, error));
    return check_bytes(s, error);
}

static fw_status read_stream(struct stream *s, fw_error *error) {
    struct folder folder;
    FW_TRY(folder_open(s->directory, &folder, error));
    const fw_status status = read_arrays(s, &folder, error);
    folder_close(&folder);
    return status;
}

static fw_status open_results(const struct stream *s, FILE **file, fw_error *error) {
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/results.txt", s->directory);
    *file = fopen(path, "r");
    return *file != NULL ? FW_OK : fw_fail(error, FW_E_IO, "%s: cannot be read", path);
}

/* ---- the language model ---- */

enum { PERIOD = 1009 };

struct waves {
    uint32_t vocabulary;
    int32_t *inputs; /* of the batch read last */
    int64_t room;
    float logits[PERIOD];
    double exponentials[PERIOD];
};

static void make_waves(struct waves *waves, uint32_t vocabulary) {
    *waves = (struct waves){.vocabulary = vocabulary};
    for (int i = 0; i < PERIOD; i++) {
        waves->logits[i] = (float)(4 * sin(0.1 * i));
        waves->exponentials[i] = exp((double)waves->logits[i]);
    }
}

static fw_status read_inputs(void *self, const int32_t *inputs, int64_t batch, int64_t tokens,
                             fw_error *error) {
    struct waves *waves = self;
    const int64_t n = batch * tokens;
    if (n > waves->room) {
        free(waves->inputs);
        waves->inputs = malloc((size_t)n * sizeof *waves->inputs);
        waves->room = waves->inputs != NULL ? n : 0;
    }
    if (n > waves->room) return fw_fail(error, FW_E_MEMORY, "no memory for inputs");
    memcpy(waves->inputs, inputs, (size_t)n * sizeof *inputs);
    return FW_OK;
}

static fw_status write_rows(void *self, int64_t first, int64_t n, float *host, fw_error *error) {
    (void)error;
    const struct waves *waves = self;
    for (int64_t i = 0; i < n; i++, host += waves->vocabulary) {
        const uint32_t from = 31 * (uint32_t)waves->inputs[first + i];
        double sum = 0;
        for (uint32_t b = 0; b < waves->vocabulary; b++)
            sum += waves->exponentials[(from + 17 * b) % PERIOD];
        const double log_sum = log(sum);
        for (uint32_t b = 0; b < waves->vocabulary; b++)
            host[b] = (float)((double)waves->logits[(from + 17 * b) % PERIOD] - log_sum);
    }
    return FW_OK;
}

/* ---- a line ---- */

static bool whole(const char *rest, const char *name) { return rest == name + strlen(name); }

/* The keys of [cache] for what follows "hashed_ngram_" in a name. */
static bool cache_keys(const char *kind, char *keys, size_t size) {
    static const struct {
        const char *format, *keys;
    } forms[] = {
        {"adaptive_%dto%d%n", "alpha = sigmoid_raw_entropy\nmin_order = %d\nmax_order = %d\n"},
        {"linear_%dto%d%n", "alpha = linear\nmin_order = %d\nmax_order = %d\n"},
        {"fixed_alpha_%dto%d%n", "alpha = fixed\nmin_order = %d\nmax_order = %d\n"},
    };
    int a = 0, b = 0, n = -1;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++, n = -1)
        if (sscanf(kind, forms[i].format, &a, &b, &n) >= 2 && n > 0 && whole(kind + n, kind)) {
            (void)snprintf(keys, size, forms[i].keys, a, b);
            return true;
        }
    if (sscanf(kind, "order%d_only%n", &a, &n) >= 1 && n > 0 && whole(kind + n, kind)) {
        (void)snprintf(keys, size, "min_order = %d\nmax_order = %d\n", a, a);
        return true;
    }
    n = -1;
    if (sscanf(kind, "small_table_%d%n", &a, &n) >= 1 && n > 0 && whole(kind + n, kind)) {
        (void)snprintf(keys, size, "table_size = %d\n", a);
        return true;
    }
    return false;
}

static bool write_ini(const char *name, char *ini, size_t size) {
    int window = 2048, stride = 64, n = -1;
    char keys[256] = "";
    const char *plugin = "none";
    if (strncmp(name, "hashed_ngram_", 13) == 0) {
        plugin = "ngram_hashed";
        if (!cache_keys(name + 13, keys, sizeof keys)) return false;
    } else if (sscanf(name, "sliding_seq%d_stride%d%n", &window, &stride, &n) < 2 || n < 0 ||
               !whole(name + n, name)) {
        return false;
    }
    (void)snprintf(ini, size,
                   "[eval]\nmode = sliding\nfaithful = yes\non_violation = report\n"
                   "window = %d\nstride = %d\n[cache]\nplugin = %s\n%s"
                   "[counterpart]\nplugin = none\n",
                   window, stride, plugin, keys);
    return true;
}

static fw_status score(const struct stream *s, const struct session *session,
                       const struct corpus *corpus, struct eval_stream_line *line,
                       fw_error *error) {
    struct waves waves;
    make_waves(&waves, s->vocabulary);
    struct progress quiet = {.interval = 1e9};
    const struct token_table table = table_of(s);
    const struct evaluate_options options = {.experiment = session->experiment,
                                             .host = session->services,
                                             .model = {&waves, read_inputs, write_rows},
                                             .corpus = corpus,
                                             .table = &table,
                                             .mode = EVAL_SLIDING,
                                             .with_cache =
                                                 choice_is_on(&session->experiment->cache),
                                             .label = "eval_stream",
                                             .progress = &quiet};
    struct evaluate_result result;
    const fw_status status = evaluate(&options, &result, error);
    free(waves.inputs);
    FW_TRY(status);
    const struct score *made = options.with_cache ? &result.cached : &result.model;
    line->loss = made->nats / (double)made->targets;
    line->bpb = made->bpb;
    line->mean_sum = result.mean_sum;
    line->largest_sum = result.largest_sum;
    return FW_OK;
}

static fw_status run_line(const struct stream *s, const struct arguments *arguments,
                          const struct corpus *corpus, struct eval_stream_line *line,
                          fw_error *error) {
    char ini[1024];
    if (!write_ini(line->name, ini, sizeof ini))
        return fw_fail(error, FW_E_FORMAT, "%s/results.txt: no way is known to run %s",
                       s->directory, line->name);
    struct arguments own = arguments != NULL ? *arguments : (struct arguments){0};
    own.n_overrides = 0;
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_CACHE);
    struct session session;
    FW_TRY(session_open(&own, line->name, ini, kinds, &session, error));
    const fw_status status = score(s, &session, corpus, line, error);
    session_close(&session);
    return status;
}

/* ---- the case ---- */

/* Through a shard that is removed as soon as it is mapped. */
static fw_status open_corpus(const struct stream *s, struct corpus **corpus, fw_error *error) {
    char directory[] = "/tmp/eval_stream_XXXXXX", path[64], documents[64];
    if (mkdtemp(directory) == NULL)
        return fw_fail(error, FW_E_IO, "%s: cannot be created", directory);
    (void)snprintf(path, sizeof path, "%s/tokens.bin", directory);
    (void)snprintf(documents, sizeof documents, "%s/tokens.documents", directory);
    const uint8_t zero[32] = {0};
    struct shard_writer *writer = NULL;
    fw_status status = shard_create(path, zero, &writer, error);
    if (status == FW_OK) {
        status = shard_append(writer, s->tokens, s->n_tokens, 0, zero, error);
        if (status == FW_OK)
            status = shard_commit(writer, error);
        else
            shard_abandon(writer);
    }
    const struct corpus_options options = {.source = path};
    if (status == FW_OK) status = corpus_open(&options, corpus, error);
    (void)unlink(path);
    (void)unlink(documents);
    (void)rmdir(directory);
    return status;
}

static fw_status run_lines(const struct stream *s, const struct arguments *arguments,
                           const struct corpus *corpus, FILE *file,
                           void (*visit)(void *argument, const struct eval_stream_line *line),
                           void *argument, fw_error *error) {
    char text[512];
    while (fgets(text, sizeof text, file) != NULL) {
        struct eval_stream_line line = {0};
        if (text[strspn(text, " \t\r\n")] == '\0') continue;
        if (sscanf(text, "%95s val_loss=%lf val_bpb=%lf", line.name, &line.expected_loss,
                   &line.expected_bpb) != 3)
            return fw_fail(error, FW_E_FORMAT,
                           "%s/results.txt: a line is \"NAME val_loss=... val_bpb=...\", not %.60s",
                           s->directory, text);
        FW_TRY(run_line(s, arguments, corpus, &line, error));
        visit(argument, &line);
    }
    return FW_OK;
}

fw_status case_eval_stream(const char *directory, const struct arguments *arguments,
                           void (*visit)(void *argument, const struct eval_stream_line *line),
                           void *argument, fw_error *error) {
    struct stream s = {.directory = directory};
    struct corpus *corpus = NULL;
    FILE *file = NULL;
    fw_status status = open_results(&s, &file, error);
    if (status == FW_OK) status = read_stream(&s, error);
    if (status == FW_OK) status = open_corpus(&s, &corpus, error);
    if (status == FW_OK) status = run_lines(&s, arguments, corpus, file, visit, argument, error);
    if (file != NULL) (void)fclose(file);
    corpus_close(corpus);
    free(s.tokens);
    free(s.info);
    free(s.target_bytes);
    return status;
}
