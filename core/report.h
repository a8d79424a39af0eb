/* The closing table of a run and its receipt. */
#ifndef FAIRWAY_REPORT_H
#define FAIRWAY_REPORT_H

#include "code_size.h"
#include "evaluate.h"
#include "pack.h"
#include "session.h"
#include "train.h"

enum phase {
    PHASE_LOAD,
    PHASE_TRAIN,
    PHASE_VALIDATE,
    PHASE_PACK,
    PHASE_RELOAD,
    PHASE_EVALUATE,
    PHASE_COMPARE, /* sizes of code, xz */
    PHASES
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
    size_t validation_xz, prefixed_xz; /* bytes; 0: not asked for */
    size_t validation_text;            /* raw bytes that they stand for */
};

/* The closing table, to standard output. */
void report_print(const struct session *session, const struct report *report);

/* One score as a line of a table: label, bits per byte, and by raw bytes where known. */
void report_print_score(const char *label, const struct score *score, const char *remark);
void report_print_score_header(void);

/* What had to be given up to fit the size limit, as one line; nothing at rate 1. */
void report_print_fit(const struct report *report);

/* What must stand beside a cached score: its mark when it is invalid, else "". Returns `out`. */
const char *report_cache_remark(const struct evaluate_result *result, char *out, size_t size);

/* RUN/receipt.json: everything that the table says and what it rests on. */
fw_status report_write_receipt(const struct session *session, const struct report *report,
                               fw_error *error);

#endif
