/* core/train: priming leaves no trace, a resumed run goes on exactly, other runs' checkpoints are
 * refused, what goes wrong is said with its step, and a device that works by itself, with graphs or
 * without, gives the same weights, log and messages. */
#include <batches.h>
#include <checkpoint.h>
#include <log.h>
#include <math.h>
#include <session.h>
#include <stdio.h>
#include <time.h>
#include <train.h>

#include "workspace.h"
#include "wrapped_device.h"

enum { VOCABULARY = 37, SHARD_TOKENS = 4000 };

static fw_error error = {.struct_size = sizeof error};

/* A corpus, a model at its initial weights, and a trainer on them. */
struct fixture {
    struct session session;
    struct wrapped_device wrapped; /* of the features below */
    struct corpus *corpus;
    struct model *model;
    struct progress progress;
    struct train_options options;
    struct trainer *trainer;
};

/* What the device of the fixtures that follow has beyond the CPU's, and which of its calls fails
 * once a trainer is made; 0: none. */
static unsigned features;
static int64_t fail_at;

/* Its weights are named in messages by their index: a matrix of attention. */
enum { POISONED = 3 };

static const char base_ini[] =
    "[run]\ndevice = cpu\nsteps = 12\nbatch_tokens = 128\nmicro_batch = 3\nwarmup_steps = 2\n"
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
    wrapped_device_open(&f->wrapped, f->session.services, features);
    const struct corpus_options data = {.source = "data.bin", .vocabulary = VOCABULARY};
    assert_ok(corpus_open(&data, &f->corpus, &error), &error);
    const struct experiment *experiment = f->session.experiment;
    const struct model_options model = {.experiment = experiment,
                                        .host = &f->wrapped.services,
                                        .vocabulary = VOCABULARY,
                                        .batch = train_micro_batch(experiment),
                                        .tokens = experiment->data.sequence,
                                        .training = true,
                                        .compute_copies = experiment->run.qat_below > 0};
    assert_ok(model_create(&model, &f->model, &error), &error);
    assert_ok(model_initialise(f->model, &error), &error);
    f->options = (struct train_options){.experiment = experiment,
                                        .host = &f->wrapped.services,
                                        .model = f->model,
                                        .corpus = f->corpus,
                                        .progress = &f->progress,
                                        .checkpoint = "checkpoint.fw",
                                        .resume = resume,
                                        .validate_argument = f};
    f->wrapped.calls = 0;
    f->wrapped.fail_at = fail_at;
    return trainer_create(&f->options, &f->trainer, &error);
}

