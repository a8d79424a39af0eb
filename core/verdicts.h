/* Verdicts of probes: what was probed, of how many positions, and what was found.
 *
 * A probe is named SUBJECT.WHAT: "cache.replay", "counterpart.sum", "model.future-flip". It passes
 * until something fails it; the first failure is kept, in one sentence with position and values. A
 * probe that could not be made is skipped and says why. */
#ifndef FAIRWAY_VERDICTS_H
#define FAIRWAY_VERDICTS_H

#include <cjson/cJSON.h>
#include <fairway/error.h>
#include <stdbool.h>

enum verdict { VERDICT_PASS, VERDICT_FAIL, VERDICT_SKIPPED };

struct probe {
    char name[48];
    enum verdict verdict;
    uint64_t positions;
    char words[320]; /* why it failed or was skipped; "" */
};

enum { MOST_PROBES = 48 };

struct verdicts {
    struct probe probes[MOST_PROBES];
    size_t n;
};

/* The probe SUBJECT.WHAT, added as passed with 0 positions when it is not there yet. Beyond
 * MOST_PROBES the last one is shared. */
struct probe *verdicts_probe(struct verdicts *verdicts, const char *subject, const char *what);

/* NULL when there is none. */
const struct probe *verdicts_find(const struct verdicts *verdicts, const char *name);

void probe_fail(struct probe *probe, const char *format, ...) FW_PRINTF(2, 3);
void probe_skip(struct probe *probe, const char *format, ...) FW_PRINTF(2, 3);

/* The first probe of `subject` that failed; of any subject when that is NULL. NULL: none. */
const struct probe *verdicts_failed(const struct verdicts *verdicts, const char *subject);

/* Add what `from` says: positions add up, failures and reasons stay. */
void verdicts_merge(struct verdicts *verdicts, const struct verdicts *from);

const char *verdict_name(enum verdict verdict); /* "pass", "fail", "skipped" */

/* A line for each probe, to standard output. */
void verdicts_print(const struct verdicts *verdicts);

/* [{"probe", "verdict", "positions", "why"}], "why" where there is something to say. */
cJSON *verdicts_json(const struct verdicts *verdicts);

#endif
