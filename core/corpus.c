/* A corpus: shards stay where they are mapped, text is tokenized into memory, and both are read as
 * one sequence of tokens through a short table of segments. */
#include "corpus.h"

#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "shard.h"
#include "text_source.h"
#include "tokenize.h"
#include "tokenizer_check.h"

struct segment {
    const uint16_t *tokens;
    uint64_t first, n; /* its place in the corpus */
};

struct corpus {
    struct shard *shards;
    struct segment *segments; /* the shards', then one of text_tokens when there are some */
    size_t n_shards, n_segments, capacity;
    struct token_buffer text_tokens;
    uint64_t tokens, raw_bytes;
    uint64_t loaded; /* tokens of all shards and text read; more than `tokens` when cut short */
    bool documents_known; /* every shard had its documents file */
    struct corpus_document *documents;
    size_t n_documents, documents_capacity;
    char *text;
    size_t text_bytes, text_capacity;
};

static fw_status no_memory(fw_error *error) {
    return fw_fail(error, FW_E_MEMORY, "out of memory loading the corpus");
}

/* ---- Documents and segments ---- */

static fw_status add_document(struct corpus *corpus, const struct corpus_document *document,
                              fw_error *error) {
    if (corpus->n_documents == corpus->documents_capacity) {
        const size_t capacity = corpus->documents_capacity * 2 + 64;
        void *larger = realloc(corpus->documents, capacity * sizeof *corpus->documents);
        if (larger == NULL) return no_memory(error);
        corpus->documents = larger;
        corpus->documents_capacity = capacity;
    }
    corpus->documents[corpus->n_documents++] = *document;
    return FW_OK;
}

static uint64_t tokens_wanted(const struct corpus *corpus, const struct corpus_options *options,
                              uint64_t n) {
    if (options->max_tokens == 0) return n;
    const uint64_t left = options->max_tokens - corpus->tokens;
    return n < left ? n : left;
}

/* Room for one more shard and two more segments (the last may be text). */
static fw_status reserve_segments(struct corpus *corpus, fw_error *error) {
    if (corpus->n_segments + 2 <= corpus->capacity) return FW_OK;
    const size_t capacity = corpus->capacity * 2 + 8;
    void *shards = realloc(corpus->shards, capacity * sizeof *corpus->shards);
    if (shards != NULL) corpus->shards = shards;
    void *segments = realloc(corpus->segments, capacity * sizeof *corpus->segments);
    if (segments != NULL) corpus->segments = segments;
    if (shards == NULL || segments == NULL) return no_memory(error);
    corpus->capacity = capacity;
    return FW_OK;
}

static void add_segment(struct corpus *corpus, const struct corpus_options *options,
                        const uint16_t *tokens, uint64_t n) {
    const uint64_t used = tokens_wanted(corpus, options, n);
    corpus->segments[corpus->n_segments++] = (struct segment){tokens, corpus->tokens, used};
    corpus->tokens += used;
    corpus->loaded += n;
}

/* ---- Shards ---- */

static fw_status check_fingerprint(const struct corpus_options *options, const char *path,
                                   const uint8_t fingerprint[32], fw_error *error) {
    if (options->tokenizer == NULL) return FW_OK;
    uint8_t expected[32];
    options->tokenizer->fingerprint(options->tokenizer_self, expected);
    if (memcmp(expected, fingerprint, sizeof expected) == 0) return FW_OK;
    char found[65], wanted[65];
    sha256_hex(fingerprint, found);
    sha256_hex(expected, wanted);
    return fw_fail(error, FW_E_CONFIG,
                   "%s was made with another tokenizer (fingerprint %.12s...) than that of "
                   "[tokenizer] (%.12s...)",
                   path, found, wanted);
}

static fw_status add_shard_documents(struct corpus *corpus, const struct corpus_options *options,
                                     const struct shard *shard, fw_error *error) {
    struct shard_documents found;
    FW_TRY(documents_read(shard->path, shard->n_tokens, &found, error));
    if (!found.present) corpus->documents_known = false;
    fw_status status =
        found.present ? check_fingerprint(options, shard->path, found.fingerprint, error) : FW_OK;
    for (uint64_t i = 0; status == FW_OK && i < found.n; i++) {
        found.documents[i].first_token += corpus->tokens;
        status = add_document(corpus, &found.documents[i], error);
    }
    documents_free(&found);
    return status;
}

