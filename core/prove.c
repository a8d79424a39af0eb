#include "prove.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "next_distribution.h"
#include "proof_pins.h"
#include "prove_readable.h"
#include "prove_score.h"
#include "tokenize.h"

/* How far a file may be from its code length. */
#define MOST_RELATIVE 0.001
#define MOST_BYTES 64.0
enum { PATIENCE = 300 };

struct proving {
    struct prove_options *options;
    struct prove_result *result;
    int artifact; /* descriptor, opened before any plugin's code was loaded */
    struct arguments arguments;
    struct scorer scorer;
    struct session text;
    struct corpus *corpus;
    struct prove_spans *spans;
    struct proof_pins pins;
    struct bytes expected; /* the text */
    struct bytes coded, file;
};

void prove_result_free(struct prove_result *result) {
    bytes_free(&result->text);
    free(result->tokens_found);
}

/* ---- hashes and texts ---- */

/* Tokens are little-endian in memory, as in shards. */
static void hash_tokens(const uint16_t *tokens, uint64_t n, uint8_t hash[32]) {
    sha256_bytes(tokens, n * sizeof *tokens, hash);
}

static fw_status expected_text(struct proving *p, fw_error *error) {
    const struct prove_spans *spans = p->spans;
    p->result->has_text = p->text.tokenizer != NULL;
    for (uint64_t i = 0; p->result->has_text && i < spans->spans; i++)
        FW_TRY(detokenize(p->text.tokenizer, p->text.tokenizer_self,
                          spans->tokens + i * spans->span_tokens, spans->span_tokens, &p->expected,
                          error));
    size_t raw = 0;
    const uint8_t *source = corpus_text(p->corpus, &raw);
    p->result->is_source = spans->whole && spans->span_tokens == corpus_tokens(p->corpus) &&
                           source != NULL && raw == p->expected.size &&
                           (raw == 0 || memcmp(source, p->expected.data, raw) == 0);
    return FW_OK;
}

/* ---- the file ---- */

/* In words, what the file is bound to beside the artifact and its plugins. */
static void keep_binding(struct proving *p) {
    (void)snprintf(p->result->bound_to, sizeof p->result->bound_to,
                   "%.150s, %.150s, run.threads %.20s, this build of fairway",
                   proof_pin_value(&p->pins, "device model"),
                   proof_pin_value(&p->pins, "device libraries"),
                   proof_pin_value(&p->pins, "threads"));
}

static fw_status make_file(struct proving *p, fw_error *error) {
    FW_TRY(proof_pins_collect(&p->scorer, p->result->has_text ? &p->text : NULL, &p->pins, error));
    keep_binding(p);
    struct proof_file file = {.text = p->result->has_text,
                              .n_pins = p->pins.n,
                              .spans = p->spans->spans,
                              .span_tokens = p->spans->span_tokens,
                              .coded = p->coded.data,
                              .coded_bytes = p->coded.size};
    for (uint32_t i = 0; i < p->pins.n; i++) file.pins[i] = proof_pin_code(&p->pins.items[i]);
    memcpy(file.tokens_hash, p->result->tokens_hash, sizeof file.tokens_hash);
    proof_file_write(&file, &p->file);
    if (p->file.failed) return fw_fail(error, FW_E_MEMORY, "no memory for the proof file");
    p->result->file_bytes = p->file.size;
    p->result->header_bytes = p->file.size - p->coded.size;
    return FW_OK;
}

static fw_status check_length(const struct prove_result *result, fw_error *error) {
    const double ideal = result->path_bits / 8;
    if (fabs((double)result->file_bytes - ideal) <= MOST_RELATIVE * ideal + MOST_BYTES)
        return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "the file has %zu bytes, and its code length is %.1f: more than 0.1%% and 64 "
                   "bytes apart",
                   result->file_bytes, ideal);
}

/* ---- the decoder ---- */

enum { MOST_WORDS = 2 * 2 * MAX_ARGUMENTS + 16 };

