/* core/train: priming leaves no trace, a resumed run goes on exactly, other runs' checkpoints are
 * refused, and what goes wrong is said with its step. */
#include <checkpoint.h>
#include <math.h>
#include <session.h>
#include <stdio.h>
#include <train.h>

#include "workspace.h"

enum { VOCABULARY = 37, SHARD_TOKENS = 4000 };

static fw_error error = {.struct_size = sizeof error};

/* A corpus, a model at its initial weights, and a trainer on them. */
struct fixture {
    struct session session;
    struct corpus *corpus;
    struct model *model;
    struct progress progress;
    struct train_options options;
    struct trainer *trainer;
};

static const char base_ini[] =
    "[run]\nsteps = 12\nbatch_tokens = 128\nmicro_batch = 3\nwarmup_steps = 2\n"
    "warmdown_steps = 8\ncheckpoint_every = 4\n"
    "[data]\nsequence = 16\n[eval]\nmode = plain\nstride = 16\n"
    "[model]\nlayers = 1\nwidth = 32\nmlp_width = 48\n"
    "[attention]\nplugin = gqa\nheads = 4\nkv_heads = 2\nrope_dims = 4\n"
    "[optimizer.matrix]\nplugin = muon\n"
    "[quantize]\nplugin = int8\nsmall_values = 100\n"
    "[average]\nplugin = ema_swa\ndecay = 0.9\nevery = 2\nbelow = 0.6\n";

static void write_tokens(uint64_t seed) {
    uint16_t tokens[SHARD_TOKENS];
    test_random random = {seed};
    for (int i = 0; i < SHARD_TOKENS; i++)
        tokens[i] = (uint16_t)((i * 7 + (int)test_below(&random, 5)) % VOCABULARY);
    write_shard("data.bin", 20240520, 1, SHARD_TOKENS, tokens, SHARD_TOKENS);
}

static void open_session(struct fixture *f, const char *overrides[], size_t n) {
    struct arguments arguments = {.n_overrides = n};
    for (size_t i = 0; i < n; i++) arguments.overrides[i] = overrides[i];
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION) |
                           CONFIG_BIND(FW_QUANTIZER) | CONFIG_BIND(FW_OPTIMIZER) |
                           CONFIG_BIND(FW_AVERAGER);
    assert_ok(session_open(&arguments, "train test", base_ini, kinds, &f->session, &error), &error);
}

static fw_status open_fixture(struct fixture *f, bool resume, const char *overrides[], size_t n) {
    *f = (struct fixture){0};
    open_session(f, overrides, n);
    const struct corpus_options data = {.source = "data.bin", .vocabulary = VOCABULARY};
    assert_ok(corpus_open(&data, &f->corpus, &error), &error);
    const struct experiment *experiment = f->session.experiment;
    const struct model_options model = {.experiment = experiment,
                                        .host = f->session.services,
                                        .vocabulary = VOCABULARY,
                                        .batch = train_micro_batch(experiment),
                                        .tokens = experiment->data.sequence,
                                        .training = true,
                                        .compute_copies = experiment->run.qat_below > 0};
    assert_ok(model_create(&model, &f->model, &error), &error);
    assert_ok(model_initialise(f->model, &error), &error);
    f->options = (struct train_options){.experiment = experiment,
                                        .host = f->session.services,
                                        .model = f->model,
                                        .corpus = f->corpus,
                                        .progress = &f->progress,
                                        .checkpoint = "checkpoint.fw",
                                        .resume = resume,
                                        .validate_argument = f};
    return trainer_create(&f->options, &f->trainer, &error);
}

static void close_fixture(struct fixture *f) {
    trainer_destroy(f->trainer);
    model_destroy(f->model);
    corpus_close(f->corpus);
    session_close(&f->session);
}

/* What a run leaves; `n` floats in an arena. */
struct outcome {
    fw_status status;
    struct train_result result;
    int64_t n;
};

static struct outcome run(struct fixture *f) {
    struct outcome o = {.n = model_arena_count(f->model)};
    o.status = trainer_start(f->trainer, &error);
    if (o.status == FW_OK) o.status = trainer_run(f->trainer, NULL, &o.result, &error);
    return o;
}

static void free_outcome(struct outcome *o) {
    if (o->status != FW_OK) return;
    if (o->result.averaged != o->result.raw) free(o->result.averaged);
    free(o->result.raw);
    free(o->result.quantized);
}

static struct outcome run_with(bool resume, const char *overrides[], size_t n) {
    struct fixture f;
    assert_ok(open_fixture(&f, resume, overrides, n), &error);
    struct outcome o = run(&f);
    assert_ok(o.status, &error);
    assert_int_equal(o.result.shortfall, FW_OK);
    close_fixture(&f);
    return o;
}