static void close_fixture(struct fixture *f) {
    trainer_destroy(f->trainer);
    model_destroy(f->model);
    corpus_close(f->corpus);
    wrapped_device_close(&f->wrapped);
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
    float *weight = model_view(f->model, model_masters(f->model), POISONED).data;
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
                     model_weight(f.model, POISONED)->name,
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

/* ---- devices that work by themselves ---- */

static const struct {
    const char *name;
    unsigned features;
    bool graphs;
    int refusals;
} devices[] = {
    {"in step", 0, false, 0},
    {"ahead", WRAP_PINNED, false, 0},
    {"graphs", WRAP_PINNED | WRAP_CAPTURE, true, 0},
    {"graphs of a joined op", WRAP_PINNED | WRAP_CAPTURE | WRAP_LINEAR_ACTIVATION, true, 0},
    {"no graphs after all", WRAP_PINNED | WRAP_CAPTURE_REFUSED, false, 1},
    {"something that waits", WRAP_PINNED | WRAP_CAPTURE | WRAP_CAPTURE_BROKEN, false, 1},
    {"graphs but no pinned memory", WRAP_CAPTURE, false, 0},
};
enum { DEVICES = sizeof devices / sizeof devices[0] };

/* The log's lines without what the clock says. */
static char *log_of_run(void) {
    size_t size = 0;
    char *text = read_bytes("log.jsonl", &size), *to = text;
    for (const char *line = text; *line != '\0';) {
        const size_t length = strcspn(line, "\n");
        cJSON *event = cJSON_ParseWithLength(line, length);
        assert_non_null(event);
        cJSON_DeleteItemFromObject(event, "seconds");
        cJSON_DeleteItemFromObject(event, "training_seconds");
        cJSON_DeleteItemFromObject(event, "tokens_per_second");
        char *printed = cJSON_PrintUnformatted(event);
        to += sprintf(to, "%s\n", printed);
        free(printed);
        cJSON_Delete(event);
        line += length + (line[length] == '\n');
    }
    *to = '\0';
    return text;
}

static fw_status count_validation(void *argument, int64_t step, const float *weights,
                                  fw_error *why) {
    (void)why;
    struct fixture *f = argument;
    /* Nothing is under way: the weights are those of this step. */
    assert_memory_equal(weights, model_masters(f->model),
                        (size_t)model_arena_count(f->model) * sizeof *weights);
    assert_int_equal(step % 5, 0);
    return FW_OK;
}

/* `launches`: graphs that a device with graphs launches at least. */
static struct outcome run_on(int device, const char *overrides[], size_t n, int launches,
                             char **log_text) {
    struct fixture f;
    struct log *log = NULL;
    features = devices[device].features;
    assert_ok(open_fixture(&f, false, overrides, n), &error);
    f.options.validate = count_validation;
    struct outcome o = {.n = model_arena_count(f.model)};
    assert_ok(trainer_start(f.trainer, &error), &error);
    assert_ok(log_open("log.jsonl", &log, &error), &error);
    o.status = trainer_run(f.trainer, log, &o.result, &error);
    assert_ok(o.status, &error);
    assert_true(o.result.seconds > 0);
    log_close(log);
    if (devices[device].graphs) assert_true(f.wrapped.launches >= launches);
    if (!devices[device].graphs) assert_int_equal(f.wrapped.launches, 0);
    assert_int_equal(f.wrapped.refusals, o.result.steps > 1 ? devices[device].refusals : 0);
    close_fixture(&f);
    features = 0;
    *log_text = log_of_run();
    return o;
}

static void check_devices_agree(const char *overrides[], size_t n, int launches, const char *last) {
    char *expected_log = NULL;
    struct outcome expected = run_on(0, overrides, n, 0, &expected_log);
    assert_non_null(strstr(expected_log, last));
    for (int d = 1; d < DEVICES; d++) {
        char *log = NULL;
        struct outcome o = run_on(d, overrides, n, launches, &log);
        assert_same(&expected, &o);
        assert_string_equal(log, expected_log);
        free(log);
        free_outcome(&o);
    }
    free(expected_log);
    free_outcome(&expected);
}

static void test_devices_agree(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.qat_below=0.5", "run.priming_steps=5", "run.log_every=1",
                               "run.validate_every=5"};
    check_devices_agree(overrides, 4, 10, "\"step\":12,\"loss\"");
}

/* One step; one pass a step; passes that leave one sequence; checkpoints of every step and of the
 * last; tokens in order; all that a model can have, quantized from the beginning. */
static void test_devices_agree_on_other_runs(void **state) {
    (void)state;
    write_tokens(1);
    const struct {
        const char *overrides[8];
        size_t n;
        int launches;
        const char *last;
    } cases[] = {
        {{"run.steps=1", "average.plugin=none"}, 2, 0, "\"step\":1,\"loss\""},
        {{"run.steps=2", "average.plugin=ema", "run.log_every=1"}, 3, 1, "\"step\":2,\"loss\""},
        {{"run.micro_batch=0", "run.checkpoint_every=1"}, 2, 11, "\"step\":12,\"loss\""},
        {{"run.micro_batch=7", "run.checkpoint_every=12", "data.shuffle=none"},
         3,
         11,
         "\"step\":12"},
        {{"run.micro_batch=5", "model.layers=4", "model.skips=yes", "model.layer_scales=yes",
          "model.x0_mix=yes", "model.bigram_slots=17", "model.value_layers=1", "run.qat_below=1"},
         8,
         10,
         "\"quantized\":true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *overrides[8];
        memcpy(overrides, cases[i].overrides, sizeof overrides);
        check_devices_agree(overrides, cases[i].n, cases[i].launches, cases[i].last);
    }
}

/* The last step is logged whatever run.log_every says, also when the clock ends the run. */
static void test_the_last_step_is_logged(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.steps=0", "run.seconds=0.1", "run.log_every=1000000",
                               "run.checkpoint_every=0", "average.plugin=none"};
    for (int d = 0; d < 3; d++) {
        char *log = NULL, last[64];
        struct outcome o = run_on(d, overrides, 5, 0, &log);
        (void)snprintf(last, sizeof last, "{\"step\":%lld,", (long long)o.result.steps);
        assert_true(strncmp(log, last, strlen(last)) == 0);
        assert_true(o.result.seconds >= 0.1);
        free(log);
        free_outcome(&o);
    }
}