static void add_word(char **words, size_t *n, const char *word) { words[(*n)++] = (char *)word; }

/* `fairway prove --decoder` with all that the configuration depends on. */
static void decoder_arguments(const struct proving *p, char **words) {
    size_t n = 0;
    add_word(words, &n, "fairway");
    add_word(words, &n, "prove");
    add_word(words, &n, "--decoder");
    for (size_t i = 0; i < p->arguments.n_overrides; i++) {
        add_word(words, &n, "--set");
        add_word(words, &n, p->arguments.overrides[i]);
    }
    for (size_t i = 0; i < p->arguments.n_plugin_directories; i++) {
        add_word(words, &n, "--plugin-dir");
        add_word(words, &n, p->arguments.plugin_directories[i]);
    }
    const struct scored_source *source = &p->options->source;
    if (source->tokenizer != NULL) {
        add_word(words, &n, "--tokenizer");
        add_word(words, &n, source->tokenizer);
    }
    if (source->model != NULL) {
        add_word(words, &n, "--model");
        add_word(words, &n, source->model);
    }
    words[n] = NULL;
}

/* What the jail refused while code was loaded (files) and afterwards (calls). */
static const char *refusals(const struct prove_outcome *outcome, char out[1100]) {
    const char *calls = outcome->refused, *files = outcome->unread;
    (void)snprintf(out, 1100, "%s%s%s", files, files[0] != '\0' && calls[0] != '\0' ? ", " : "",
                   calls);
    return out;
}

static fw_status decode(struct proving *p, uint64_t tokens, struct prove_outcome *outcome,
                        fw_error *error) {
    char *words[MOST_WORDS];
    struct prove_readable readable;
    decoder_arguments(p, words);
    *outcome = (struct prove_outcome){0};
    FW_TRY(prove_readable_list(&p->arguments, p->options->source.model, &readable, error));
    const struct prove_order order = {.arguments = words,
                                      .environment = &p->options->environment,
                                      .artifact = p->artifact,
                                      .proof = p->file.data,
                                      .proof_bytes = p->file.size,
                                      .readable = readable.paths,
                                      .tokens = tokens,
                                      .patience = PATIENCE,
                                      .progress = &p->options->progress};
    const fw_status status = prove_decode(&order, outcome, error);
    p->result->decode_seconds = outcome->seconds;
    (void)refusals(outcome, p->result->refused);
    return status;
}

/* Why a decoder may find other tokens. */
static fw_status other_tokens(const struct prove_outcome *outcome, const char *where,
                              fw_error *error) {
    char all[1100];
    const bool refused = refusals(outcome, all)[0] != '\0';
    return fw_fail(error, FW_E_PROTOCOL,
                   "the decoder finds other tokens than were encoded%s: its predictions are not "
                   "those of the encoder, though it has the same artifact and plugins%s%.500s%s",
                   where,
                   refused ? "; the jail refused it " : "; a plugin keeps what is not told to it",
                   all, refused ? ": a plugin may have asked for what is not in the artifact" : "");
}

static fw_status explained(const struct proving *p, fw_status status,
                           const struct prove_outcome *outcome, const fw_error *why,
                           fw_error *error) {
    char all[1100];
    if (status == FW_OK) return FW_OK;
    if (status == FW_E_FORMAT && outcome->n_tokens > 0) return other_tokens(outcome, "", error);
    const bool refused = refusals(outcome, all)[0] != '\0';
    const char *where = p->result->verified_only ? p->options->proof : "the decoder";
    return fw_fail(error, status, "%.200s: %.400s%s%.300s", where, why->message,
                   refused ? "; the jail refused it " : "", all);
}

