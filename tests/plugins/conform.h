/* What the conformance programs share: the plugin under test, its descriptor's checks, and device
 * memory that notices writes outside its bounds and reads before writing.
 *
 * Usage of every program: conform_KIND ID [DEVICE] [key=value ...]; the device defaults to "cpu",
 * the pairs set parameters of the plugin. */
#ifndef CONFORM_H
#define CONFORM_H

#include <stdbool.h>

#include "support.h"

typedef struct conform {
    const fw_plugin *plugin;
    fw_device *device;
    const fw_host *host;
    const char *const *overrides; /* "key=value", NULL-terminated */
    const fw_value *values;
} conform;

/* The plugin that the command line names, on the device that it names. */
conform conform_open(int argc, char **argv, uint32_t kind);

/* The same plugin and parameters on another device. */
conform conform_on(const conform *c, const char *device);

/* Fails the test unless descriptor and parameter table say what the host relies on. */
void conform_check_descriptor(const conform *c);

/* Device memory between guard zones, filled with NaN. Requests are released in reverse order:
 * remember conform_mark() before and pass it to conform_release(), which checks the guards. */
void *conform_take(const conform *c, size_t bytes);
size_t conform_mark(void);
void conform_release(size_t mark);

/* Fails the test when a guard of any block now held was overwritten. */
void conform_check_guards(void);

/* A tensor of `like`'s shape in new memory of that dtype (F32 or BF16), NaN until written. */
fw_tensor conform_tensor(const conform *c, uint32_t dtype, uint32_t rank, int64_t d0, int64_t d1);

/* Between host float32 and device memory of the tensor's dtype (F32, BF16; contiguous). */
void conform_write(const conform *c, const fw_tensor *tensor, const float *values);
void conform_read(const conform *c, const fw_tensor *tensor, float *values);

/* Host arrays; the caller frees. */
float *conform_floats(size_t n);
float *conform_normals(uint64_t seed, size_t n, double deviation);

/* |a - b| / |b|; infinity when an element of a is not finite. */
double conform_difference(const float *a, const float *b, size_t n);
void conform_assert_close(const char *what, const float *a, const float *b, size_t n,
                          double tolerance);
void conform_assert_same(const char *what, const float *a, const float *b, size_t n);
void conform_assert_finite(const char *what, const float *a, size_t n);

/* Fails the test with the message unless status is FW_OK. */
void conform_ok(fw_status status, const fw_error *error);

/* Bits of an F32 as rounded to the dtype, back as F32. */
float conform_round(uint32_t dtype, float value);

#endif
