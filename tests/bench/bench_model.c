/* Speed of a whole model: training, its parts, inference and evaluation from tokens to bits per
 * byte, then where a training step's time goes by op.
 *
 *     bench_model [INI [SECTION.KEY=VALUE...]]
 *
 * Without INI it is configs/quickstart.ini; configs/seed993.ini with run.batch_tokens=2048
 * eval.batch=1 is the reference record on a processor. The tokens are synthetic text (bench.h), not
 * the INI's data; the tokenizer is opened only when model.vocabulary does not say how many there
 * are. Operations are model_forward_flops, and three times that for forward and backward; what
 * optimizers, averager and cache compute is not counted. The ratio is to a square product of 2048
 * through the device's own gemm, measured in the same run, on all threads. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "average.h"
#include "evaluate.h"
#include "op_times.h"
#include "optimize.h"
#include "scorer.h"
#include "shard.h"

enum { CEILING_SIZE = 2048, SCORED_TOKENS = 16384, LEAST_RUNS = 3, PROFILED_STEPS = 2 };

#define BUDGET 2.0 /* seconds of each measurement, when LEAST_RUNS fit into them */

static struct session session;
static fw_device *device;
static struct model *trained, *scored; /* for training and for inference */
static struct optimizers *optimizers;
static struct averaging *averaging;
static struct corpus *corpus;
static int64_t sequence, sequences; /* T, and sequences of a step */
static int32_t *inputs, *targets;   /* of a step, or of one inference batch */
static int64_t step;
static double ceiling; /* FLOP/s */
static fw_error error = {.struct_size = sizeof error};

/* ---- the table ---- */

static void print_ratio(double flops, double seconds) {
    if (flops > 0)
        (void)printf(" %9.1f %6.2f\n", 1e-9 * flops / seconds, flops / seconds / ceiling);
    else
        (void)printf(" %9s %6s\n", "", "");
}

static void print_row(const char *what, uint64_t tokens, double flops, timing taken) {
    (void)printf("%-34s %9.1f %9.1f", what, 1e3 * taken.median, 1e3 * taken.best);
    if (tokens > 0)
        (void)printf(" %8llu %9.0f", (unsigned long long)tokens, (double)tokens / taken.best);
    else
        (void)printf(" %8s %9s", "", "");
    print_ratio(flops, taken.best);
}

/* ---- the ceiling ---- */

/* A random matrix of the device's compute dtype; the caller releases it. */
static fw_tensor random_matrix(int64_t n, uint64_t seed) {
    const size_t count = (size_t)(n * n);
    test_random random = {seed};
    float *host = must(malloc(count * sizeof *host));
    for (size_t i = 0; i < count; i++) host[i] = (float)test_normal(&random);
    void *from = NULL, *to = NULL;
    stop_on(device->allocate(device, count * sizeof *host, &from, &error), &error);
    stop_on(device->copy_from_host(device, from, host, count * sizeof *host, &error), &error);
    free(host);
    if (device->compute_dtype == FW_F32) return fw_matrix(from, FW_F32, n, n);
    const size_t bytes = count * fw_dtype_size(device->compute_dtype);
    stop_on(device->allocate(device, bytes, &to, &error), &error);
    const fw_cast cast = {.struct_size = sizeof cast,
                          .from = fw_matrix(from, FW_F32, n, n),
                          .to = fw_matrix(to, device->compute_dtype, n, n)};
    stop_on(device->ops->cast(device, &cast, &error), &error);
    stop_on(device->synchronize(device, &error), &error);
    device->release(device, from);
    return cast.to;
}

static fw_status call_gemm(const void *argument, fw_error *why) {
    FW_TRY(device->ops->gemm(device, argument, why));
    return device->synchronize(device, why);
}