static fw_status add_shard(struct corpus *corpus, const struct corpus_options *options,
                           const char *path, fw_error *error) {
    if (options->max_tokens > 0 && corpus->tokens >= options->max_tokens) return FW_OK;
    FW_TRY(reserve_segments(corpus, error));
    struct shard *shard = &corpus->shards[corpus->n_shards];
    FW_TRY(shard_open(path, shard, error));
    corpus->n_shards++;
    FW_TRY(add_shard_documents(corpus, options, shard, error));
    const uint64_t used = tokens_wanted(corpus, options, shard->n_tokens);
    if (options->vocabulary > 0)
        FW_TRY(tokens_check(path, shard->tokens, used, options->vocabulary, error));
    add_segment(corpus, options, shard->tokens, shard->n_tokens);
    return FW_OK;
}

static bool is_documents_file(const char *path) {
    const size_t length = strlen(path), suffix = strlen(SHARD_DOCUMENTS_SUFFIX);
    return length > suffix && strcmp(path + length - suffix, SHARD_DOCUMENTS_SUFFIX) == 0;
}

static fw_status add_shards(struct corpus *corpus, const struct corpus_options *options,
                            const char *pattern, fw_error *error) {
    if (options->every > 0 && options->part != CORPUS_ALL)
        return fw_fail(error, FW_E_CONFIG,
                       "%s is a token shard, which cannot be split into training and validation "
                       "documents; name a validation source instead, or use text",
                       pattern);
    char **paths;
    size_t n_paths;
    FW_TRY(file_glob(pattern, &paths, &n_paths, error));
    fw_status status = FW_OK;
    for (size_t i = 0; status == FW_OK && i < n_paths; i++)
        if (n_paths == 1 || !is_documents_file(paths[i])) /* "books_*" finds these as well */
            status = add_shard(corpus, options, paths[i], error);
    file_free_paths(paths, n_paths);
    return status;
}

/* ---- Text ---- */

static fw_status keep_text(struct corpus *corpus, const char *text, size_t bytes, fw_error *error) {
    if (corpus->text_capacity - corpus->text_bytes <= bytes) {
        const size_t capacity = corpus->text_capacity * 2 + bytes + 1;
        char *larger = realloc(corpus->text, capacity);
        if (larger == NULL) return no_memory(error);
        corpus->text = larger;
        corpus->text_capacity = capacity;
    }
    memcpy(corpus->text + corpus->text_bytes, text, bytes);
    corpus->text_bytes += bytes;
    return FW_OK;
}

static fw_status add_text_document(struct corpus *corpus, const struct corpus_options *options,
                                   const struct text_source *source, uint64_t index,
                                   struct tokenizer_check *check, fw_error *error) {
    char *text;
    size_t bytes;
    FW_TRY(text_source_read(source, index, &text, &bytes, error));
    struct corpus_document document = {.first_token = corpus->tokens + corpus->text_tokens.n,
                                       .raw_bytes = bytes};
    sha256_bytes(text, bytes, document.hash);
    struct token_buffer *tokens = &corpus->text_tokens;
    const size_t first = tokens->n;
    fw_status status =
        tokenize_document(options->tokenizer, options->tokenizer_self, text, bytes, tokens, error);
    if (status == FW_OK)
        status = tokenizer_check_document(check, text, bytes, tokens->tokens + first,
                                          tokens->n - first, error);
    if (status == FW_OK) status = add_document(corpus, &document, error);
    if (status == FW_OK && options->keep_text) status = keep_text(corpus, text, bytes, error);
    free(text);
    return status;
}

static fw_status add_documents(struct corpus *corpus, const struct corpus_options *options,
                               const struct text_source *source, struct tokenizer_check *check,
                               fw_error *error) {
    const struct text_selection selection = {options->part, options->every, options->shuffle,
                                             options->seed};
    uint64_t *order, n;
    FW_TRY(text_source_order(source, &selection, &order, &n, error));
    fw_status status = FW_OK;
    const struct token_buffer *tokens = &corpus->text_tokens;
    for (uint64_t i = 0; status == FW_OK && i < n; i++) {
        if (options->max_tokens > 0 && corpus->tokens + tokens->n >= options->max_tokens) break;
        status = add_text_document(corpus, options, source, order[i], check, error);
    }
    free(order);
    return status == FW_OK ? tokenizer_check_total(check, error) : status;
}

static fw_status add_text(struct corpus *corpus, const struct corpus_options *options,
                          const struct text_source *source, fw_error *error) {
    struct tokenizer_check *check = NULL;
    struct token_buffer *tokens = &corpus->text_tokens;
    FW_TRY(reserve_segments(corpus, error));
    FW_TRY(tokenizer_check_open(options->tokenizer, options->tokenizer_self, options->table, &check,
                                error));
    const fw_status status = add_documents(corpus, options, source, check, error);
    tokenizer_check_close(check);
    FW_TRY(status);
    if (options->vocabulary > 0)
        FW_TRY(tokens_check("text", tokens->tokens, tokens->n, options->vocabulary, error));
    if (tokens->n > 0) add_segment(corpus, options, tokens->tokens, tokens->n);
    return FW_OK;
}