static fw_status compare(struct proving *p, const struct prove_outcome *outcome, fw_error *error) {
    const uint64_t n = p->spans->spans * p->spans->span_tokens;
    uint64_t same = 0;
    while (same < n && same < outcome->n_tokens && outcome->tokens[same] == p->spans->tokens[same])
        same++;
    char where[96];
    (void)snprintf(where, sizeof where, " (the first is token %" PRIu64 " of span %" PRIu64 ")",
                   same % p->spans->span_tokens, same / p->spans->span_tokens);
    if (same < n) return other_tokens(outcome, where, error);
    if (outcome->text.size == p->expected.size &&
        (p->expected.size == 0 ||
         memcmp(outcome->text.data, p->expected.data, p->expected.size) == 0))
        return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "the decoder finds the same tokens but another text: the tokenizer does not "
                   "turn tokens into text by themselves alone");
}

static void keep_outcome(struct prove_result *result, struct prove_outcome *outcome) {
    result->text = outcome->text;
    outcome->text = (struct bytes){0};
    result->tokens_found = outcome->tokens;
    outcome->tokens = NULL;
    result->text_bytes = result->text.size;
    sha256_bytes(result->text.data, result->text.size, result->text_hash);
}

static fw_status decode_and_compare(struct proving *p, fw_error *error) {
    struct prove_outcome outcome;
    fw_error why = {.struct_size = sizeof why};
    const fw_status decoded = decode(p, p->spans->spans * p->spans->span_tokens, &outcome, &why);
    fw_status status = explained(p, decoded, &outcome, &why, error);
    if (status == FW_OK) status = compare(p, &outcome, error);
    if (status == FW_OK) keep_outcome(p->result, &outcome);
    prove_outcome_free(&outcome);
    return status;
}

/* ---- both stories ---- */

