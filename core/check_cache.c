#include "check_cache.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check_run.h"
#include "clock.h"
#include "coin.h"
#include "progress.h"
#include "random.h"
#include "synthetic.h"

enum { FLIPS = 3, TARGETS = 2, RUNS = 14 + FLIPS + TARGETS /* at most */ };

struct checking {
    const struct cache_check *check;
    struct verdicts *verdicts;
    char directory[64]; /* that each run works in */
    struct progress progress;
    double begin;
    int runs;
    struct check_outcome base;
    /* Of the first run, and of the one it is compared with. The runs' tokens are kept nowhere: a
     * plugin in a later run must not find them in the memory that its process began with. */
    uint64_t *digests, *others;
};

static struct probe *probe_of(struct checking *c, const char *what) {
    return verdicts_probe(c->verdicts, "cache", what);
}

static fw_status run_once(struct checking *c, const struct check_run *run,
                          struct check_outcome *outcome, uint64_t *digests, fw_error *error) {
    progress_work(&c->progress, "check", c->runs++, RUNS, "runs", c->begin);
    return check_run(c->check, run, c->directory, outcome, digests, error);
}

/* ---- comparing ---- */

/* Run again under `run` and compare the statements of the first `positions`. */
static fw_status compare(struct checking *c, const struct check_run *run, const char *what,
                         const char *changed, uint64_t positions, fw_error *error) {
    struct probe *probe = probe_of(c, what);
    struct check_outcome outcome;
    FW_TRY(run_once(c, run, &outcome, c->others, error));
    if (outcome.status != FW_OK) {
        probe_fail(probe, "with %s: %s", changed, outcome.message);
        return FW_OK;
    }
    probe->positions += positions;
    for (uint64_t t = 0; t < positions; t++)
        if (c->digests[t] != c->others[t])
            probe_fail(probe,
                       "position %" PRIu64
                       ": with %s, the cache states something else; the same bits would be right",
                       t, changed);
    return FW_OK;
}

static uint64_t all(const struct checking *c) { return c->base.positions; }

/* ---- the probes ---- */

/* Verdicts of another process, under their own names or under `what`, if that is not NULL. */
static void take_over(struct checking *c, const struct check_outcome *outcome, const char *what) {
    for (size_t i = 0; i < outcome->verdicts.n; i++) {
        const struct probe *from = &outcome->verdicts.probes[i];
        const char *dot = strchr(from->name, '.');
        if (dot == NULL) continue;
        struct probe *to = probe_of(c, what != NULL ? what : dot + 1);
        to->positions += from->positions;
        if (from->verdict == VERDICT_FAIL)
            probe_fail(to, "%s%s%s", what != NULL ? dot + 1 : "", what != NULL ? ": " : "",
                       from->words);
        if (from->verdict == VERDICT_SKIPPED) probe_skip(to, "%s", from->words);
    }
    if (outcome->status != FW_OK)
        probe_fail(probe_of(c, what != NULL ? what : "protocol"), "%s", outcome->message);
}

static fw_status run_apart(struct checking *c, const struct check_run *run, const char *what,
                           fw_error *error) {
    struct check_outcome outcome;
    FW_TRY(run_once(c, run, &outcome, c->others, error));
    take_over(c, &outcome, what);
    return FW_OK;
}

static fw_status probe_fresh_process(struct checking *c, fw_error *error) {
    const struct check_run run = {.what = CHECK_SCORE};
    FW_TRY(compare(c, &run, "fresh-process", "a fresh process", all(c), error));
    DIR *directory = opendir(c->directory);
    if (directory == NULL) return fw_fail(error, FW_E_IO, "%s: %s", c->directory, strerror(errno));
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            probe_fail(probe_of(c, "fresh-process"),
                       "it left the file %s behind, where the next run could find it",
                       entry->d_name);
    (void)closedir(directory);
    return FW_OK;
}