/* ---- The source ---- */

/* `name` below `base`; the caller frees it. */
static char *join_path(const char *base, const char *name) {
    if (base == NULL || *base == '\0' || name[0] == '/') return strdup(name);
    const size_t size = strlen(base) + strlen(name) + 2;
    char *path = malloc(size);
    if (path != NULL) (void)snprintf(path, size, "%s/%s", base, name);
    return path;
}

static fw_status add_item(struct corpus *corpus, const struct corpus_options *options,
                          struct text_source *texts, const char *item, fw_error *error) {
    enum source_kind kind;
    const char *pattern;
    FW_TRY(corpus_source_parse(item, &kind, &pattern, error));
    const bool is_text = kind != SOURCE_SHARDS;
    if (is_text && options->tokenizer == NULL)
        return fw_fail(error, FW_E_CONFIG, "\"%s\" needs a tokenizer: name one in [tokenizer]",
                       item);
    char *path = join_path(options->base, pattern);
    if (path == NULL) return no_memory(error);
    const fw_status status = is_text ? text_source_add(texts, kind, path, error)
                                     : add_shards(corpus, options, path, error);
    free(path);
    return status;
}

static fw_status load_items(struct corpus *corpus, const struct corpus_options *options,
                            struct text_source *texts, char *items, fw_error *error) {
    static const char separators[] = " ,\t\r\n";
    char *rest = NULL;
    for (char *item = strtok_r(items, separators, &rest); item != NULL;
         item = strtok_r(NULL, separators, &rest))
        FW_TRY(add_item(corpus, options, texts, item, error));
    if (text_source_count(texts) > 0) FW_TRY(add_text(corpus, options, texts, error));
    if (corpus->tokens > 0) return FW_OK;
    if (text_source_count(texts) > 0 && options->part != CORPUS_ALL && options->every > 0)
        return fw_fail(error, FW_E_CONFIG,
                       "holding out every %u-th of %llu documents leaves none for %s",
                       options->every, (unsigned long long)text_source_count(texts),
                       options->part == CORPUS_TRAINING_PART ? "training" : "validation");
    return fw_fail(error, FW_E_FORMAT, "\"%s\" holds no tokens", options->source);
}

/* Drop the documents behind the last token. One that max_tokens cut has unknown bytes: true. */
static bool cut_documents(struct corpus *corpus) {
    size_t n = corpus->n_documents;
    bool whole = false; /* the last one left ends at the last token */
    while (n > 0 && corpus->documents[n - 1].first_token >= corpus->tokens)
        whole = corpus->documents[--n].first_token == corpus->tokens;
    corpus->n_documents = n;
    if (n == 0 || whole) return false;
    corpus->documents[n - 1].raw_bytes = 0;
    return true;
}

static void count_documents(struct corpus *corpus) {
    if (!corpus->documents_known) corpus->n_documents = 0;
    const bool unknown = corpus->loaded > corpus->tokens && cut_documents(corpus);
    for (size_t i = 0; !unknown && i < corpus->n_documents; i++)
        corpus->raw_bytes += corpus->documents[i].raw_bytes;
}

/* Bytes that the table counts for all tokens; the first one follows a boundary. */
static uint64_t count_table_bytes(const struct corpus *corpus, const struct token_table *table) {
    uint64_t bytes = 0;
    bool inner = false;
    for (size_t s = 0; s < corpus->n_segments; s++)
        for (uint64_t i = 0; i < corpus->segments[s].n; i++) {
            const fw_token_info *info = &table->tokens[corpus->segments[s].tokens[i]];
            bytes += info->base_bytes + (info->leading_space && inner ? 1u : 0u);
            inner = !info->boundary;
        }
    return bytes;
}

/* Shards are all that is left of a text, but their documents say how many bytes it had. */
static fw_status check_bytes(const struct corpus *corpus, const struct corpus_options *options,
                             fw_error *error) {
    const struct token_table *table = options->table;
    if (table == NULL || corpus->raw_bytes == 0 || options->vocabulary == 0 ||
        options->vocabulary > table->vocabulary)
        return FW_OK;
    return tokenizer_check_bytes(count_table_bytes(corpus, table), corpus->raw_bytes, error);
}