static fw_status open_artifact(struct proving *p, fw_error *error) {
    const char *path = p->options->artifact;
    p->artifact = open(path, O_RDONLY | O_CLOEXEC);
    if (p->artifact < 0)
        return fw_fail(error, FW_E_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat about;
    if (fstat(p->artifact, &about) == 0) p->result->artifact_bytes = (size_t)about.st_size;
    p->arguments = *p->options->arguments;
    if (p->arguments.n_overrides == MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d --set", MAX_ARGUMENTS - 1);
    p->arguments.overrides[p->arguments.n_overrides++] = "run.deterministic=yes";
    return FW_OK;
}

static void close_all(struct proving *p) {
    if (p->artifact >= 0) (void)close(p->artifact);
    corpus_close(p->corpus);
    session_close(&p->text);
    scorer_close(&p->scorer);
    bytes_free(&p->expected);
    bytes_free(&p->coded);
    bytes_free(&p->file);
}

static fw_status choose_tokens(struct proving *p, fw_error *error) {
    const struct prove_options *options = p->options;
    const int64_t most = p->scorer.session.experiment->eval.max_tokens;
    FW_TRY(options->spans == 0 ? prove_spans_whole(p->corpus, (uint64_t)most, p->spans, error)
                               : prove_spans_sample(p->corpus, options->spans, options->span_tokens,
                                                    options->seed, p->spans, error));
    p->result->spans = p->spans->spans;
    p->result->span_tokens = p->spans->span_tokens;
    p->result->tokens = p->spans->spans * p->spans->span_tokens;
    hash_tokens(p->spans->tokens, p->result->tokens, p->result->tokens_hash);
    return expected_text(p, error);
}

static fw_status score_and_encode(struct proving *p, fw_error *error) {
    struct prove_scoring scoring = {.scorer = &p->scorer,
                                    .spans = p->spans,
                                    .progress = &p->options->progress,
                                    .result = p->result};
    fw_status status = prove_scoring_open(&scoring, error);
    if (status == FW_OK) status = prove_score(&scoring, error);
    if (status == FW_OK) status = prove_encode(&scoring, &p->coded, error);
    prove_scoring_close(&scoring);
    return status;
}

static fw_status write_proof(struct proving *p, fw_error *error) {
    struct prove_options *options = p->options;
    struct file_writer *writer = NULL;
    FW_TRY(open_artifact(p, error));
    FW_TRY(scorer_bind(&p->arguments, options->artifact, &p->scorer, error));
    FW_TRY(distribution_check_cache(&p->scorer.session.experiment->cache, error));
    FW_TRY(scorer_build(options->artifact, &p->scorer, error));
    FW_TRY(scored_corpus_open(&p->arguments, &options->source, &p->scorer, &p->text, &p->corpus,
                              error));
    FW_TRY(choose_tokens(p, error));
    FW_TRY(score_and_encode(p, error));
    FW_TRY(make_file(p, error));
    FW_TRY(check_length(p->result, error));
    FW_TRY(decode_and_compare(p, error));
    FW_TRY(file_create(options->proof, &writer, error));
    const fw_status status = file_append(writer, p->file.data, p->file.size, error);
    if (status == FW_OK) return file_commit(writer, error);
    file_abandon(writer);
    return status;
}

fw_status prove_write(struct prove_options *options, struct prove_spans *spans,
                      struct prove_result *result, fw_error *error) {
    struct proving proving = {.options = options, .result = result, .artifact = -1, .spans = spans};
    *result = (struct prove_result){0};
    const fw_status status = write_proof(&proving, error);
    close_all(&proving);
    if (status != FW_OK) prove_result_free(result);
    return status;
}

static fw_status read_proof(struct proving *p, struct proof_file *file, fw_error *error) {
    const char *path = p->options->proof;
    uint8_t *data = NULL;
    size_t size = 0;
    FW_TRY(file_read(path, 0, &data, &size, error));
    bytes_put(&p->file, data, size);
    free(data);
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = proof_file_read(p->file.data, p->file.size, file, &why);
    if (status != FW_OK) return fw_fail(error, status, "%s: %s", path, why.message);
    p->result->spans = file->spans;
    p->result->span_tokens = file->span_tokens;
    p->result->tokens = file->spans * file->span_tokens;
    p->result->has_text = file->text;
    p->result->file_bytes = size;
    p->result->header_bytes = size - file->coded_bytes;
    return FW_OK;
}

/* What the decoder found has the hash that the file has: all went as when it was written. */
static fw_status check_hash(struct proving *p, const struct proof_file *file,
                            const struct prove_outcome *outcome, fw_error *error) {
    hash_tokens(outcome->tokens, outcome->n_tokens, p->result->tokens_hash);
    if (outcome->n_tokens == p->result->tokens &&
        memcmp(p->result->tokens_hash, file->tokens_hash, sizeof file->tokens_hash) == 0)
        return FW_OK;
    return other_tokens(outcome, "", error);
}

static fw_status decode_unknown(struct proving *p, const struct proof_file *file, fw_error *error) {
    struct prove_outcome outcome;
    fw_error why = {.struct_size = sizeof why};
    const fw_status decoded = decode(p, p->result->tokens, &outcome, &why);
    fw_status status = explained(p, decoded, &outcome, &why, error);
    if (status == FW_OK) status = check_hash(p, file, &outcome, error);
    if (status == FW_OK) keep_outcome(p->result, &outcome);
    prove_outcome_free(&outcome);
    return status;
}

static fw_status verify(struct proving *p, fw_error *error) {
    struct proof_file file;
    FW_TRY(open_artifact(p, error));
    FW_TRY(read_proof(p, &file, error));
    if (!file.text && p->options->source.tokenizer != NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "%s was written without a tokenizer: it proves tokens, and --tokenizer has "
                       "nothing to do",
                       p->options->proof);
    return decode_unknown(p, &file, error);
}

/* No plugin's code is loaded into this process. */
fw_status prove_verify(struct prove_options *options, struct prove_result *result,
                       fw_error *error) {
    struct proving proving = {.options = options, .result = result, .artifact = -1};
    *result = (struct prove_result){.verified_only = true};
    const fw_status status = verify(&proving, error);
    close_all(&proving);
    return status;
}
