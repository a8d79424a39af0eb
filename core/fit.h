/* Fit to a byte budget: the largest rate of a quantizer at which the packed bytes are within a
 * limit. Compressing for real takes long (half a minute for 27 M weights), so it is done at most
 * FIT_ENCODES times; between these, a cheap estimate that is calibrated by them says where to go.
 * [deterministic] */
#ifndef FAIRWAY_FIT_H
#define FAIRWAY_FIT_H

#include <fairway/error.h>
#include <stdbool.h>

enum { FIT_ENCODES = 4 };

/* A result that leaves no more of the limit unused than this is not improved. */
#define FIT_TOLERANCE 0.003

struct fit_task {
    double limit; /* bytes */

    /* Something that grows with the bytes at `rate`, about in proportion. */
    fw_status (*estimate)(void *argument, double rate, double *estimate, fw_error *error);

    /* The real bytes at `rate`, and the estimate. */
    fw_status (*encode)(void *argument, double rate, double *bytes, double *estimate,
                        fw_error *error);

    /* Keep what was encoded last: it is the best so far that fits. */
    void (*keep)(void *argument);
    void *argument;
};

struct fit_result {
    bool fits;   /* something was kept */
    double rate; /* of what was kept */
    double bytes;
    int encodes;
    double full_bytes;  /* at rate 1 */
    double least_bytes; /* at rate 0, when even that does not fit */
};

/* Rate 1 when it fits, else a rate below it. The last encode need not be the one kept. Errors:
 * those of the callbacks; that nothing fits is a result. */
fw_status fit_rate(const struct fit_task *task, struct fit_result *result, fw_error *error);

#endif