static void dawdle(struct wrapped_device *wrapped, const char *op, const void *arguments) {
    (void)wrapped, (void)arguments;
    const struct timespec pause = {0, 60000000};
    if (strcmp(op, "clip") == 0) (void)nanosleep(&pause, NULL);
}

/* How slow priming was says nothing of the steps that count: where seconds end the run, the second
 * step's learning rate is that of a run without. */
static void test_slow_priming(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.steps=0",        "run.seconds=0.2", "run.warmdown_steps=20",
                               "run.warmup_steps=0", "run.log_every=1", "run.priming_steps=1",
                               "average.plugin=none"};
    struct fixture f;
    struct log *log = NULL;
    features = WRAP_PINNED;
    assert_ok(open_fixture(&f, false, overrides, 7), &error);
    f.wrapped.after = dawdle;
    assert_ok(trainer_start(f.trainer, &error), &error);
    f.wrapped.after = NULL;
    assert_ok(log_open("log.jsonl", &log, &error), &error);
    struct outcome o = {.n = model_arena_count(f.model)};
    o.status = trainer_run(f.trainer, log, &o.result, &error);
    assert_ok(o.status, &error);
    log_close(log);
    close_fixture(&f);
    features = 0;
    free_outcome(&o);
    char *text = log_of_run(), *second = strstr(text, "\"step\":2,");
    assert_non_null(second);
    *strchr(second, '\n') = '\0';
    assert_non_null(strstr(second, "\"schedule\":1,"));
    free(text);
}

static void test_resuming_ahead(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.qat_below=0.9", "run.priming_steps=2"};
    features = WRAP_PINNED | WRAP_CAPTURE;
    check_resume(overrides, 2, "run.validate_every=6");
    check_resume(overrides, 2, "run.validate_every=11");
    features = 0;
}

/* The gradient of one matrix breaks at the tokens of one step, and at no others. */
struct breakage {
    int32_t tokens[16]; /* how that step's first pass begins */
    bool now;
    const float *gradient;
    float weights_before[64]; /* of the matrix, before the step */
};

static void break_gradient(struct wrapped_device *wrapped, const char *op, const void *arguments) {
    struct breakage *b = wrapped->argument;
    if (strcmp(op, "cross_entropy_forward") == 0) {
        const fw_cross_entropy *loss = arguments;
        b->now = memcmp(loss->targets.data, b->tokens, sizeof b->tokens) == 0;
    }
    const fw_gemm *gemm = arguments;
    if (strcmp(op, "gemm") == 0 && b->now && gemm->c.data == b->gradient)
        ((float *)gemm->c.data)[1] = INFINITY;
}

static fw_status keep_weights(void *argument, int64_t step, const float *weights, fw_error *why) {
    (void)why;
    struct fixture *f = argument;
    struct breakage *b = f->wrapped.argument;
    if (step == 6)
        memcpy(b->weights_before, weights + model_offset(f->model, POISONED),
               sizeof b->weights_before);
    return FW_OK;
}

