/* fairway prove: a text as a file that model and cache wrote, decoded again by a process that has
 * nothing but that file and the artifact. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "files.h"
#include "prove.h"
#include "text.h"

static const char help[] =
    "usage: fairway prove --artifact FILE --data SOURCE [--all | --spans K [--tokens N] [--seed "
    "S]]\n"
    "                     [--tokenizer NAME [--model FILE]] [--proof FILE] [--output TEXT]\n"
    "       fairway prove --artifact FILE --verify PROOF [--tokenizer NAME [--model FILE]]\n"
    "                     [--output TEXT]\n"
    "       both with     [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n\n"
    "Writes the text as bytes with an arithmetic coder that model and cache drive, one token at a\n"
    "time, and has a fresh process decode them: it is given the artifact and those bytes, and a\n"
    "jail (seccomp) keeps files, network and other processes from it. What it decodes must be the\n"
    "text, by its SHA-256. So the text was worth that many bytes to this artifact and its "
    "plugins,\n"
    "whatever a score says; the bytes of a plugin's code count, and `fairway run` states them.\n\n"
    "  --all          all of SOURCE (or eval.max_tokens of it), one stream: the file to hold "
    "against\n"
    "                 the claimed score\n"
    "  --spans K      K spans (default 4) of N tokens (256) sampled by seed S (1337), each begun "
    "cold\n"
    "                 because a decoder knows no text but what it decoded: quick, and more bits "
    "per\n"
    "                 byte than the claim\n"
    "  --proof FILE   where the proof goes (proof.fwp)\n"
    "  --verify FILE  decode a proof without its text: prints bytes, SHA-256 and bits per byte\n"
    "  --output TEXT  write the decoded text (or tokens, uint16, without a tokenizer)\n\n"
    "Text sources need the tokenizer as in `fairway eval`; with shards, name it to prove text\n"
    "rather than tokens. A proof is bound to the device model, build, processor, libraries, "
    "threads\n"
    "and plugins that wrote it: rows that differ in a last bit decode to other text, so a "
    "mismatch\n"
    "is refused and named. run.deterministic = yes is set.\n\n"
    "examples\n"
    "  fairway prove --artifact runs/quickstart/model.fairway --data text:README.md --all\n"
    "  fairway prove --artifact m.fairway --data 'val_*.bin' --spans 8 --proof val.fwp\n"
    "  fairway prove --artifact m.fairway --verify val.fwp\n";

enum { DEFAULT_SPANS = 4, DEFAULT_TOKENS = 256, DEFAULT_SEED = 1337 };

struct words {
    const char *spans, *tokens, *seed, *proof, *verify, *output;
    bool all;
};

/* ---- arguments ---- */