static void bench_ceiling(void) {
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .alpha = 1,
                          .a = random_matrix(CEILING_SIZE, 1),
                          .b = random_matrix(CEILING_SIZE, 2),
                          .c = random_matrix(CEILING_SIZE, 3)};
    const timing taken = bench_measure(call_gemm, &gemm, 5, 1.0);
    ceiling = gemm_flops(&gemm) / taken.best;
    print_row("gemm of 2048 cubed (the ceiling)", 0, gemm_flops(&gemm), taken);
    device->release(device, gemm.a.data);
    device->release(device, gemm.b.data);
    device->release(device, gemm.c.data);
}

/* ---- training ---- */

/* Sequences of one pass, as train() takes them. */
static int64_t micro_batch(void) {
    const int64_t micro = session.experiment->run.micro_batch;
    return micro > 0 && micro < sequences ? micro : sequences;
}

static fw_status call_passes(const void *argument, fw_error *why) {
    (void)argument;
    const float scale = 1.0f / (float)(sequences * sequence);
    for (int64_t done = 0; done < sequences; done += micro_batch()) {
        const int64_t left = sequences - done;
        const struct model_batch batch = {inputs + done * sequence, targets + done * sequence,
                                          left < micro_batch() ? left : micro_batch(), sequence};
        FW_TRY(model_train_pass(trained, &batch, scale, done > 0, why));
    }
    return device->synchronize(device, why);
}

/* At a thousandth of the learning rate, so that the weights stay what they are at the beginning. */
static fw_status call_optimizers(const void *argument, fw_error *why) {
    (void)argument;
    fw_step steps[OPTIMIZER_GROUPS];
    FW_TRY(optimizers_prepare(optimizers, step, 1e-3, false, steps, why));
    FW_TRY(optimizers_step(optimizers, (float)session.experiment->run.gradient_clip, why));
    return device->synchronize(device, why);
}

static fw_status call_averager(const void *argument, fw_error *why) {
    (void)argument;
    FW_TRY(averaging_update(averaging, step, 1e-3, why));
    return device->synchronize(device, why);
}

static fw_status call_training_step(const void *argument, fw_error *why) {
    FW_TRY(call_passes(argument, why));
    FW_TRY(call_optimizers(argument, why));
    FW_TRY(call_averager(argument, why));
    step++;
    double loss;
    return model_read_loss(trained, &loss, why);
}

static void bench_training(void) {
    const uint64_t tokens = (uint64_t)(sequences * sequence);
    const double flops = 3 * model_forward_flops(trained, sequences, sequence);
    print_row("training step", tokens, flops,
              bench_measure(call_training_step, NULL, LEAST_RUNS, BUDGET));
    print_row("  forward and backward", tokens, flops,
              bench_measure(call_passes, NULL, LEAST_RUNS, BUDGET));
    print_row("  optimizers", 0, 0, bench_measure(call_optimizers, NULL, LEAST_RUNS, BUDGET));
    if (averaging_is_on(averaging))
        print_row("  averager", 0, 0, bench_measure(call_averager, NULL, LEAST_RUNS, BUDGET));
}

static bool is_matrix_product(const char *op) {
    return strcmp(op, "gemm") == 0 || strcmp(op, "newton_schulz") == 0;
}

static void print_op(const op_time *op, double seconds) {
    (void)printf("%-34s %9.0f %9.2f %7.1f%% %9s", op->name, (double)op->calls / PROFILED_STEPS,
                 1e3 * op->seconds / PROFILED_STEPS, 100 * op->seconds / seconds, "");
    print_ratio(op->flops, op->seconds);
}

static void profile_training(void) {
    op_times_start();
    const double begin = bench_seconds();
    for (int i = 0; i < PROFILED_STEPS; i++) stop_on(call_training_step(NULL, &error), &error);
    const double seconds = bench_seconds() - begin;
    size_t n = 0;
    const op_time *times = op_times_stop(&n);
    (void)printf("\n%-34s %9s %9s %8s %9s %9s %6s\n", "a training step by op", "calls", "ms",
                 "share", "", "GFLOP/s", "ratio");
    double rest = seconds;
    op_time products = {"matrix products in all", 0, 0, 0};
    for (size_t i = 0; i < n; i++) {
        const op_time *op = &times[i];
        rest -= op->seconds;
        if (is_matrix_product(op->name)) {
            products.calls += op->calls;
            products.seconds += op->seconds;
            products.flops += op->flops;
        }
        print_op(op, seconds);
    }
    (void)printf("%-34s %9s %9.2f %7.1f%%\n", "outside the ops", "", 1e3 * rest / PROFILED_STEPS,
                 100 * rest / seconds);
    print_op(&products, seconds);
}

