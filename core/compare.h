/* Whether results beat a reference: the challenge asks for at least 0.005 nats, shown at p < 0.01.
 */
#ifndef FAIRWAY_COMPARE_H
#define FAIRWAY_COMPARE_H

#include "results.h"

/* Print means, deviations, differences and the one-sided Welch p-values of H0 "not better by at
 * least 0.005 nats", per token and per byte, of the model alone and with cache. Scores that are
 * INVALID take no part, and are named. With fewer than 2 runs on a side there is no test. E_CONFIG
 * when the two have no kind of score in common that counts. */
fw_status compare_print(const struct results *result, const struct results *reference,
                        fw_error *error);

#endif
