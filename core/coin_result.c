#include "coin_result.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "text.h"

const char *coin_rows_name(enum coin_rows rows) {
    static const char *const names[COIN_PASSES] = {"uniform", "model", "drawn"};
    return names[rows];
}

static bool was_made(const struct coin_result *result) {
    bool made = false;
    for (int rows = 0; rows < COIN_PASSES; rows++) made = made || result->passes[rows].tokens > 0;
    return made;
}

/* ---- verdicts ---- */

static void add_verdict(struct verdicts *verdicts, const char *subject, const char *what,
                        const struct coin_pass *pass, const struct coin_line *line) {
    if (!line->made) return;
    struct probe *probe = verdicts_probe(verdicts, subject, what);
    probe->positions = pass->tokens;
    if (coin_is_evidence(line->gain))
        probe_fail(probe,
                   "it gains %.0f bits on %" PRIu64 " random tokens, where more than %d are beyond "
                   "luck (a chance of at most 2^-%.0f)",
                   floor(line->gain), pass->tokens, COIN_BITS, floor(line->gain));
    else if (pass->cost <= COIN_BITS)
        probe_skip(probe, "%" PRIu64 " tokens cost %.0f bits, too few to gain more than %d",
                   pass->tokens, pass->cost, COIN_BITS);
}

void coin_add_verdicts(const struct coin_result *result, struct verdicts *verdicts) {
    for (int rows = 0; rows < COIN_PASSES; rows++) {
        const struct coin_pass *pass = &result->passes[rows];
        char what[24];
        (void)snprintf(what, sizeof what, "coin-%s", coin_rows_name(rows));
        if (rows == COIN_MODEL) add_verdict(verdicts, "model", "coin", pass, &pass->model);
        add_verdict(verdicts, "cache", what, pass, &pass->cache);
        add_verdict(verdicts, "counterpart", what, pass, &pass->counterpart);
    }
}

/* ---- the table ---- */

static void print_line(const char *pass, const char *who, const struct coin_line *line) {
    const double gain = fabs(line->gain) < 0.05 ? 0 : line->gain; /* never "-0.0" */
    (void)printf("  %-30s %-26s %16.1f %14.1f", pass, who, line->bits, gain);
    if (coin_is_evidence(line->gain))
        (void)printf("  INVALID: a chance of at most 2^-%.0f", floor(line->gain));
    (void)putchar('\n');
}

static const char *cache_label(const char *what, const struct plugin_choice *choice, char out[64]) {
    (void)snprintf(out, 64, "%s (%.16s)", what, choice->entry->plugin->id);
    return out;
}

static void print_pass(const struct coin_result *result, enum coin_rows rows,
                       const struct experiment *experiment) {
    static const char *const words[COIN_PASSES] = {"uniform rows", "the model's rows",
                                                   "drawn from the rows"};
    const struct coin_pass *pass = &result->passes[rows];
    char label[96], count[TEXT_COMMAS_BYTES], who[64];
    if (pass->tokens == 0) return;
    (void)snprintf(label, sizeof label, "%s, %s", words[rows],
                   text_with_commas(pass->tokens, count));
    print_line(label, rows == COIN_UNIFORM ? "the coin itself" : "model", &pass->model);
    if (pass->cache.made)
        print_line("", cache_label("with cache", &experiment->cache, who), &pass->cache);
    if (pass->counterpart.made)
        print_line("", cache_label("counterpart", &experiment->counterpart, who),
                   &pass->counterpart);
}

void coin_print(const struct coin_result *result, const struct experiment *experiment) {
    if (!was_made(result)) return;
    (void)printf("%-32s %-26s %16s %14s\n", "coin test: rows, random tokens", "", "bits", "gain");
    for (int rows = 0; rows < COIN_PASSES; rows++) print_pass(result, rows, experiment);
    (void)printf("  seed %" PRIu64 "; a gain of more than %d bits is INVALID\n", result->seed,
                 COIN_BITS);
}

/* ---- the receipt ---- */

static void add_line(cJSON *pass, const char *name, const struct coin_line *line) {
    if (!line->made) return;
    cJSON *object = cJSON_AddObjectToObject(pass, name);
    (void)cJSON_AddNumberToObject(object, "bits", line->bits);
    (void)cJSON_AddNumberToObject(object, "gain_bits", line->gain);
    (void)cJSON_AddBoolToObject(object, "valid", !coin_is_evidence(line->gain));
}

cJSON *coin_json(const struct coin_result *result) {
    if (!was_made(result)) return NULL;
    cJSON *json = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(json, "seed", (double)result->seed);
    (void)cJSON_AddNumberToObject(json, "seconds", result->seconds);
    for (int rows = 0; rows < COIN_PASSES; rows++) {
        const struct coin_pass *pass = &result->passes[rows];
        if (pass->tokens == 0) continue;
        cJSON *object = cJSON_AddObjectToObject(json, coin_rows_name(rows));
        (void)cJSON_AddNumberToObject(object, "tokens", (double)pass->tokens);
        (void)cJSON_AddNumberToObject(object, "cost_bits", pass->cost);
        add_line(object, "model", &pass->model);
        add_line(object, "cached", &pass->cache);
        add_line(object, "counterpart", &pass->counterpart);
    }
    return json;
}