static fw_status check_form(const struct prove_options *options, const struct words *words,
                            fw_error *error) {
    if (options->artifact == NULL)
        return fw_fail(error, FW_E_CONFIG, "--artifact FILE is missing; --help shows how");
    if (options->source.data == NULL && words->verify == NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "--data SOURCE (to write a proof) or --verify FILE (to decode one) is "
                       "missing; --help shows how");
    if (words->verify == NULL && !(words->all && words->spans != NULL)) return FW_OK;
    if (words->verify == NULL)
        return fw_fail(error, FW_E_CONFIG, "both --all and --spans are given; one is right");
    if (options->source.data != NULL || words->all || words->spans != NULL ||
        words->tokens != NULL || words->seed != NULL || words->proof != NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "--verify takes --artifact, --tokenizer, --model and --output alone: what "
                       "the proof is of lies in it");
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct arguments *arguments,
                       struct prove_options *options, struct words *words, fw_error *error) {
    const struct option table[] = {{"--artifact", &options->artifact, NULL},
                                   {"--data", &options->source.data, NULL},
                                   {"--tokenizer", &options->source.tokenizer, NULL},
                                   {"--model", &options->source.model, NULL},
                                   {"--all", NULL, &words->all},
                                   {"--spans", &words->spans, NULL},
                                   {"--tokens", &words->tokens, NULL},
                                   {"--seed", &words->seed, NULL},
                                   {"--proof", &words->proof, NULL},
                                   {"--verify", &words->verify, NULL},
                                   {"--output", &words->output, NULL},
                                   {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; the data go after --data",
                       arguments->input);
    FW_TRY(check_form(options, words, error));
    FW_TRY(arguments_count("--spans", words->spans, 1, 1000000, DEFAULT_SPANS, &options->spans,
                           error));
    FW_TRY(arguments_count("--tokens", words->tokens, 2, 1000000000, DEFAULT_TOKENS,
                           &options->span_tokens, error));
    FW_TRY(arguments_count("--seed", words->seed, 0, UINT64_C(999999999999999), DEFAULT_SEED,
                           &options->seed, error));
    if (words->all) options->spans = 0;
    options->proof = words->verify != NULL  ? words->verify
                     : words->proof != NULL ? words->proof
                                            : "proof.fwp";
    options->source.keep_text = words->all;
    return scored_overrides_check(arguments, error);
}

/* ---- what is printed ---- */

static double per_byte(double bits, double bytes) { return bytes > 0 ? bits / bytes : 0; }

/* Bytes of what was decoded: of text, else those that the tokenizer's rule counts. */
static uint64_t proven_bytes(const struct prove_result *r) {
    return r->has_text ? r->text_bytes : r->rule_bytes;
}

static void print_what(const struct prove_result *r) {
    char hex[65], n[TEXT_COMMAS_BYTES], bytes[TEXT_COMMAS_BYTES];
    sha256_hex(r->has_text ? r->text_hash : r->tokens_hash, hex);
    if (r->spans > 1)
        (void)printf("decoded   %llu spans of %llu tokens, each begun cold",
                     (unsigned long long)r->spans, (unsigned long long)r->span_tokens);
    else
        (void)printf("decoded   %s tokens, one stream", text_with_commas(r->tokens, n));
    if (r->has_text)
        (void)printf(": %s bytes of text\n          SHA-256 %s\n",
                     text_with_commas(r->text_bytes, bytes), hex);
    else
        (void)printf(
            "\n          SHA-256 %s of the tokens as uint16; no tokenizer was named, so no "
            "text\n",
            hex);
}

static void print_starts(const struct prove_spans *spans, uint64_t seed) {
    enum { MOST = 8 };
    if (spans->whole) return;
    (void)printf("          seed %llu, begun at token", (unsigned long long)seed);
    for (uint64_t i = 0; i < spans->spans && i < MOST; i++)
        (void)printf("%s %llu", i > 0 ? "," : "", (unsigned long long)spans->starts[i]);
    (void)printf("%s\n", spans->spans > MOST ? ", ..." : "");
}

static double file_bpb(const struct prove_result *r, uint64_t bytes) {
    return per_byte(8.0 * (double)r->file_bytes, (double)bytes);
}

static void print_file(const struct prove_result *r) {
    char file[TEXT_COMMAS_BYTES];
    (void)printf("file      %9.6f bpb  %s bytes (header %zu): 8 * file bytes / %s\n",
                 file_bpb(r, proven_bytes(r)), text_with_commas(r->file_bytes, file),
                 r->header_bytes, r->has_text ? "bytes of text" : "bytes by the tokenizer's rule");
}

/* A text may have other bytes than the rule counts: what the tokenizer does not know has none. */
static void print_distance(const struct prove_result *r) {
    if (proven_bytes(r) != r->rule_bytes)
        (void)printf("          %9.6f bpb  by the tokenizer's rule, to hold against the claim\n",
                     file_bpb(r, r->rule_bytes));
    (void)printf("                         %+.1f bytes from the path's code length; 0.1%% and 64 "
                 "are the most\n",
                 (double)r->file_bytes - r->path_bits / 8);
}

static void print_scores(const struct prove_result *r) {
    (void)printf("claimed   %9.6f bpb  by the scorer, %s; %llu bytes by the tokenizer's rule\n",
                 r->claimed_bpb,
                 r->spans > 1 ? "of these spans, each begun cold" : "of the same tokens",
                 (unsigned long long)r->rule_bytes);
    (void)printf("path      %9.6f bpb  %.1f bytes: the code length of distributions formed one "
                 "token at a time,\n                         the first of a stream at log2 V bits, "
                 "as the decoder has nothing before it\n",
                 per_byte(r->path_bits, (double)r->rule_bytes), r->path_bits / 8);
    print_file(r);
    print_distance(r);
    (void)printf(
        "rows      differ from the scorer's by %.1e in a probability at most, %.1e bits in "
        "a target's code\n",
        r->largest_row, r->largest_bits);
}

static void print_decoder(const struct prove_result *r) {
    char artifact[TEXT_COMMAS_BYTES];
    (void)printf("decoder   a fresh process in a jail, given the artifact (%s bytes) and the file: "
                 "%.1f s, %.0f tokens/s\n",
                 text_with_commas(r->artifact_bytes, artifact), r->decode_seconds,
                 (double)r->tokens / fmax(r->decode_seconds, 1e-9));
    if (r->refused[0] != '\0')
        (void)printf("          the jail refused it %s, which changed nothing\n", r->refused);
}

static void print_written(const struct prove_options *options, const struct prove_spans *spans,
                          const struct prove_result *r) {
    print_what(r);
    print_starts(spans, options->seed);
    (void)printf("          equal to the original%s\n",
                 r->is_source  ? ": the source's own text, byte for byte"
                 : r->has_text ? ", as the tokenizer spells it"
                               : "");
    print_scores(r);
    print_decoder(r);
    (void)printf("bound to  %s\n", r->bound_to);
    (void)printf("%s written\n", options->proof);
    if (r->spans > 1 || !spans->whole)
        (void)printf(
            "Spans prove that such text decodes; begun cold, they cost more than the claim "
            "over all of\nthe data. `--all` gives the file to hold against it.\n");
}

static void print_verified(const struct prove_options *options, const struct prove_result *r) {
    print_what(r);
    if (r->has_text)
        print_file(r);
    else
        (void)printf("file      %zu bytes (header %zu)\n", r->file_bytes, r->header_bytes);
    print_decoder(r);
    (void)printf("%s holds what decodes to this; whether it is the text in question, its SHA-256 "
                 "says.\n",
                 options->proof);
}

/* ---- the whole ---- */

static fw_status write_output(const char *path, const struct prove_result *r, fw_error *error) {
    if (path == NULL) return FW_OK;
    return r->has_text
               ? file_write(path, r->text.data, r->text.size, error)
               : file_write(path, r->tokens_found, r->tokens * sizeof *r->tokens_found, error);
}

static fw_status prove(struct prove_options *options, const struct words *words, fw_error *error) {
    struct prove_spans spans = {0};
    struct prove_result result;
    progress_begin(&options->progress);
    fw_status status = prove_environment_take(&options->environment, error);
    if (status == FW_OK)
        status = words->verify != NULL ? prove_verify(options, &result, error)
                                       : prove_write(options, &spans, &result, error);
    prove_environment_free(&options->environment);
    if (status != FW_OK) {
        prove_spans_free(&spans);
        return status;
    }
    if (words->verify != NULL)
        print_verified(options, &result);
    else
        print_written(options, &spans, &result);
    status = write_output(words->output, &result, error);
    prove_spans_free(&spans);
    prove_result_free(&result);
    return status;
}

int cmd_prove(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--decoder") == 0) prove_decoder(argc - 1, argv + 1);
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct prove_options options = {.arguments = &arguments};
    struct words words = {0};
    fw_status status = parse(argc, argv, &arguments, &options, &words, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = prove(&options, &words, &error);
    return report_failure(status, &error);
}
