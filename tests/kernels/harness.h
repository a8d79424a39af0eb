/* What the op tests share: arrays that live on the device under test and mirror their values in
 * float64, comparisons with tolerances by dtype, and gradients by central differences of the
 * float64 reference. The device is named by FAIRWAY_TEST_DEVICE (default cpu). */
#ifndef KERNEL_HARNESS_H
#define KERNEL_HARNESS_H

#include <support.h>

/* An array in device memory. `host` holds its values as the device sees them, after rounding to
 * the dtype. Freed by teardown. */
typedef struct array {
    void *memory;
    double *host;
    int64_t n;
    uint32_t dtype;
} array;

extern fw_device *device;   /* under test */
extern uint32_t compute;    /* its compute dtype */
extern test_random random_; /* seeded once per program, printed */

int setup_group(void **state);
int teardown_group(void **state);
int teardown(void **state); /* frees all arrays of one test */

array *make_random(int64_t n, uint32_t dtype, double scale);
array *make_values(const double *values, int64_t n, uint32_t dtype);
array *make_ints(const int32_t *values, int64_t n);
array *make_poison(int64_t n, uint32_t dtype); /* all NaN */
fw_step *make_step(const fw_step *step);       /* on the device */
void fetch_step(fw_step *to, const fw_step *from);
void poison(array *a);
void fetch(array *a); /* device -> host */

int64_t between(int64_t low, int64_t high); /* inclusive */

/* The tolerance for the device's compute dtype. */
double tolerance(double f32, double bf16);

/* Fetches `got` and fails unless |got - want| <= limit * |want| over all elements. */
void expect_close(const char *what, array *got, const double *want, double limit);

/* The same with |got - want| <= limit * |size|, where `size` holds |a| + |b| of each sum a + b.
 * Where a and b nearly cancel, float32's rounding of a and b alone is many units of the sum,
 * whatever the kernel does: for one AdamW element, 0.0065992 - 0.0074228 = -0.0008235 came out one
 * unit of 0.0074228 off, which is 5e-7 of the sum. A bound by the sum would be one on the draw, not
 * on the op. */
void expect_close_sum(const char *what, array *got, const double *want, const double *size,
                      double limit);

/* Fails unless `got` agrees with the derivative of `objective` by `x`, by central differences, on
 * up to 96 coordinates drawn at random. */
typedef double objective(void *context);
void expect_gradient(const char *what, array *got, double *x, objective *f, void *context,
                     double limit);
/* The same with the limit relative to `size`, as in expect_close_sum: for gradients that are sums
 * over many rows, of which a few, or one, may happen to cancel. */
void expect_gradient_sum(const char *what, array *got, double *x, objective *f, void *context,
                         const double *size, double limit);

/* Call ops->member(arguments), fail with its message unless it returns FW_OK. */
#define RUN(member, arguments)                                                                     \
    do {                                                                                           \
        fw_error error_ = {.struct_size = sizeof error_};                                          \
        if (device->ops->member(device, arguments, &error_) != FW_OK)                              \
            fail_msg(#member ": %s", error_.message);                                              \
    } while (0)

/* RUN, then again into poisoned outputs: the bits must repeat. */
#define RUN_TWICE(member, arguments, ...)                                                          \
    do {                                                                                           \
        array *outputs_[] = {__VA_ARGS__};                                                         \
        const size_t n_ = sizeof outputs_ / sizeof outputs_[0];                                    \
        void *bits_ = NULL;                                                                        \
        RUN(member, arguments);                                                                    \
        bits_ = snapshot(outputs_, n_);                                                            \
        RUN(member, arguments);                                                                    \
        expect_same_bits(#member, outputs_, n_, bits_);                                            \
    } while (0)
void *snapshot(array **outputs, size_t n); /* and poisons them */
void expect_same_bits(const char *what, array **outputs, size_t n, void *bits);

/* Fails unless the op refuses with `status` and a message that names it. */
#define REFUSES(expected, member, arguments)                                                       \
    do {                                                                                           \
        fw_error error_ = {.struct_size = sizeof error_};                                          \
        assert_int_equal(device->ops->member(device, arguments, &error_), expected);               \
        expect_sentence(#member, &error_, expected);                                               \
    } while (0)
void expect_sentence(const char *op, const fw_error *error, fw_status status);

#define OP_TEST(function) cmocka_unit_test_teardown(function, teardown)

#endif
