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

/* The reference's training on a device that only counts. */
struct fixture {
    struct session session;
    struct wrapped_device wrapped;
    struct model *model;
    struct optimizers *optimizers;
    struct averaging *averaging;
    size_t of_model; /* bytes */
};

static struct model_options options_of(const struct fixture *f) {
    const struct experiment *experiment = f->session.experiment;
    return (struct model_options){.experiment = experiment,
                                  .host = &f->wrapped.services,
                                  .vocabulary = (uint32_t)experiment->model.vocabulary,
                                  .batch = train_micro_batch(experiment),
                                  .tokens = experiment->data.sequence,
                                  .training = true,
                                  .compute_copies = true};
}

static void open_fixture(struct fixture *f) {
    const struct arguments arguments = {
        .overrides = {"data.train=", "run.device=cpu", "run.micro_batch=48"}, .n_overrides = 3};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) |
                           CONFIG_BIND(FW_OPTIMIZER) | CONFIG_BIND(FW_AVERAGER);
    *f = (struct fixture){0};
    assert_ok(session_open(&arguments, CONFIGS "/seed993.ini", NULL, kinds, &f->session, &error),
              &error);
    wrapped_device_open(&f->wrapped, f->session.services, WRAP_COUNTING | WRAP_LINEAR_ACTIVATION);
}

static void close_fixture(struct fixture *f) {
    averaging_destroy(f->averaging);
    optimizers_destroy(f->optimizers);
    model_destroy(f->model);
    wrapped_device_close(&f->wrapped);
    session_close(&f->session);
}

static fw_status create_all(struct fixture *f) {
    const struct experiment *experiment = f->session.experiment;
    const struct model_options options = options_of(f);
    FW_TRY(model_create(&options, &f->model, &error));
    f->of_model = f->wrapped.allocated;
    FW_TRY(optimizers_create(experiment, &f->wrapped.services, f->model, &f->optimizers, &error));
    return averaging_create(&experiment->average, &f->wrapped.services, f->model, &f->averaging,
                            &error);
}

static void test_the_reference_fits_24_gigabytes(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    assert_ok(create_all(&f), &error);
    const struct model_options options = options_of(&f);
    (void)printf("passes of %d x %d tokens: buffers %.2f GB, weights and gradients %.2f GB, "
                 "optimizers and averager %.2f GB\n",
                 (int)options.batch, (int)options.tokens,
                 1e-9 * (double)model_activation_bytes(f.model),
                 1e-9 * (double)(f.of_model - model_activation_bytes(f.model)),
                 1e-9 * (double)(f.wrapped.allocated - f.of_model));
    assert_int_equal(options.batch * options.tokens, 98304);
    assert_true((double)f.wrapped.allocated < limit);
    close_fixture(&f);
}

/* Whatever finds no room: what it was, the device's words, and what would need less. */
static void test_no_room(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f);
    assert_ok(create_all(&f), &error);
    const size_t of_model = f.of_model, of_all = f.wrapped.allocated;
    close_fixture(&f);
    const struct {
        size_t most;
        const char *what;
    } cases[] = {{50000000, "no memory for the weights (0.108 GB)"},
                 {150000000, "no memory for the gradients (0.108 GB)"},
                 {1000000000, "no memory for the buffers of passes of 48 x 2048 tokens (16."},
                 {of_model + 1000, "[optimizer.matrix] plugin muon: no memory for its state"},
                 {of_all - 1000, "[average] plugin ema_swa: no memory for its averages"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_fixture(&f);
        f.wrapped.most = cases[i].most;
        assert_fails(create_all(&f), FW_E_MEMORY, &error, cases[i].what, "bytes are free",
                     "run.micro_batch = 24 needs less");
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_reference_fits_24_gigabytes),
                                       cmocka_unit_test(test_no_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
