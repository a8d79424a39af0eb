/* The coin test that comes before a score, as eval.coin and eval.coin_seed say. */
#ifndef FAIRWAY_EVALUATE_COIN_H
#define FAIRWAY_EVALUATE_COIN_H

#include "evaluate.h"

/* Test what `options` are about to score; an empty result where eval.coin is 0. A gain that is
 * evidence is E_PROTOCOL with its words, unless on_violation = report. */
fw_status evaluate_coin(const struct evaluate_options *options, struct coin_result *coin,
                        fw_error *error);

#endif