/* ---- inference and evaluation ---- */

static fw_status call_infer(const void *argument, fw_error *why) {
    (void)argument;
    const struct experiment *experiment = session.experiment;
    FW_TRY(model_infer(scored, inputs, experiment->eval.batch, evaluate_window(experiment), why));
    return device->synchronize(device, why);
}

static fw_status call_evaluate(const void *argument, fw_error *why) {
    const bool with_cache = *(const bool *)argument;
    struct evaluate_result result;
    return score_corpus(&session, scored, session.table, corpus, EVAL_PLAIN, 0, with_cache,
                        "scoring", &result, why);
}

static void bench_scoring(void) {
    const uint64_t batch = (uint64_t)session.experiment->eval.batch;
    const uint64_t window = (uint64_t)evaluate_window(session.experiment);
    const uint64_t n = corpus_tokens(corpus) - 1;
    const double flops = model_forward_flops(scored, (int64_t)batch, (int64_t)window);
    const double all = flops * (double)(n / (batch * window));
    print_row("forward (model_infer)", batch * window, flops,
              bench_measure(call_infer, NULL, LEAST_RUNS, BUDGET));
    const bool off = false, on = true;
    print_row("evaluation, plain windows", n, all,
              bench_measure(call_evaluate, &off, LEAST_RUNS, BUDGET));
    char name[80];
    (void)snprintf(name, sizeof name, "  with cache %s", session.experiment->cache.name);
    print_row(name, n, all, bench_measure(call_evaluate, &on, LEAST_RUNS, BUDGET));
}

/* ---- opening ---- */

/* Tokens of one byte each, where no tokenizer is needed to know how many there are. */
static void open_table(void) {
    const uint32_t vocabulary = (uint32_t)session.experiment->model.vocabulary;
    if (vocabulary == 0) {
        stop_on(session_open_tokenizer(&session, &error), &error);
        return;
    }
    fw_token_info *tokens = must(calloc(vocabulary, sizeof *tokens));
    for (uint32_t i = 0; i < vocabulary; i++) tokens[i].base_bytes = 1;
    const struct token_table plain = {vocabulary, -1, {0}, tokens};
    stop_on(token_table_copy(&plain, &session.table, &error), &error);
    free(tokens);
}

static void open_session(int argc, char **argv) {
    static struct arguments arguments;
    const char *path = argc > 1 ? argv[1] : QUICKSTART_INI;
    for (int i = 2; i < argc && i < MAX_ARGUMENTS; i++)
        arguments.overrides[arguments.n_overrides++] = argv[i];
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_TOKENIZER) |
                           CONFIG_BIND(FW_ATTENTION) | CONFIG_BIND(FW_OPTIMIZER) |
                           CONFIG_BIND(FW_AVERAGER) | CONFIG_BIND(FW_CACHE);
    stop_on(session_open(&arguments, path, NULL, kinds, &session, &error), &error);
    open_table();
    session.progress.interval = (double)INFINITY; /* the table says all */
    device = session.services->device;
    op_times_install(device);
}

