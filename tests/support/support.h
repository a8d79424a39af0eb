/* What plugin and kernel tests share: loading one built plugin without the host program, a minimal
 * host table, seeded random numbers, and comparisons that print what differed. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fairway/fairway.h>

/* The plugin `id` of `kind` from the build tree; fails the test when it cannot be loaded. */
const fw_plugin *test_plugin(uint32_t kind, const char *id);

/* The file that such a plugin lies in. */
const char *test_plugin_path(const fw_plugin *plugin);

/* A host table for `device` (may be NULL): malloc, OpenMP parallel_for, log to stderr. Lives
 * forever. */
const fw_host *test_host(fw_device *device);

/* Values of a plugin's parameters: defaults, with "key=value" overrides, NULL-terminated list. The
 * text is parsed as the host parses it. Caller frees. */
fw_value *test_values(const fw_plugin *plugin, const char *const *overrides);

/* A device created from the plugin of kind device with that id and default parameters, but for the
 * device of FAIRWAY_TEST_DEVICE, which FAIRWAY_TEST_DEVICE_VALUES="key=value ..." sets otherwise.
 * Where the machine has none, says why and ends the program with 77: to ctest, a skipped test. */
fw_device *test_device(const char *id);

/* SplitMix64: uniform in [0,1), standard normal, integer in [0, n). */
typedef struct test_random {
    uint64_t state;
} test_random;
double test_uniform(test_random *random);
double test_normal(test_random *random);
uint64_t test_below(test_random *random, uint64_t n);

/* |a - b| / |b| over n elements (norms in double); |a| when b is zero. */
double test_relative_error(const float *a, const double *b, size_t n);

#endif
