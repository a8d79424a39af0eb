#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "statistics.h"

static const double margin = 0.005, significance = 0.01; /* the challenge's rule for records */

typedef const struct run_score *(*chooser)(const struct results *results, size_t index);

static const struct run_score *model_score(const struct results *results, size_t index) {
    return results_score(results, index, "model");
}
static const struct run_score *cached_score(const struct results *results, size_t index) {
    return results_score(results, index, "cached");
}

/* The scores of one kind, of all runs of a side. */
struct side {
    const char *name;                         /* "result", "reference" */
    double bytes[MAX_RUNS], tokens[MAX_RUNS]; /* nats per byte, per token */
    size_t n;
    const struct run_score *bad; /* one that does not count */
    const char *kind;            /* "sliding", "plain", "cached", ... of the first run */
    double scored;               /* bytes that it was scored on; 0: unknown */
};

static void gather(const struct results *results, chooser choose, const char *name,
                   struct side *side) {
    *side = (struct side){.name = name, .kind = ""};
    for (size_t i = 0; i < results->n; i++) {
        const struct run_score *score = choose(results, i);
        if (score == NULL) continue;
        if (!score_counts(score)) {
            side->bad = score;
            continue;
        }
        if (side->n == 0)
            side->kind = strncmp(score->name, "sliding", 7) == 0 ? "sliding" : score->name;
        side->scored = score->bytes;
        side->bytes[side->n] = score->bpb * log(2.0);
        side->tokens[side->n++] = score->nats_per_token;
    }
}

/* Why a side takes no part in a line; false when it does. */
static bool print_absence(const char *label, const struct side *side) {
    if (side->bad != NULL)
        (void)printf("  %-24s the %s's score %s%s%s: it never counts\n", label, side->name,
                     side->bad->valid ? "counts targets several times" : "is INVALID",
                     side->bad->why[0] != '\0' ? ", " : "", side->bad->why);
    else if (side->n == 0)
        (void)printf("  %-24s the %s has no such score\n", label, side->name);
    return side->bad != NULL || side->n == 0;
}

static void print_side(const double *values, size_t n) {
    char deviation[24] = "-";
    if (n > 1) (void)snprintf(deviation, sizeof deviation, "%.6f", statistics_deviation(values, n));
    (void)printf(" %10.6f %9s", statistics_mean(values, n), deviation);
}

/* `same_text`: both sides were scored on the same; else there is nothing to test. */
static void print_line(const char *label, const double *a, size_t n_a, const double *b, size_t n_b,
                       bool same_text) {
    struct welch w;
    (void)printf("  %-24s", label);
    for (size_t i = 0; i < n_a + n_b; i++)
        if (isnan(i < n_a ? a[i] : b[i - n_a])) {
            (void)printf(" unknown: a side does not say how many bytes a token has\n");
            return;
        }
    const bool tested = welch_test(a, n_a, b, n_b, margin, &w);
    print_side(a, n_a);
    print_side(b, n_b);
    (void)printf(" %+10.6f", w.difference);
    if (!tested || !same_text)
        (void)printf("  no test\n");
    else
        (void)printf("  p = %.4g%s\n", w.p, w.p < significance ? "  BETTER" : "");
}

/* Nats per token mean the same only where a token stands for as many bytes: within a hundredth.
 * What a side does not say cannot be told apart. */
static bool same_tokens(const struct side *a, const struct side *b) {
    const double left = statistics_mean(a->tokens, a->n) / statistics_mean(a->bytes, a->n);
    const double right = statistics_mean(b->tokens, b->n) / statistics_mean(b->bytes, b->n);
    return !(fabs(left - right) > 0.01 * right);
}

/* Two lines of the table: per token and per byte. */
static bool print_pair(const char *label, chooser a, const struct results *result, chooser b,
                       const struct results *reference) {
    struct side left, right;
    char text[64];
    gather(result, a, "result", &left);
    gather(reference, b, "reference", &right);
    if (left.n == 0 && left.bad == NULL && right.n == 0 && right.bad == NULL) return false;
    const bool left_absent = print_absence(label, &left);
    if (print_absence(label, &right) || left_absent) return false;
    const bool same_text = left.scored == 0 || right.scored == 0 || left.scored == right.scored;
    (void)snprintf(text, sizeof text, "%s, token", label);
    const bool comparable = same_tokens(&left, &right);
    print_line(text, left.tokens, left.n, right.tokens, right.n, same_text && comparable);
    (void)snprintf(text, sizeof text, "%s, byte", label);
    print_line(text, left.bytes, left.n, right.bytes, right.n, same_text);
    if (strcmp(left.kind, right.kind) != 0)
        (void)printf("  %-24s the result is %s, the reference %s\n", "", left.kind, right.kind);
    if (!comparable)
        (void)printf("  %-24s tokens of different length: only the bytes compare\n", "");
    if (!same_text)
        (void)printf("  %-24s scored on other text: %.0f bytes against %.0f\n", "", left.scored,
                     right.scored);
    return true;
}

/* True when no line above has the best score that counts on both sides. */
static bool crosses(const struct results *result, const struct results *reference) {
    const struct run_score *a = results_honest(result, 0), *b = results_honest(reference, 0);
    if (a == NULL || b == NULL) return false;
    const bool models = a == model_score(result, 0) && b == model_score(reference, 0);
    const bool caches = a == cached_score(result, 0) && b == cached_score(reference, 0);
    return !models && !caches;
}

static void print_rule(size_t n_result, size_t n_reference) {
    (void)printf("  p: one-sided Welch test of \"not better by at least %.3f nats\"; BETTER: p < "
                 "%.2f, as the challenge asks\n",
                 margin, significance);
    if (n_result >= 2 && n_reference >= 2) return;
    (void)printf("  no test is possible: the result has %zu run%s and the reference %zu; each "
                 "needs at least 2\n",
                 n_result, n_result == 1 ? "" : "s", n_reference);
}

fw_status compare_print(const struct results *result, const struct results *reference,
                        fw_error *error) {
    (void)printf("\nnats of %s (%zu run%s) against %s (%zu)\n  %-24s %20s %20s %10s\n",
                 result->name, result->n, result->n == 1 ? "" : "s",
                 reference->name[0] != '\0' ? reference->name : "the reference", reference->n,
                 "mean and deviation", "result", "reference", "difference");
    bool any = print_pair("model", model_score, result, model_score, reference);
    any |= print_pair("with cache", cached_score, result, cached_score, reference);
    if (crosses(result, reference))
        any |= print_pair("best that counts", results_honest, result, results_honest, reference);
    print_rule(result->n, reference->n);
    (void)fflush(stdout);
    if (any) return FW_OK;
    return fw_fail(error, FW_E_CONFIG,
                   "%s and %s have no score in common that counts, so they cannot be compared",
                   result->name, reference->name[0] != '\0' ? reference->name : "the reference");
}