static void assert_same(const struct outcome *a, const struct outcome *b) {
    assert_int_equal(a->result.steps, b->result.steps);
    assert_true(a->result.loss == b->result.loss);
    assert_memory_equal(a->result.raw, b->result.raw, (size_t)a->n * sizeof(float));
    assert_memory_equal(a->result.averaged, b->result.averaged, (size_t)a->n * sizeof(float));
}

/* ---- priming ---- */

static void test_priming_leaves_no_trace(void **state) {
    (void)state;
    write_tokens(1);
    const char *plain[] = {"run.qat_below=0.5"};
    const char *primed[] = {"run.qat_below=0.5", "run.priming_steps=5"};
    struct outcome a = run_with(false, plain, 1), b = run_with(false, primed, 2);
    assert_same(&a, &b);
    free_outcome(&a), free_outcome(&b);
}

/* Else the test above would be about nothing. */
static void test_each_part_matters(void **state) {
    (void)state;
    write_tokens(1);
    const char *none[] = {""};
    const char *quantized[] = {"run.qat_below=0.5"};
    const char *shared[] = {"average.swa_share=1"};
    struct outcome a = run_with(false, none, 0), b = run_with(false, quantized, 1);
    struct outcome c = run_with(false, shared, 1);
    assert_true(memcmp(a.result.raw, b.result.raw, (size_t)a.n * sizeof(float)) != 0);
    assert_true(memcmp(a.result.raw, c.result.raw, (size_t)a.n * sizeof(float)) == 0);
    assert_true(memcmp(a.result.averaged, c.result.averaged, (size_t)a.n * sizeof(float)) != 0);
    free_outcome(&a), free_outcome(&b), free_outcome(&c);
}

/* ---- resuming ---- */

static fw_status stop(void *argument, int64_t step, const float *weights, fw_error *why) {
    (void)argument, (void)weights;
    return fw_fail(why, FW_E_INTERRUPTED, "stopped at %lld", (long long)step);
}

/* Train, stop after `steps`, and leave the checkpoint before it. */
static void interrupt(const char *overrides[], size_t n, const char *steps) {
    struct fixture f;
    const char *all[8] = {steps};
    for (size_t i = 0; i < n; i++) all[i + 1] = overrides[i];
    assert_ok(open_fixture(&f, false, all, n + 1), &error);
    f.options.validate = stop;
    struct outcome o = run(&f);
    assert_int_equal(o.status, FW_E_INTERRUPTED);
    close_fixture(&f);
}

/* Both runs have the same settings, validate_every included, as it is part of the hash. */
static void check_resume(const char *overrides[], size_t n, const char *steps) {
    const char *all[8] = {steps};
    for (size_t i = 0; i < n; i++) all[i + 1] = overrides[i];
    struct outcome straight = run_with(false, all, n + 1);
    (void)remove("checkpoint.fw");
    interrupt(overrides, n, steps);
    struct outcome resumed = run_with(true, all, n + 1);
    assert_same(&straight, &resumed);
    free_outcome(&straight), free_outcome(&resumed);
}

static void test_a_resumed_run_goes_on_exactly(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.qat_below=0.9", "run.priming_steps=2"};
    check_resume(overrides, 0, "run.validate_every=6");  /* from step 4: before every window */
    check_resume(overrides, 0, "run.validate_every=11"); /* from step 8: amid the snapshots */
    check_resume(overrides, 2, "run.validate_every=6");
    check_resume(overrides, 2, "run.validate_every=11");
    assert_string_equal(listing(), "checkpoint.fw data.bin ");
}

/* A finished run is finished: its last checkpoint gives the same weights again. */
static void test_resuming_a_finished_run(void **state) {
    (void)state;
    write_tokens(1);
    const char *none[] = {""};
    struct outcome a = run_with(false, none, 0), b = run_with(true, none, 0);
    assert_same(&a, &b);
    free_outcome(&a), free_outcome(&b);
}

static void refuse_resume(const char *override, fw_status expected, const char *x, const char *y) {
    struct fixture f;
    const char *overrides[] = {override};
    const fw_status status = open_fixture(&f, true, overrides, override != NULL ? 1 : 0);
    assert_fails(status, expected, &error, "checkpoint.fw", x, y);
    assert_null(f.trainer);
    close_fixture(&f);
}

/* The checkpoint that is there, as if it were of another step. */
static void move_checkpoint(int64_t step) {
    struct session session;
    struct checkpoint_file *file = NULL;
    const struct arguments arguments = {0};
    assert_ok(session_open(&arguments, "other", "", CONFIG_BIND(FW_DEVICE), &session, &error),
              &error);
    assert_ok(checkpoint_open("checkpoint.fw", &file, &error), &error);
    struct checkpoint moved = *checkpoint_contents(file);
    moved.step = step;
    const struct checkpoint_memory none = {.device = session.services->device};
    assert_ok(checkpoint_write("checkpoint.fw", &moved, &none, &error), &error);
    checkpoint_close(file);
    session_close(&session);
}

