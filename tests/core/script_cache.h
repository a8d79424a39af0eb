/* A cache inside the test that does what a test's functions say and writes down every call. */
#ifndef TEST_SCRIPT_CACHE_H
#define TEST_SCRIPT_CACHE_H

#include "config.h"
#include "support.h"

enum { SCRIPT_CALLS = 4096 };

/* predict of a position, or update with n tokens of which the last is `token`. */
struct script_call {
    char what; /* 'p' or 'u' */
    uint64_t position, n;
    uint32_t token;
};

struct script_cache {
    fw_cache vtable;
    fw_plugin plugin;
    struct registry_entry entry;
    struct plugin_choice choice;
    void (*predict)(const fw_row *row, fw_prediction *prediction); /* NULL: the row as it is */
    fw_status (*update)(const uint32_t *tokens, uint64_t n, fw_error *error); /* may be NULL */
    struct script_call calls[SCRIPT_CALLS];
    size_t n_calls, n_begun;
};

extern struct script_cache script;

/* Ready for a new test: a cache named "script" without functions. */
void script_reset(void);

/* Mix with nothing: the row as the cache sees it. */
void script_state_row(fw_prediction *prediction);

/* A list in the given form; lm_weight matters to a mix alone. */
void script_state_list(fw_prediction *prediction, uint32_t form, double lm_weight, uint32_t n,
                       const uint32_t *tokens, const double *values);

#endif