static fw_status probe_threads(struct checking *c, fw_error *error) {
    const struct check_run one = {.what = CHECK_SCORE, .threads = 1};
    const struct check_run three = {.what = CHECK_SCORE, .threads = 3};
    FW_TRY(compare(c, &one, "threads", "1 thread instead of 2", all(c), error));
    return compare(c, &three, "threads", "3 threads instead of 2", all(c), error);
}

static fw_status probe_batching(struct checking *c, fw_error *error) {
    const struct check_run one = {.what = CHECK_SCORE, .batch = 1};
    const struct check_run seven = {.what = CHECK_SCORE, .batch = 7};
    FW_TRY(compare(c, &one, "batching", "batches of 1 window instead of 4", all(c), error));
    return compare(c, &seven, "batching", "batches of 7 windows instead of 4", all(c), error);
}

/* Where streams part: in each of so many equal parts of the positions, but for the first few. */
static uint64_t parting(const struct checking *c, struct random *random, uint64_t k, uint64_t of) {
    const uint64_t part = all(c) / of;
    const uint64_t at = k * part + (part > 0 ? random_below(random, part) : 0);
    return at > 0 ? at : 1;
}

static fw_status probe_flips(struct checking *c, fw_error *error) {
    struct random random = random_seeded(c->check->seed + 5);
    for (uint64_t k = 0; k < FLIPS + TARGETS; k++) {
        const bool one = k >= FLIPS;
        const uint64_t at =
            one ? parting(c, &random, k - FLIPS, TARGETS) : parting(c, &random, k, FLIPS);
        char changed[96];
        const struct check_run run = {.what = CHECK_SCORE, .flip = at, .flip_one = one};
        (void)snprintf(changed, sizeof changed,
                       one ? "another target behind position %" PRIu64
                           : "other tokens behind position %" PRIu64,
                       at);
        FW_TRY(
            compare(c, &run, one ? "target-independence" : "future-flip", changed, at + 1, error));
    }
    return FW_OK;
}

static fw_status probe_delivery(struct checking *c, fw_error *error) {
    const struct check_run run = {.what = CHECK_DELIVERY};
    if (c->base.counts_only) return run_apart(c, &run, NULL, error);
    probe_skip(probe_of(c, "delivery"), "it does not declare counts_only, so that no token comes "
                                        "before the first scored one");
    return FW_OK;
}

/* Where the row stays the same, so must the statement. */
static fw_status compare_kept_rows(struct checking *c, struct probe *probe, fw_error *error) {
    const struct check_run run = {.what = CHECK_SCORE};
    uint64_t n = 0;
    uint16_t *tokens = check_text(c->check, &run, &n);
    if (tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a stream");
    for (uint64_t t = 0; t < all(c); t++) {
        if (!synthetic_keeps_row(tokens[t])) continue;
        probe->positions++;
        if (c->digests[t] != c->others[t])
            probe_fail(probe,
                       "position %" PRIu64 ": after other rows of the model, and on the same row, "
                       "it states something else; it declares to depend on tokens alone",
                       t);
    }
    memset(tokens, 0, n * sizeof *tokens);
    free(tokens);
    return FW_OK;
}

static fw_status probe_counts_only(struct checking *c, fw_error *error) {
    struct probe *probe = probe_of(c, "counts-only");
    const struct check_run run = {.what = CHECK_SCORE, .other_rows = true};
    struct check_outcome outcome;
    if (!c->base.counts_only) {
        probe_skip(probe, "it does not declare that its state depends on tokens alone");
        return FW_OK;
    }
    FW_TRY(run_once(c, &run, &outcome, c->others, error));
    if (outcome.status == FW_OK) return compare_kept_rows(c, probe, error);
    probe_fail(probe, "with other rows: %s", outcome.message);
    return FW_OK;
}

static fw_status probe_edges(struct checking *c, fw_error *error) {
    static const enum check_text texts[] = {CHECK_EDGES, CHECK_EDGES_OTHER, CHECK_PAIR};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const struct check_run run = {.what = CHECK_SCORE, .text = texts[i], .audited = true};
        FW_TRY(run_apart(c, &run, "document-edges", error));
    }
    return FW_OK;
}

