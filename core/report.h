/* The closing table of a run and its receipt. */
#ifndef FAIRWAY_REPORT_H
#define FAIRWAY_REPORT_H

#include "code_size.h"
#include "evaluate.h"
#include "pack.h"
#include "session.h"
#include "train.h"

enum phase {
    PHASE_LOAD,       /* plugins, data, tokenizer, model and its initial weights */
    PHASE_PRIME,      /* steps that are undone; going back to a checkpoint */
    PHASE_TRAIN,      /* the steps alone, those before a resume included */
    PHASE_VALIDATE,   /* scores on the way */
    PHASE_CHECKPOINT, /* writing checkpoints */
    PHASE_AVERAGE,    /* the averager's result */
    PHASE_CALIBRATE,  /* reading training text for the quantizer */
    PHASE_PACK,       /* quantizing, compressing, writing the artifact */
    PHASE_LADDER,     /* scores of weights that are not packed, for comparison alone */
    PHASE_RELOAD,     /* reading the artifact again */
    PHASE_EVALUATE,
    PHASE_COMPARE, /* the coin test, sizes of code, xz */
    PHASES
};

/* Two ways to count, each against 600 s of training and 600 s of evaluation: strict takes in all
 * that leads from the files to the artifact (load to pack, validation on the way included), or from
 * the artifact to its score; customary, as the challenge counts, the steps and the scoring alone.
 */
enum { REPORT_LIMIT_SECONDS = 600 };

struct report_totals {
    double strict, customary;
};

enum { REPORT_EFFECTS = 256 + 16 }; /* what a host notes of plugins, and those of a run itself */

struct report_effect {
    char name[64];
    double size;
};

struct report {
    double seconds[PHASES];
    struct train_result training; /* without its weights */
    int64_t parameters;
    double forward_backward_flops; /* of the whole training */
    struct evaluate_result raw, averaged, packed, final;
    bool average_on, cache_on;
    struct pack_result pack;
    double pruned_weights; /* to fit; 0: none, or the quantizer does not say */
    size_t artifact_bytes;
    uint8_t artifact_hash[32]; /* SHA-256 of the file */
    struct code_size code;
    size_t validation_xz, prefixed_xz;            /* bytes; 0: not asked for */
    size_t validation_text;                       /* raw bytes that they stand for */
    struct report_effect effects[REPORT_EFFECTS]; /* that plugins and training stated */
    size_t n_effects;
    char failure[1024]; /* why the run is none, though all of it is on disk; "": it is one */
};

/* Note an effect; the last size of a name counts. Beyond REPORT_EFFECTS names it is dropped. */
void report_add_effect(struct report *report, const char *name, double size);

/* Call visit for each effect, those that the report knows by itself included. */
void report_each_effect(const struct report *report,
                        void (*visit)(void *argument, const char *name, double size),
                        void *argument);

/* What the audit of the final score says of the model holds for the scores of all its stages. */
void report_mark_model(struct report *report);

extern const char *const report_phase_names[PHASES]; /* "load", "prime", ... */

struct report_totals report_training_seconds(const struct report *report);
struct report_totals report_evaluation_seconds(const struct report *report);

/* The closing table, to standard output. */
void report_print(const struct session *session, const struct report *report);

/* One score as a line of a table: label, bits per byte, and by raw bytes where known. */
void report_print_score(const char *label, const struct score *score, const char *remark);
void report_print_score_header(void);

/* The lines of what evaluate() scored: the model alone in its mode (and, where that is not fair,
 * each target once); the cache and its counterpart. A score that is INVALID or not fair says so. */
void report_print_model(const struct experiment *experiment, const struct evaluate_result *result);
void report_print_caches(const struct experiment *experiment, const struct evaluate_result *result);

/* Whether `score`, one of `result`, is INVALID, and why, in one sentence: it rests on predictions
 * that are not verifiably distributions, or a probe of its cache or of the model failed. `why` may
 * be NULL. */
enum { REPORT_WHY_BYTES = 512 };
bool report_is_invalid(const struct evaluate_result *result, const struct score *score,
                       char why[REPORT_WHY_BYTES]);

/* What coin test and audit found, as a few lines; nothing where there was none. */
void report_print_audit(const struct experiment *experiment, const struct evaluate_result *result);

/* What had to be given up to fit the size limit, as one line; nothing at rate 1. */
void report_print_fit(const struct report *report);

/* RUN/receipt.json: everything that the table says and what it rests on; and the failure, with
 * which no result counts. */
fw_status report_write_receipt(const struct session *session, const struct report *report,
                               fw_error *error);

#endif
