/* Results of one or more runs of an experiment, as receipts and result files hold them.
 *
 * RUN/results.json, written after `[run] seeds = ...`:
 *   {"fairway", "name", "experiment_sha256",
 *    "runs": [{"seed", "directory", "steps", "config_sha256", "experiment_sha256", "model_sha256",
 *              "bytes": {"model", "total"},
 *              "scores": {NAME: {"bpb", "nats_per_token", "nats_per_byte", "valid"}}}],
 *    "mean": {NAME: ...}, "deviation": {NAME: ...}}
 * with the names that a receipt has: raw, averaged, packed, sliding or plain, cached, ...
 *
 * A reference may be written by hand, as lists of scores that others have published:
 *   {"name": "record 993", "seeds": [1337, 42, 2024], "bytes_per_token": 2.435924,
 *    "model":  {"mode": "sliding", "bpb": [1.1212, 1.1213, 1.1204]},
 *    "cached": {"bpb": [0.9631, 0.9634, 0.9627], "valid": false, "why": "sums to 522"}}
 * `model` is the model alone. Only "model" or "cached" with "bpb" is needed; "nats_per_token" may
 * be a second list in them, and follows from bytes_per_token otherwise. */
#ifndef FAIRWAY_RESULTS_H
#define FAIRWAY_RESULTS_H

#include <fairway/error.h>
#include <stdbool.h>

enum { MAX_RUNS = 64, MAX_SCORES = 16 };

struct run_score {
    char name[24];
    double bpb, nats_per_token; /* NAN when unknown */
    double targets, bytes;      /* that were scored; 0 when unknown */
    bool valid;    /* false: not a probability distribution; such a score never counts */
    bool fair;     /* false: counts some targets several times, as record 993 does: nor does that */
    char why[128]; /* what is wrong with it, or "" */
};

struct run_result {
    int64_t seed, steps; /* -1: unknown */
    char *place;         /* the file that it was read from, or its directory in results.json */
    char experiment[65]; /* hash; "" for a reference written by hand */
    char config[65], model_sha256[65], code_sha256[65];
    double model_bytes, total_bytes; /* 0: unknown */
    double train_seconds, evaluate_seconds;
    struct run_score scores[MAX_SCORES];
    size_t n_scores;
};

struct results {
    char name[128];
    struct run_result runs[MAX_RUNS];
    size_t n;
};

/* Starts out empty; E_MEMORY. */
fw_status results_create(struct results **results, fw_error *error);
void results_destroy(struct results *results); /* NULL is fine */

/* Add what `path` holds: a results.json, a receipt.json, a reference written by hand, or a run
 * directory with one of the first two. Errors: E_IO, E_FORMAT with path and key; E_CONFIG when a
 * run failed, belongs to another experiment than those before it (both hashes are named), was
 * scored on other text, or when one seed is there twice; E_LIMIT. On failure nothing is added. */
fw_status results_read(const char *path, struct results *results, fw_error *error);

/* Whether a score is a probability distribution's and counts each target once. */
bool score_counts(const struct run_score *score);

/* Of run `index`: NULL when it has no score of that name. "model" stands for the model alone at the
 * end: sliding_fair, sliding, stream or plain, the first that there is. */
const struct run_score *results_score(const struct results *results, size_t index,
                                      const char *name);

/* The best score that counts: of the cached, the counterpart's and the model's own, the lowest bpb
 * that is valid and counts each target once. NULL when there is none. */
const struct run_score *results_honest(const struct results *results, size_t index);

/* A line for each run, then means and deviations. To standard output. */
void results_print(const struct results *results);

/* Write results.json; directories are written relative to its own. */
fw_status results_write(const struct results *results, const char *path, fw_error *error);

#endif