static void test_checkpoints_of_other_runs(void **state) {
    (void)state;
    write_tokens(1);
    refuse_resume(NULL, FW_E_NOT_FOUND, "there is no checkpoint", "run.checkpoint_every");
    const char *none[] = {""};
    struct outcome o = run_with(false, none, 0);
    free_outcome(&o);
    refuse_resume("run.seed=7", FW_E_CONFIG, "belongs to other settings", "resolved.ini");
    refuse_resume("model.width=64", FW_E_CONFIG, "belongs to other settings", "hash");
    write_tokens(2);
    refuse_resume(NULL, FW_E_CONFIG, "belongs to other training data", "data.train");
    write_tokens(1);
    move_checkpoint(13);
    refuse_resume(NULL, FW_E_RANGE, "of step 13", "beyond the end of this run of 12 steps");
}

/* ---- what goes wrong ---- */

static fw_status poison(void *argument, int64_t step, const float *weights, fw_error *why) {
    (void)weights, (void)why;
    struct fixture *f = argument;
    float *weight = model_view(f->model, model_masters(f->model), 3).data;
    if (step == 6) weight[0] = NAN;
    return FW_OK;
}

static void test_a_loss_that_is_not_finite(void **state) {
    (void)state;
    write_tokens(1);
    for (int saves = 0; saves < 2; saves++) {
        struct fixture f;
        const char *overrides[] = {"run.validate_every=2",
                                   saves ? "run.checkpoint_every=4" : "run.checkpoint_every=0"};
        assert_ok(open_fixture(&f, false, overrides, 2), &error);
        f.options.validate = poison;
        struct outcome o = run(&f);
        assert_fails(o.status, FW_E_NUMERIC, &error, "stopped at step 6",
                     model_weight(f.model, 3)->name,
                     saves ? "the last good checkpoint is checkpoint.fw, of step 4" : "not finite");
        close_fixture(&f);
        if (!saves) assert_null(strstr(error.message, "checkpoint"));
        if (!saves) assert_string_equal(listing(), "data.bin ");
    }
}

/* A full disk costs the checkpoint, not the run. */
static void test_a_checkpoint_that_cannot_be_written(void **state) {
    (void)state;
    write_tokens(1);
    const char *none[] = {""};
    struct outcome whole = run_with(false, none, 0);
    (void)remove("checkpoint.fw");
    struct fixture f;
    assert_ok(open_fixture(&f, false, none, 0), &error);
    limit_file_size(1000);
    struct outcome o = run(&f);
    limit_file_size(0);
    assert_ok(o.status, &error);
    assert_same(&whole, &o);
    assert_string_equal(listing(), "data.bin ");
    close_fixture(&f);
    free_outcome(&o), free_outcome(&whole);
}

/* The weights of a run whose averager took no part are kept, and it is said why. */
static void test_a_window_that_never_opens(void **state) {
    (void)state;
    write_tokens(1);
    struct fixture f;
    const char *overrides[] = {"average.below=0.05", "run.seconds=1000"};
    assert_fails(open_fixture(&f, false, overrides, 1), FW_E_LIMIT, &error,
                 "[average] plugin ema_swa", "never fell below 0.05", "0.125 in 12 steps");
    assert_null(f.trainer);
    close_fixture(&f);
    /* With a limit in time as well, only the run can tell. */
    assert_ok(open_fixture(&f, false, overrides, 2), &error);
    struct outcome o = run(&f);
    assert_ok(o.status, &error);
    assert_int_equal(o.result.shortfall, FW_E_LIMIT);
    assert_non_null(strstr(o.result.shortfall_message, "[average] plugin ema_swa"));
    assert_non_null(
        strstr(o.result.shortfall_message, "never fell below 0.05 (its lowest was 0.1"));
    assert_true(o.result.averaged_is_raw && o.result.averaged == o.result.raw);
    close_fixture(&f);
    free_outcome(&o);
}

static void test_a_threshold_that_is_never_reached(void **state) {
    (void)state;
    write_tokens(1);
    struct fixture f;
    /* The wall clock might have got there, for all that could be known before. */
    const char *overrides[] = {"run.qat_below=0.1", "run.seconds=1000"};
    assert_ok(open_fixture(&f, false, overrides, 2), &error);
    struct outcome o = run(&f);
    assert_ok(o.status, &error);
    assert_int_equal(o.result.shortfall, FW_E_LIMIT);
    assert_non_null(strstr(o.result.shortfall_message, "run.qat_below = 0.1 was never reached"));
    close_fixture(&f);
    free_outcome(&o);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_priming_leaves_no_trace),
        TEST(test_each_part_matters),
        TEST(test_a_resumed_run_goes_on_exactly),
        TEST(test_resuming_a_finished_run),
        TEST(test_checkpoints_of_other_runs),
        TEST(test_a_loss_that_is_not_finite),
        TEST(test_a_checkpoint_that_cannot_be_written),
        TEST(test_a_window_that_never_opens),
        TEST(test_a_threshold_that_is_never_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
