#include "isolation.h"

#include <stdio.h>

#include "text.h"

static double per_second(const struct evaluate_result *result) {
    const double seconds = result->isolation.seconds;
    return seconds > 0 ? (double)result->targets / seconds : 0;
}

void isolation_print(const struct evaluate_result *result) {
    char answers[TEXT_COMMAS_BYTES], rate[TEXT_COMMAS_BYTES];
    if (!result->isolated) return;
    (void)printf("  isolated: waited %.2f s for %s answers of caches in processes of their own "
                 "(%s tokens/s)\n",
                 result->isolation.seconds, text_with_commas(result->isolation.answers, answers),
                 text_with_commas((uint64_t)per_second(result), rate));
}

cJSON *isolation_json(const struct evaluate_result *result) {
    if (!result->isolated) return NULL;
    cJSON *object = cJSON_CreateObject();
    (void)cJSON_AddNumberToObject(object, "seconds", result->isolation.seconds);
    (void)cJSON_AddNumberToObject(object, "answers", (double)result->isolation.answers);
    (void)cJSON_AddNumberToObject(object, "targets_per_second", per_second(result));
    return object;
}