static fw_status load(struct corpus *corpus, const struct corpus_options *options,
                      fw_error *error) {
    corpus->documents_known = true;
    char *items = strdup(options->source);
    if (items == NULL) return no_memory(error);
    struct text_source *texts = NULL;
    fw_status status = text_source_create(&texts, error);
    if (status == FW_OK) status = load_items(corpus, options, texts, items, error);
    text_source_destroy(texts);
    free(items);
    if (status != FW_OK) return status;
    count_documents(corpus);
    return check_bytes(corpus, options, error);
}

/* Put `where` in front of the message. */
static void locate(const char *where, fw_error *error) {
    if (where == NULL || error == NULL) return;
    char message[sizeof error->message];
    memcpy(message, error->message, sizeof message);
    (void)snprintf(error->message, sizeof error->message, "%.500s: %.510s", where, message);
}

/* A vocabulary of 0 is the tokenizer's. */
static fw_status check_options(struct corpus_options *options, fw_error *error) {
    if (options->vocabulary == 0 && options->tokenizer != NULL)
        options->vocabulary = options->tokenizer->vocabulary(options->tokenizer_self);
    if (options->source[strspn(options->source, " ,\t\r\n")] != '\0') return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "no source is named; write names of shards, text:FILES, jsonl:FILES or "
                   "list:FILE");
}

fw_status corpus_open(const struct corpus_options *given, struct corpus **out, fw_error *error) {
    struct corpus_options options = *given;
    struct corpus *corpus = calloc(1, sizeof *corpus);
    fw_status status = corpus != NULL ? check_options(&options, error) : no_memory(error);
    if (status == FW_OK) status = load(corpus, &options, error);
    if (status == FW_OK) {
        *out = corpus;
        return FW_OK;
    }
    locate(options.where, error);
    corpus_close(corpus);
    return status;
}

fw_status corpus_of_tokens(const uint16_t *tokens, uint64_t n, struct corpus **out,
                           fw_error *error) {
    struct corpus *corpus = calloc(1, sizeof *corpus);
    if (corpus != NULL) corpus->text_tokens.tokens = malloc(n * sizeof *tokens);
    if (corpus == NULL || corpus->text_tokens.tokens == NULL ||
        reserve_segments(corpus, NULL) != FW_OK) {
        corpus_close(corpus);
        return no_memory(error);
    }
    memcpy(corpus->text_tokens.tokens, tokens, n * sizeof *tokens);
    const struct corpus_options all = {.max_tokens = 0};
    add_segment(corpus, &all, corpus->text_tokens.tokens, n);
    *out = corpus;
    return FW_OK;
}

void corpus_close(struct corpus *corpus) {
    if (corpus == NULL) return;
    for (size_t i = 0; i < corpus->n_shards; i++) shard_close(&corpus->shards[i]);
    free(corpus->shards);
    free(corpus->segments);
    free(corpus->text_tokens.tokens);
    free(corpus->documents);
    free(corpus->text);
    free(corpus);
}

/* ---- Reading ---- */

uint64_t corpus_tokens(const struct corpus *corpus) { return corpus->tokens; }

/* The segment that holds `position`. Few enough that halving would gain nothing. */
static size_t find_segment(const struct corpus *corpus, uint64_t position) {
    size_t s = 0;
    while (position - corpus->segments[s].first >= corpus->segments[s].n) s++;
    return s;
}

void corpus_read(const struct corpus *corpus, uint64_t first, uint64_t n, uint16_t *out) {
    uint64_t position = first % corpus->tokens;
    for (size_t s = find_segment(corpus, position); n > 0; s = (s + 1) % corpus->n_segments) {
        const struct segment *segment = &corpus->segments[s];
        if (segment->n == 0) continue;
        const uint64_t offset = position - segment->first, left = segment->n - offset;
        const uint64_t taken = n < left ? n : left;
        memcpy(out, segment->tokens + offset, taken * sizeof *out);
        out += taken;
        n -= taken;
        position = (position + taken) % corpus->tokens;
    }
}

uint64_t corpus_raw_bytes(const struct corpus *corpus) { return corpus->raw_bytes; }

const struct corpus_document *corpus_documents(const struct corpus *corpus, uint64_t *n) {
    *n = corpus->n_documents;
    return corpus->n_documents > 0 ? corpus->documents : NULL;
}

const uint16_t *corpus_shard(const struct corpus *corpus, size_t index, const char **path,
                             uint64_t *n) {
    if (index >= corpus->n_shards) return NULL;
    *path = corpus->shards[index].path;
    *n = corpus->shards[index].n_tokens;
    return corpus->shards[index].tokens;
}

const uint8_t *corpus_text(const struct corpus *corpus, size_t *bytes) {
    *bytes = corpus->text_bytes;
    return (const uint8_t *)corpus->text;
}