/* What evaluate() reads, through a shard that is removed as soon as it is mapped. */
static struct corpus *corpus_of(const uint16_t *tokens, uint64_t n) {
    char directory[] = "/tmp/bench_model-XXXXXX", path[64], documents[80];
    if (mkdtemp(directory) == NULL) {
        perror("bench_model: /tmp");
        exit(1);
    }
    (void)snprintf(path, sizeof path, "%s/text.bin", directory);
    (void)snprintf(documents, sizeof documents, "%s" SHARD_DOCUMENTS_SUFFIX, path);
    const uint8_t hash[32] = {0};
    struct shard_writer *writer = NULL;
    stop_on(shard_create(path, session.table->fingerprint, &writer, &error), &error);
    stop_on(shard_append(writer, tokens, n, n, hash, &error), &error);
    stop_on(shard_commit(writer, &error), &error);
    const struct corpus_options options = {.source = path,
                                           .vocabulary = session.table->vocabulary,
                                           .tokenizer = session.tokenizer,
                                           .tokenizer_self = session.tokenizer_self};
    struct corpus *made = NULL;
    const fw_status status = corpus_open(&options, &made, &error);
    (void)unlink(documents);
    (void)unlink(path);
    (void)rmdir(directory);
    stop_on(status, &error);
    return made;
}

/* Whole inference batches to score, and inputs and targets enough for a step or a batch. */
static void open_text(void) {
    const struct experiment *experiment = session.experiment;
    const size_t batch = (size_t)(experiment->eval.batch * evaluate_window(experiment));
    const size_t n_scored = (SCORED_TOKENS + batch - 1) / batch * batch;
    const size_t rows = (size_t)(sequences * sequence);
    const size_t n = (rows > n_scored ? rows : n_scored) + 1;
    uint32_t *text = synthetic_text(session.table->vocabulary, n);
    uint16_t *tokens = must(malloc(n * sizeof *tokens));
    inputs = must(malloc(n * sizeof *inputs));
    targets = must(malloc(n * sizeof *targets));
    for (size_t i = 0; i < n; i++) {
        tokens[i] = (uint16_t)text[i];
        inputs[i] = (int32_t)text[i];
        targets[i] = (int32_t)text[(i + 1) % n];
    }
    corpus = corpus_of(tokens, n_scored + 1);
    free(tokens);
    free(text);
}

static void open_models(void) {
    const struct model_options options = {.experiment = session.experiment,
                                          .host = session.services,
                                          .vocabulary = session.table->vocabulary,
                                          .batch = micro_batch(),
                                          .tokens = sequence,
                                          .training = true};
    stop_on(model_create(&options, &trained, &error), &error);
    stop_on(model_initialise(trained, &error), &error);
    stop_on(optimizers_create(session.experiment, session.services, trained, &optimizers, &error),
            &error);
    stop_on(averaging_create(&session.experiment->average, session.services, trained, &averaging,
                             &error),
            &error);
    stop_on(scoring_model(&session, session.table->vocabulary, &scored, &error), &error);
    stop_on(model_initialise(scored, &error), &error);
}

static void close_all(void) {
    corpus_close(corpus);
    averaging_destroy(averaging);
    optimizers_destroy(optimizers);
    model_destroy(scored);
    model_destroy(trained);
    op_times_remove();
    session_close(&session);
    free(targets);
    free(inputs);
}

static void print_heading(const char *ini) {
    const struct experiment *experiment = session.experiment;
    const fw_device_driver *driver = experiment->device.entry->plugin->vtable;
    fw_device_info info = {.struct_size = sizeof info};
    stop_on(driver->describe(device->ordinal, &info, &error), &error);
    (void)printf("%s; %s\n%s: %lld parameters, steps of %lld x %lld tokens\n", info.name,
                 info.libraries, ini, (long long)model_parameters(trained), (long long)sequences,
                 (long long)sequence);
    (void)printf("%-34s %9s %9s %8s %9s %9s %6s\n", "", "ms", "best ms", "tokens", "tokens/s",
                 "GFLOP/s", "ratio");
}

static void print_memory(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        (void)printf("peak memory, both models: %.2f GB\n", 1024e-9 * (double)usage.ru_maxrss);
}

int main(int argc, char **argv) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    open_session(argc, argv);
    sequence = session.experiment->data.sequence;
    sequences = session.experiment->run.batch_tokens / sequence;
    open_text();
    open_models();
    print_heading(session.experiment->run.name);
    bench_ceiling();
    bench_training();
    bench_scoring();
    profile_training();
    print_memory();
    close_all();
    return 0;
}
