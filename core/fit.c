#include "fit.h"

#include <math.h>
#include <string.h>

/* Guesses aim this far below the limit. Not at the middle of what is accepted: compressors gain
 * more from pruning than estimates say. */
static const double margin = FIT_TOLERANCE / 3;

enum { KNOTS = 5, REFINEMENTS = 2, MAX_KNOTS = KNOTS + FIT_ENCODES * (REFINEMENTS + 1) };

struct knot {
    double rate, estimate;
};

/* One real encode. */
struct sample {
    double rate, estimate, bytes;
};

struct fit {
    const struct fit_task *task;
    struct fit_result *result;
    struct knot knots[MAX_KNOTS]; /* by rate */
    int n_knots;
    struct sample samples[FIT_ENCODES]; /* by estimate */
    int n_samples;
    double low, high; /* the largest rate that fits, the least that does not; -1, 2: none yet */
    double miss;      /* of the last encode, relative to what it aimed at */
};

/* ---- the estimate as a function of the rate ---- */

static void add_knot(struct fit *fit, double rate, double estimate) {
    int at = fit->n_knots;
    while (at > 0 && fit->knots[at - 1].rate > rate) at--;
    if (at > 0 && fit->knots[at - 1].rate == rate) return;
    memmove(&fit->knots[at + 1], &fit->knots[at], (size_t)(fit->n_knots - at) * sizeof *fit->knots);
    fit->knots[at] = (struct knot){rate, estimate};
    fit->n_knots++;
}

static fw_status measure_knot(struct fit *fit, double rate, fw_error *error) {
    double estimate = 0;
    FW_TRY(fit->task->estimate(fit->task->argument, rate, &estimate, error));
    add_knot(fit, rate, estimate);
    return FW_OK;
}

/* The least rate whose estimate reaches `target`, by straight lines between the knots. */
static double rate_at(const struct fit *fit, double target) {
    if (target <= fit->knots[0].estimate) return fit->knots[0].rate;
    for (int i = 1; i < fit->n_knots; i++) {
        const struct knot *a = &fit->knots[i - 1], *b = &fit->knots[i];
        if (target > b->estimate || b->estimate <= a->estimate) continue;
        const double share = (target - a->estimate) / (b->estimate - a->estimate);
        return a->rate + fmax(share, 0) * (b->rate - a->rate);
    }
    return fit->knots[fit->n_knots - 1].rate;
}

/* ---- the bytes as a function of the estimate ---- */

/* The estimate at which `bytes` are expected: along the line through the two real encodes around
 * it, or next to it. When these say nothing of a slope, in proportion to the nearest. */
static double estimate_for(const struct fit *fit, double bytes) {
    const struct sample *s = fit->samples;
    int above = 1;
    while (above < fit->n_samples - 1 && s[above].bytes < bytes) above++;
    if (fit->n_samples == 1) return s[0].estimate * bytes / s[0].bytes;
    const struct sample *a = &s[above - 1], *b = &s[above];
    const double rise = b->bytes - a->bytes, run = b->estimate - a->estimate;
    const double usual = b->bytes / b->estimate;
    if (run > 0 && rise > 0.25 * usual * run && rise < 4 * usual * run)
        return a->estimate + (bytes - a->bytes) * run / rise;
    const struct sample *near = fabs(a->bytes - bytes) < fabs(b->bytes - bytes) ? a : b;
    return near->estimate * bytes / near->bytes;
}

static void add_sample(struct fit *fit, struct sample sample) {
    int at = fit->n_samples;
    while (at > 0 && fit->samples[at - 1].estimate > sample.estimate) at--;
    memmove(&fit->samples[at + 1], &fit->samples[at],
            (size_t)(fit->n_samples - at) * sizeof *fit->samples);
    fit->samples[at] = sample;
    fit->n_samples++;
}

/* ---- the search ---- */

static fw_status encode(struct fit *fit, double rate, double aim, fw_error *error) {
    const struct fit_task *task = fit->task;
    struct fit_result *result = fit->result;
    struct sample sample = {.rate = rate};
    FW_TRY(task->encode(task->argument, rate, &sample.bytes, &sample.estimate, error));
    result->encodes++;
    add_sample(fit, sample);
    if (fit->n_knots > 0) add_knot(fit, rate, sample.estimate);
    fit->miss = sample.bytes / aim - 1;
    if (rate == 1) result->full_bytes = sample.bytes;
    if (sample.bytes > task->limit) {
        if (rate < fit->high) fit->high = rate;
        if (rate == 0) result->least_bytes = sample.bytes;
    } else if (rate > fit->low) {
        fit->low = rate;
        task->keep(task->argument);
        result->fits = true;
        result->rate = rate;
        result->bytes = sample.bytes;
    }
    return FW_OK;
}

/* Bytes to aim at: the more careful, the further off the last guess was while nothing fits. */
static double next_aim(const struct fit *fit) {
    const double careful = fit->result->fits || fit->n_samples == 1 ? 0 : 0.5 * fabs(fit->miss);
    return fit->task->limit * fmax(0, 1 - margin - careful);
}

/* Where to encode next. The last encode is at rate 0 if nothing has fitted by then: the one rate
 * that says for certain whether anything fits. */
static fw_status next_rate(struct fit *fit, double aim, double *rate, fw_error *error) {
    *rate = 0;
    if (!fit->result->fits && fit->n_samples == FIT_ENCODES - 1) return FW_OK;
    for (int i = 0;; i++) {
        *rate = rate_at(fit, estimate_for(fit, aim));
        if (*rate <= fit->low || *rate >= fit->high)
            *rate = (fmax(fit->low, 0) + fit->high) / 2; /* the estimate misleads: halve */
        if (i == REFINEMENTS || *rate == 0) return FW_OK;
        FW_TRY(measure_knot(fit, *rate, error));
    }
}

static bool is_done(const struct fit *fit) {
    const struct fit_result *result = fit->result;
    if (result->encodes >= FIT_ENCODES || fit->high == 0) return true;
    return result->fits &&
           (result->rate == 1 || result->bytes >= fit->task->limit * (1 - FIT_TOLERANCE));
}

fw_status fit_rate(const struct fit_task *task, struct fit_result *result, fw_error *error) {
    *result = (struct fit_result){0};
    struct fit fit = {.task = task, .result = result, .low = -1, .high = 2};
    FW_TRY(encode(&fit, 1, fmax(task->limit, 1), error));
    if (is_done(&fit)) return FW_OK;
    for (int i = 0; i < KNOTS - 1; i++) FW_TRY(measure_knot(&fit, (double)i / (KNOTS - 1), error));
    add_knot(&fit, 1, fit.samples[0].estimate);
    while (!is_done(&fit)) {
        const double aim = next_aim(&fit);
        double rate;
        FW_TRY(next_rate(&fit, aim, &rate, error));
        FW_TRY(encode(&fit, rate, fmax(aim, 1), error));
    }
    return FW_OK;
}
