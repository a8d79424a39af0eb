/* The float64 reference itself: its gradients against finite differences in float64, at shapes that
 * have each part in each form; and all of it against the recorded case of this folder. */
#include "support.h"

#include <math.h>

#include "folder.h"
#include "newton_schulz.h"
#include "random_case.h"

#define BASE                                                                                       \
    "vocab = 11\nlayers = 3\ndim = 16\nheads = 4\nkv = 2\nmlp = 2.0\nbigram_slots = 7\n"           \
    "bigram_dim = 6\nve_dim = 5\nbatch = 2\nseq = 6\nseed = 3\n"

static const char *const shapes[] = {
    BASE "xsa = 3\nrope_dims = 2\nve_layers = 1,2\n",
    BASE "xsa = 0\nrope_dims = 0\nve_layers =\nsmear = 0\nx0_mix = 0\nskips = 0\n"
         "layer_scales = 0\ndepth_norm = 0\n",
    BASE "xsa = 1\nrope_dims = 4\nve_layers = 0\nlayers = 5\nbigram_dim = 16\nve_dim = 8\n",
    BASE "xsa = 2\nrope_dims = 0\nve_layers = 1\nlayers = 2\nkv = 1\nbigram_slots = 0\n",
    BASE "xsa = 9\nrope_dims = 0\nve_layers = 0\nlayers = 1\nkv = 4\n",
};

static struct shape shape_of(const char *text) {
    struct shape shape;
    fw_error error = {.struct_size = sizeof error};
    if (shape_parse("test", text, &shape, &error) != FW_OK) fail_msg("%s", error.message);
    return shape;
}

/* Loss along a direction of one tensor, at a distance. */
static double loss_at(struct reference *r, struct reference_tensor *t, const double *direction,
                      double distance, const int32_t *tokens) {
    for (int64_t i = 0; i < t->count; i++) t->value[i] += distance * direction[i];
    const int64_t n = r->shape.batch * r->shape.seq;
    const double loss = reference_forward(r, tokens, tokens + n);
    for (int64_t i = 0; i < t->count; i++) t->value[i] -= distance * direction[i];
    return loss;
}

static void check_tensor(struct reference *r, uint32_t index, const int32_t *tokens) {
    struct reference_tensor *t = &r->tensor[index];
    double *direction = calloc((size_t)t->count, sizeof *direction);
    assert_non_null(direction);
    uint64_t state = index + 1;
    double predicted = 0, norm = 0;
    for (int64_t i = 0; i < t->count; i++) {
        direction[i] = random_normal(&state) / sqrt((double)t->count);
        predicted += direction[i] * t->gradient[i];
        norm += t->gradient[i] * t->gradient[i];
    }
    norm = sqrt(norm);
    assert_true(norm > 1e-7);
    /* Small, because the activation's second derivative jumps; rounding is 1e-16 / 1e-5. */
    const double e = 1e-5;
    const double slope =
        (loss_at(r, t, direction, e, tokens) - loss_at(r, t, direction, -e, tokens)) / (2 * e);
    if (!(fabs(slope - predicted) < 1e-7 * norm + 1e-9))
        fail_msg("%s: slope %.10g, gradient says %.10g", t->name, slope, predicted);
    free(direction);
}

static void gradients_match_finite_differences(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
        const struct shape shape = shape_of(shapes[k]);
        int32_t *tokens = calloc((size_t)(2 * shape.batch * shape.seq), sizeof *tokens);
        assert_non_null(tokens);
        struct reference *r = random_case(&shape, tokens);
        (void)reference_forward(r, tokens, tokens + shape.batch * shape.seq);
        reference_backward(r);
        for (uint32_t i = 0; i < r->n_tensors; i++) check_tensor(r, i, tokens);
        reference_destroy(r);
        free(tokens);
    }
}

static const struct array *array_of(const struct folder *folder, const char *group,
                                    const char *name) {
    char full[96];
    (void)snprintf(full, sizeof full, "%.20s%.64s", group, name);
    const struct array *array = folder_find(folder, full);
    if (array == NULL) fail_msg("%s: no %s", folder->path, full);
    return array;
}

/* |a - b| / |b| */
static double distance(const double *a, const struct array *b) {
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < b->count; i++) {
        const double expected = array_value(b, i);
        difference += (a[i] - expected) * (a[i] - expected);
        norm += expected * expected;
    }
    return sqrt(difference / norm);
}

static void read_weights(struct reference *r, const struct folder *folder) {
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        const struct array *array = array_of(folder, "param/", r->tensor[i].name);
        assert_int_equal(array->count, r->tensor[i].count);
        for (int64_t j = 0; j < array->count; j++) r->tensor[i].value[j] = array_value(array, j);
    }
}

static void check_group(const struct reference *r, const struct folder *folder, const char *group,
                        bool gradients, double tolerance) {
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        const struct reference_tensor *t = &r->tensor[i];
        const double error =
            distance(gradients ? t->gradient : t->value, array_of(folder, group, t->name));
        if (!(error < tolerance)) fail_msg("%s%s: %.3g", group, t->name, error);
    }
}

/* The record computed in float32; the step is fed its gradients. */
static void agrees_with_the_recorded_model(void **state) {
    (void)state;
    struct folder folder;
    fw_error error = {.struct_size = sizeof error};
    if (folder_open(GOLDEN_DIRECTORY "/model_tiny", &folder, &error) != FW_OK)
        fail_msg("%s", error.message);
    const struct shape shape = shape_of(folder.config);
    const int64_t n = shape.batch * shape.seq;
    int32_t *tokens = calloc((size_t)(2 * n), sizeof *tokens);
    struct reference *r = reference_create(&shape);
    for (int64_t i = 0; i < n; i++) {
        tokens[i] = (int32_t)array_value(array_of(&folder, "", "input_ids"), i);
        tokens[n + i] = (int32_t)array_value(array_of(&folder, "", "target_ids"), i);
    }
    read_weights(r, &folder);
    const double loss = reference_forward(r, tokens, tokens + n);
    const double recorded = array_value(array_of(&folder, "", "loss"), 0);
    assert_true(fabs(loss - recorded) < 1e-6 * recorded);
    assert_true(distance(r->logits, array_of(&folder, "", "logits")) < 1e-6);
    reference_backward(r);
    check_group(r, &folder, "grad/", true, 1e-5);
    for (uint32_t i = 0; i < r->n_tensors; i++)
        for (int64_t j = 0; j < r->tensor[i].count; j++)
            r->tensor[i].gradient[j] =
                array_value(array_of(&folder, "grad/", r->tensor[i].name), j);
    const double norm = reference_step(r);
    assert_true(fabs(norm / array_value(array_of(&folder, "", "grad_norm"), 0) - 1) < 1e-6);
    check_group(r, &folder, "after_step/", false, 1e-3);
    const double after = reference_forward(r, tokens, tokens + n);
    assert_true(fabs(after / array_value(array_of(&folder, "", "loss_after_step"), 0) - 1) < 1e-3);
    reference_destroy(r);
    free(tokens);
    folder_close(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_match_finite_differences),
                                       cmocka_unit_test(agrees_with_the_recorded_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