/* How the step's first sequence goes on. */
static void find_targets(const struct fixture *f, int64_t step, int32_t targets[16]) {
    int32_t inputs[16];
    struct batches *batches = NULL;
    assert_ok(batches_create(f->corpus, 16, true, (uint64_t)f->session.experiment->run.seed,
                             &batches, &error),
              &error);
    batches_read(batches, (uint64_t)step * 8, 1, inputs, targets);
    batches_destroy(batches);
}

/* The first of attention's matrices is where the three that share a product begin. */
static uint32_t matrix_to_break(const struct model *model) {
    uint32_t index = POISONED;
    while (strstr(model_weight(model, index)->name, "mlp.up") == NULL) index++;
    return index;
}

static void break_step(int device, int64_t step, const char *overrides[], size_t n,
                       const char *named, const char *saved) {
    struct fixture f;
    struct breakage breakage = {0};
    features = devices[device].features;
    assert_ok(open_fixture(&f, false, overrides, n), &error);
    find_targets(&f, step, breakage.tokens);
    const uint32_t index = matrix_to_break(f.model);
    breakage.gradient = model_view(f.model, model_gradients(f.model), index).data;
    f.options.validate = keep_weights;
    f.wrapped.argument = &breakage;
    f.wrapped.after = break_gradient;
    struct outcome o = run(&f);
    assert_fails(o.status, FW_E_NUMERIC, &error, named, "the gradient of",
                 model_weight(f.model, index)->name, saved);
    if (step == 6)
        assert_memory_equal(model_view(f.model, model_masters(f.model), POISONED).data,
                            breakage.weights_before, sizeof breakage.weights_before);
    close_fixture(&f);
    features = 0;
}

/* The step is named, not the one that was under way when the host heard of it; its tensor is found
 * although another's gradients lie there; and neither step has changed a weight. So with the first
 * step, one behind another, the last, and one of priming. */
static void test_a_gradient_that_is_not_finite(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.validate_every=6", "run.qat_below=0.9", "run.priming_steps=3"};
    for (int d = 0; d < DEVICES; d++) {
        break_step(d, 0, overrides, 2, "stopped at step 0", "not finite");
        break_step(d, 6, overrides, 2, "stopped at step 6", "checkpoint.fw, of step 4");
        break_step(d, 10, overrides, 2, "stopped at step 10", "checkpoint.fw, of step 8");
        break_step(d, 11, overrides, 2, "stopped at step 11", "checkpoint.fw, of step 8");
        break_step(d, 2, overrides, 3, "stopped at priming step 2", "not finite");
    }
}

/* Wherever the device fails, the run ends with its words, or goes on without what failed (graphs,
 * a checkpoint) to the same weights; and nothing is left behind. */
static void test_a_device_that_fails(void **state) {
    (void)state;
    write_tokens(1);
    const char *overrides[] = {"run.steps=3", "run.priming_steps=1", "run.qat_below=1",
                               "run.checkpoint_every=2", "average.plugin=ema"};
    for (int d = 0; d < DEVICES; d++) {
        struct outcome expected = {0};
        int64_t calls = 1, failures = 0;
        for (fail_at = 0; fail_at <= calls; fail_at += 1 + fail_at / 12) {
            struct fixture f;
            features = devices[d].features;
            struct outcome o = {.status = open_fixture(&f, false, overrides, 5)};
            if (o.status == FW_OK) o = run(&f);
            if (fail_at == 0) calls = f.wrapped.calls;
            close_fixture(&f);
            if (o.status != FW_OK) assert_fails(o.status, FW_E_DEVICE, &error, "failed at call");
            failures += o.status != FW_OK;
            if (fail_at == 0) {
                assert_ok(o.status, &error);
                expected = o;
                continue;
            }
            if (o.status == FW_OK) assert_same(&expected, &o);
            free_outcome(&o);
        }
        assert_true(failures > 20);
        free_outcome(&expected);
    }
    features = 0;
    fail_at = 0;
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
        TEST(test_devices_agree),
        TEST(test_devices_agree_on_other_runs),
        TEST(test_the_last_step_is_logged),
        TEST(test_slow_priming),
        TEST(test_resuming_ahead),
        TEST(test_a_gradient_that_is_not_finite),
        TEST(test_a_device_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
