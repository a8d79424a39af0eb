/* What it took to have caches in processes of their own: a line of the table, and a part of the
 * receipt. */
#ifndef FAIRWAY_ISOLATION_H
#define FAIRWAY_ISOLATION_H

#include <cjson/cJSON.h>

#include "evaluate.h"

/* Nothing when none was. */
void isolation_print(const struct evaluate_result *result);

/* {"seconds", "answers", "targets_per_second"}: what the host waited for, and how fast scoring
 * would be if it did nothing else. NULL when no cache was isolated. */
cJSON *isolation_json(const struct evaluate_result *result);

#endif
