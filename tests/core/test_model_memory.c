/* What training asks of a device's memory: the reference record's model, with the passes of its
 * INI, must fit 24 GB in bfloat16. */
#include <average.h>
#include <optimize.h>
#include <session.h>
#include <stdio.h>
#include <train.h>

#include "workspace.h"
#include "wrapped_device.h"

static const double limit = 24e9;

static fw_error error = {.struct_size = sizeof error};

static void test_the_reference_fits_24_gigabytes(void **state) {
    (void)state;
    struct session session;
    struct wrapped_device wrapped;
    const struct arguments arguments = {.overrides = {"data.train=", "run.micro_batch=48"},
                                        .n_overrides = 2};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) |
                           CONFIG_BIND(FW_OPTIMIZER) | CONFIG_BIND(FW_AVERAGER);
    assert_ok(session_open(&arguments, CONFIGS "/seed993.ini", NULL, kinds, &session, &error),
              &error);
    const struct experiment *experiment = session.experiment;
    wrapped_device_open(&wrapped, session.services, WRAP_COUNTING | WRAP_LINEAR_ACTIVATION);
    const struct model_options options = {.experiment = experiment,
                                          .host = &wrapped.services,
                                          .vocabulary = (uint32_t)experiment->model.vocabulary,
                                          .batch = train_micro_batch(experiment),
                                          .tokens = experiment->data.sequence,
                                          .training = true,
                                          .compute_copies = true};
    struct model *model = NULL;
    struct optimizers *optimizers = NULL;
    struct averaging *averaging = NULL;
    assert_ok(model_create(&options, &model, &error), &error);
    const size_t of_model = wrapped.allocated;
    assert_ok(optimizers_create(experiment, &wrapped.services, model, &optimizers, &error), &error);
    assert_ok(averaging_create(&experiment->average, &wrapped.services, model, &averaging, &error),
              &error);
    (void)printf("passes of %d x %d tokens: activations %.2f GB, weights and gradients %.2f GB, "
                 "optimizers and averager %.2f GB\n",
                 (int)options.batch, (int)options.tokens,
                 1e-9 * (double)model_activation_bytes(model),
                 1e-9 * (double)(of_model - model_activation_bytes(model)),
                 1e-9 * (double)(wrapped.allocated - of_model));
    assert_int_equal(options.batch * options.tokens, 98304);
    assert_true((double)wrapped.allocated < limit);
    averaging_destroy(averaging);
    optimizers_destroy(optimizers);
    model_destroy(model);
    wrapped_device_close(&wrapped);
    session_close(&session);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_reference_fits_24_gigabytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