static fw_status probe_snapshot(struct checking *c, fw_error *error) {
    const struct check_run run = {.what = CHECK_SNAPSHOT};
    if (c->base.snapshots) return run_apart(c, &run, NULL, error);
    probe_skip(probe_of(c, "snapshot"), "it offers none");
    return FW_OK;
}

static fw_status probe_coin(struct checking *c, fw_error *error) {
    struct probe *probe = probe_of(c, "coin");
    const struct check_run run = {.what = CHECK_SCORE, .text = CHECK_COIN};
    struct check_outcome outcome;
    FW_TRY(run_once(c, &run, &outcome, c->others, error));
    probe->positions = outcome.positions;
    if (outcome.status != FW_OK) {
        probe_fail(probe, "%s", outcome.message);
        return FW_OK;
    }
    const double gain = coin_gain(outcome.nats, outcome.positions, c->check->table->vocabulary);
    if (coin_is_evidence(gain))
        probe_fail(probe,
                   "it gains %.1f bits on %" PRIu64
                   " uniformly random tokens, of which nobody can gain; luck gives %d at the most",
                   gain, outcome.positions, COIN_BITS);
    return FW_OK;
}

/* ---- the whole ---- */

static fw_status probe_all(struct checking *c, fw_error *error) {
    const struct check_run audited = {.what = CHECK_SCORE, .audited = true};
    FW_TRY(run_apart(c, &audited, NULL, error));
    FW_TRY(probe_fresh_process(c, error));
    FW_TRY(probe_threads(c, error));
    FW_TRY(probe_batching(c, error));
    FW_TRY(probe_flips(c, error));
    FW_TRY(probe_delivery(c, error));
    FW_TRY(probe_counts_only(c, error));
    FW_TRY(probe_edges(c, error));
    FW_TRY(probe_snapshot(c, error));
    return probe_coin(c, error);
}

/* The first run decides whether there is anything to compare. */
static fw_status probe_protocol(struct checking *c, fw_error *error) {
    const struct check_run run = {.what = CHECK_SCORE};
    struct probe *probe = probe_of(c, "protocol");
    FW_TRY(run_once(c, &run, &c->base, c->digests, error));
    if (!c->base.opened) return fw_fail(error, c->base.status, "%s", c->base.message);
    probe->positions = c->base.positions;
    if (c->base.status == FW_OK) return probe_all(c, error);
    probe_fail(probe, "%s", c->base.message);
    return FW_OK;
}

static fw_status make_directory(struct checking *c, fw_error *error) {
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] != '/' || strlen(base) > sizeof c->directory - 24) base = "/tmp";
    (void)snprintf(c->directory, sizeof c->directory, "%s/fairway-check-XXXXXX", base);
    if (mkdtemp(c->directory) != NULL) return FW_OK;
    return fw_fail(error, FW_E_IO, "%s: %s", c->directory, strerror(errno));
}

/* Files that runs left in it go with it; what they made below stays, and is theirs to explain. */
static void remove_directory(const char *path) {
    DIR *directory = opendir(path);
    if (directory == NULL) return;
    char name[512];
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        (void)snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        (void)unlink(name);
    }
    (void)closedir(directory);
    (void)rmdir(path);
}

static fw_status allocate(struct checking *c, fw_error *error) {
    const uint64_t most = check_positions(c->check);
    c->digests = calloc(most, sizeof *c->digests);
    c->others = calloc(most, sizeof *c->others);
    if (c->digests != NULL && c->others != NULL) return FW_OK;
    return fw_fail(error, FW_E_MEMORY, "no memory to compare statements");
}

fw_status check_cache(const struct cache_check *check, struct verdicts *verdicts, fw_error *error) {
    struct checking c = {.check = check, .verdicts = verdicts, .begin = clock_seconds()};
    progress_begin(&c.progress);
    fw_status status = allocate(&c, error);
    if (status == FW_OK) status = make_directory(&c, error);
    if (status == FW_OK) {
        status = probe_protocol(&c, error);
        progress_end(&c.progress);
        remove_directory(c.directory);
    }
    free(c.digests);
    free(c.others);
    return status;
}
