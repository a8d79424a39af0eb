/* Speed of a whole model: training as train() does it, its parts, inference and evaluation from
 * tokens to bits per byte, then where a training step's time goes by op.
 *
 *     bench_model [INI [SECTION.KEY=VALUE...]]
 *
 * Without INI it is configs/quickstart.ini; configs/seed993.ini with run.batch_tokens=2048
 * eval.batch=1 is the reference record on a processor. The tokens are synthetic text (bench.h), not
 * the INI's data; the tokenizer is opened only when model.vocabulary does not say how many there
 * are. Operations of a training step are those of its matrix products and of attention (the pairs
 * that are seen, and backward 2.5 times forward), counted as the ops are called; of inference,
 * model_forward_flops; what optimizers, averager and cache compute is not counted. The ratio is to
 * a large square product through the device's own gemm, measured in the same run, on all threads;
 * where the GPU's nominal rate is known, its share is printed, too (model FLOPs utilisation). On a
 * GPU single ops are timed with a wait after each: their shares mean something, their sum is more
 * than a step. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "average.h"
#include "decoder.h"
#include "evaluate.h"
#include "op_times.h"
#include "optimize.h"
#include "scorer.h"
#include "shard.h"
#include "train_internal.h" /* one step at a time is in no other interface */

enum { LEAST_RUNS = 3, PROFILED_STEPS = 2, WARM_UP_STEPS = 5, MOST_STEPS = 60 };

#define BUDGET 2.0  /* seconds of each measurement, when LEAST_RUNS fit into them */
#define SLOWLY 1e-3 /* of the learning rate: the weights stay what they are at the beginning */
#define CHALLENGE_TOKENS                                                                           \
    3.4e6 /* of the books' validation text; for how long scoring would take                        \
           */

static struct session session;
static fw_device *device;
static struct model *trained, *scored; /* for training and for inference */
static struct trainer *trainer;
static struct corpus *training, *corpus;
static struct corpus *long_text;    /* a stream's: its memory is got once for all of it */
static int64_t sequence, sequences; /* T, and sequences of a step */
static int32_t *inputs, *targets;   /* of a step, or of one inference batch */
static bool gpu;
static double ceiling;    /* FLOP/s */
static double step_flops; /* of a training step */
static op_time ops[64];   /* of PROFILED_STEPS of them */
static size_t n_ops;
static double ops_seconds; /* what those took in all */
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

/* ---- memory ---- */

/* What was asked of the device and not given back, and the most that was so at a time. */
static struct {
    fw_status (*allocate)(fw_device *, size_t, void **, fw_error *);
    void (*release)(fw_device *, void *);
    struct {
        void *memory;
        size_t bytes;
    } blocks[4096];
    size_t n, now, most;
} memory;

static fw_status count_allocate(fw_device *d, size_t bytes, void **out, fw_error *why) {
    FW_TRY(memory.allocate(d, bytes, out, why));
    if (memory.n < sizeof memory.blocks / sizeof memory.blocks[0]) {
        memory.blocks[memory.n].memory = *out;
        memory.blocks[memory.n++].bytes = bytes;
        memory.now += bytes;
        if (memory.now > memory.most) memory.most = memory.now;
    }
    return FW_OK;
}

static void count_release(fw_device *d, void *block) {
    for (size_t i = 0; block != NULL && i < memory.n; i++) {
        if (memory.blocks[i].memory != block) continue;
        memory.now -= memory.blocks[i].bytes;
        memory.blocks[i] = memory.blocks[--memory.n];
        break;
    }
    memory.release(d, block);
}

static void count_memory(void) {
    memory.allocate = device->allocate;
    memory.release = device->release;
    device->allocate = count_allocate;
    device->release = count_release;
}

static void stop_counting(void) {
    device->allocate = memory.allocate;
    device->release = memory.release;
}

static void print_memory(void) {
    struct rusage usage;
    if (gpu)
        (void)printf("most device memory asked for at a time, both models: %.2f GB\n",
                     1e-9 * (double)memory.most);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        (void)printf("peak memory of the program, both models: %.2f GB\n",
                     1024e-9 * (double)usage.ru_maxrss);
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
    const int64_t side = gpu ? 8192 : 2048;
    char name[64];
    (void)snprintf(name, sizeof name, "gemm of %lld cubed (the ceiling)", (long long)side);
    const fw_gemm gemm = {.struct_size = sizeof gemm,
                          .alpha = 1,
                          .a = random_matrix(side, 1),
                          .b = random_matrix(side, 2),
                          .c = random_matrix(side, 3)};
    const timing taken = bench_measure(call_gemm, &gemm, 5, 1.0);
    ceiling = gemm_flops(&gemm) / taken.best;
    print_row(name, 0, gemm_flops(&gemm), taken);
    device->release(device, gemm.a.data);
    device->release(device, gemm.b.data);
    device->release(device, gemm.c.data);
}

/* Dense bfloat16 by the data sheet, FLOP/s; 0 for what is not listed. */
static double nominal_rate(const char *name) {
    static const struct {
        const char *part;
        double rate;
    } known[] = {{"H100 PCIe", 756e12},
                 {"H100 NVL", 835e12},
                 {"H100", 989.4e12},
                 {"H200", 989.4e12},
                 {"A100", 312e12}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strstr(name, known[i].part) != NULL) return known[i].rate;
    return 0;
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

static fw_status call_optimizers(const void *argument, fw_error *why) {
    (void)argument;
    static fw_step steps[OPTIMIZER_GROUPS];
    FW_TRY(optimizers_prepare(trainer->optimizers, trainer->step, SLOWLY, false, steps, why));
    FW_TRY(optimizers_step(trainer->optimizers, (float)session.experiment->run.gradient_clip, why));
    return device->synchronize(device, why);
}

static fw_status call_averager(const void *argument, fw_error *why) {
    (void)argument;
    FW_TRY(averaging_update(trainer->averaging, trainer->step, SLOWLY, why));
    return device->synchronize(device, why);
}

static void hear_step(void) {
    double loss;
    fw_step outcome;
    stop_on(train_hear(trainer, &loss, &outcome, &error), &error);
}

/* As train() does: the next step is issued before the last one was heard of, where the device works
 * by itself. Seconds from one to the next. */
static double one_step(void) {
    const bool behind = trainer->next > trainer->step;
    stop_on(train_issue(trainer, SLOWLY, false, &error), &error);
    if (behind || !train_runs_ahead(trainer)) hear_step();
    return trainer->pace;
}

static void end_steps(void) {
    while (trainer->next > trainer->step) hear_step();
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static timing time_steps(void) {
    double times[MOST_STEPS];
    int n = 0;
    double start = bench_seconds();
    for (int i = 0; i < WARM_UP_STEPS && (i == 0 || bench_seconds() - start < BUDGET); i++)
        (void)one_step();
    const int least = bench_seconds() - start > BUDGET ? 1 : gpu ? 20 : LEAST_RUNS;
    const double budget = gpu ? 3 * BUDGET : BUDGET;
    start = bench_seconds();
    while (n < MOST_STEPS && (n < least || bench_seconds() - start < budget))
        times[n++] = one_step();
    end_steps();
    qsort(times, (size_t)n, sizeof times[0], ascending);
    return (timing){times[n / 2], times[0]};
}

static void bench_training(const fw_device_info *info) {
    const uint64_t tokens = (uint64_t)(sequences * sequence);
    const timing taken = time_steps();
    print_row("training step", tokens, step_flops, taken);
    const double nominal = nominal_rate(info->name);
    if (nominal > 0)
        (void)printf("  %.1f%% of the %.0f TFLOP/s of the data sheet (by the median %.1f%%)\n",
                     100 * step_flops / taken.best / nominal, 1e-12 * nominal,
                     100 * step_flops / taken.median / nominal);
    print_row("  forward and backward", tokens, step_flops,
              bench_measure(call_passes, NULL, LEAST_RUNS, BUDGET));
    print_row("  optimizers", 0, 0, bench_measure(call_optimizers, NULL, LEAST_RUNS, BUDGET));
    if (averaging_is_on(trainer->averaging))
        print_row("  averager", 0, 0, bench_measure(call_averager, NULL, LEAST_RUNS, BUDGET));
}

/* ---- by op ---- */

static bool begins(const char *op, const char *with) {
    return strncmp(op, with, strlen(with)) == 0;
}

static bool is_product(const char *op) {
    return strcmp(op, "gemm") == 0 || begins(op, "linear_activation");
}

static bool is_attention(const char *op) { return begins(op, "attention"); }

static bool is_newton_schulz(const char *op) { return strcmp(op, "newton_schulz") == 0; }

static fw_status call_all(fw_error *why) {
    FW_TRY(call_passes(NULL, why));
    FW_TRY(call_optimizers(NULL, why));
    return call_averager(NULL, why);
}

/* What adds up to one line, by op; NULL: all. */
static op_time sum_of(const char *name, bool takes(const char *op)) {
    op_time sum = {name, 0, 0, 0};
    for (size_t i = 0; i < n_ops; i++) {
        if (takes != NULL && !takes(ops[i].name)) continue;
        sum.calls += ops[i].calls;
        sum.seconds += ops[i].seconds;
        sum.flops += ops[i].flops;
    }
    return sum;
}

static void profile_training(void) {
    stop_on(call_all(&error), &error); /* what the device decides by timing is decided now */
    op_times_start();
    const double begin = bench_seconds();
    for (int i = 0; i < PROFILED_STEPS; i++) stop_on(call_all(&error), &error);
    ops_seconds = bench_seconds() - begin;
    const op_time *times = op_times_stop(&n_ops);
    if (n_ops > sizeof ops / sizeof ops[0]) n_ops = sizeof ops / sizeof ops[0];
    memcpy(ops, times, n_ops * sizeof *times);
    step_flops = (sum_of("", is_product).flops + sum_of("", is_attention).flops) / PROFILED_STEPS;
}

static void print_op(const op_time *op) {
    (void)printf("%-34s %9.0f %9.2f %7.1f%% %9s", op->name, (double)op->calls / PROFILED_STEPS,
                 1e3 * op->seconds / PROFILED_STEPS, 100 * op->seconds / ops_seconds, "");
    print_ratio(op->flops, op->seconds);
}

static void print_profile(void) {
    (void)printf("\n%-34s %9s %9s %8s %9s %9s %6s\n", "a training step by op", "calls", "ms",
                 "share", "", "GFLOP/s", "ratio");
    for (size_t i = 0; i < n_ops; i++) print_op(&ops[i]);
    op_time lines[] = {sum_of("matrix products in all", is_product),
                       sum_of("attention in all", is_attention),
                       sum_of("Newton-Schulz", is_newton_schulz), sum_of("", NULL)};
    const double outside = ops_seconds - lines[3].seconds;
    op_time *other = &lines[3];
    other->name = "other ops in all";
    other->flops = 0;
    for (int i = 0; i < 3; i++) {
        other->calls -= lines[i].calls;
        other->seconds -= lines[i].seconds;
    }
    for (int i = 0; i < 4; i++) print_op(&lines[i]);
    (void)printf("%-34s %9s %9.2f %7.1f%%\n", "outside the ops", "", 1e3 * outside / PROFILED_STEPS,
                 100 * outside / ops_seconds);
    const double tokens = PROFILED_STEPS * (double)(sequences * sequence);
    (void)printf(
        "a token, forward and backward: %.1f MFLOP in matrix products, %.1f in attention\n",
        1e-6 * lines[0].flops / tokens, 1e-6 * lines[1].flops / tokens);
}

/* ---- inference and evaluation ---- */

static fw_status call_infer(const void *argument, fw_error *why) {
    (void)argument;
    const struct experiment *experiment = session.experiment;
    FW_TRY(model_infer(scored, inputs, experiment->eval.batch, evaluate_window(experiment), why));
    return device->synchronize(device, why);
}

struct way_to_score {
    int64_t mode;
    bool with_cache;
};

static fw_status call_evaluate(const void *argument, fw_error *why) {
    const struct way_to_score *way = argument;
    struct evaluate_result result;
    return score_corpus(&session, scored, session.table, corpus, way->mode, 0, way->with_cache,
                        "scoring", &result, why);
}

/* Each window scores eval.stride tokens: 2048/64 computes 32 tokens for each. */
static void bench_sliding(uint64_t n, double flops_a_window) {
    const struct way_to_score sliding = {EVAL_SLIDING, false};
    const double windows = (double)n / (double)session.experiment->eval.stride;
    const timing taken = bench_measure(call_evaluate, &sliding, LEAST_RUNS, BUDGET);
    char name[80];
    (void)snprintf(name, sizeof name, "evaluation, sliding %lld/%lld",
                   (long long)evaluate_window(session.experiment),
                   (long long)session.experiment->eval.stride);
    print_row(name, n, flops_a_window * windows, taken);
    (void)printf("  %.0f windows/s; %.1f s for %.1f M tokens\n", windows / taken.best,
                 CHALLENGE_TOKENS * taken.best / (double)n, 1e-6 * CHALLENGE_TOKENS);
}

static fw_status call_stream(const void *argument, fw_error *why) {
    struct evaluate_result result;
    (void)argument;
    return score_corpus(&session, scored, session.table, long_text, EVAL_STREAM, 0, false,
                        "scoring", &result, why);
}

static void bench_stream(void) {
    const uint64_t n = corpus_tokens(long_text) - 1;
    const timing taken = bench_measure(call_stream, NULL, LEAST_RUNS, BUDGET);
    char name[80];
    (void)snprintf(name, sizeof name, "evaluation, stream %lld by %lld",
                   (long long)evaluate_window(session.experiment),
                   (long long)evaluate_chunk(session.experiment));
    print_row(name, n, 0, taken);
    (void)printf("  %.2f s for %.1f M tokens\n", CHALLENGE_TOKENS * taken.best / (double)n,
                 1e-6 * CHALLENGE_TOKENS);
}

enum { DECODED = 64 };

static fw_status call_decode(const void *argument, fw_error *why) {
    struct decoder *decoder = (struct decoder *)(uintptr_t)argument;
    static float row[65536];
    for (int i = 0; i < DECODED; i++) FW_TRY(decoder_feed(decoder, inputs + i, 1, row, why));
    return FW_OK;
}

/* Token by token with a full window. */
static void bench_decode(void) {
    const int64_t window = evaluate_window(session.experiment);
    const struct decoder_options options = {.model = scored, .most = window, .window = window};
    struct decoder *decoder = NULL;
    stop_on(decoder_create(&options, &decoder, &error), &error);
    stop_on(decoder_read(decoder, inputs, window, &error), &error);
    char name[80];
    (void)snprintf(name, sizeof name, "decoding token by token, window %lld", (long long)window);
    print_row(name, DECODED, 0, bench_measure(call_decode, decoder, LEAST_RUNS, BUDGET));
    decoder_destroy(decoder);
}

static void bench_scoring(void) {
    const uint64_t batch = (uint64_t)session.experiment->eval.batch;
    const uint64_t window = (uint64_t)evaluate_window(session.experiment);
    const uint64_t n = corpus_tokens(corpus) - 1;
    const double flops = model_forward_flops(scored, (int64_t)batch, (int64_t)window);
    const double all = flops * (double)(n / (batch * window));
    print_row("forward (model_infer)", batch * window, flops,
              bench_measure(call_infer, NULL, LEAST_RUNS, BUDGET));
    const struct way_to_score plain = {EVAL_PLAIN, false}, cached = {EVAL_PLAIN, true};
    print_row("evaluation, plain windows", n, all,
              bench_measure(call_evaluate, &plain, LEAST_RUNS, BUDGET));
    char name[80];
    (void)snprintf(name, sizeof name, "  with cache %s", session.experiment->cache.name);
    print_row(name, n, all, bench_measure(call_evaluate, &cached, LEAST_RUNS, BUDGET));
    if (gpu) bench_sliding(n, flops / (double)batch); /* minutes on a processor */
    bench_stream();
    bench_decode();
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
                           CONFIG_BIND(FW_AVERAGER) | CONFIG_BIND(FW_QUANTIZER) |
                           CONFIG_BIND(FW_CACHE);
    stop_on(session_open(&arguments, path, NULL, kinds, &session, &error), &error);
    open_table();
    session.progress.interval = (double)INFINITY; /* the table says all */
    device = session.services->device;
    gpu = device->type != FW_CPU;
    op_times_install(device);
    count_memory();
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
    const size_t least = gpu ? 131072 : 16384;
    const size_t n_scored = (least + batch - 1) / batch * batch;
    const size_t rows = (size_t)(sequences * sequence);
    const size_t n_long = gpu ? (size_t)1 << 21 : n_scored;
    size_t n = (rows > n_scored ? rows : n_scored) + 1;
    if (n_long >= n) n = n_long + 1;
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
    training = corpus_of(tokens, rows + 1);
    long_text = corpus_of(tokens, n_long + 1);
    free(tokens);
    free(text);
}

static void open_models(void) {
    const struct model_options options = {.experiment = session.experiment,
                                          .host = session.services,
                                          .vocabulary = session.table->vocabulary,
                                          .batch = micro_batch(),
                                          .tokens = sequence,
                                          .training = true,
                                          .compute_copies = session.experiment->run.qat_below > 0};
    stop_on(model_create(&options, &trained, &error), &error);
    stop_on(model_initialise(trained, &error), &error);
    static struct train_options training_options;
    training_options = (struct train_options){.experiment = session.experiment,
                                              .host = session.services,
                                              .model = trained,
                                              .corpus = training,
                                              .progress = &session.progress};
    stop_on(trainer_create(&training_options, &trainer, &error), &error);
    stop_on(scoring_model(&session, session.table->vocabulary, &scored, &error), &error);
    stop_on(model_initialise(scored, &error), &error);
}

static void close_all(void) {
    trainer_destroy(trainer);
    corpus_close(training);
    corpus_close(corpus);
    corpus_close(long_text);
    model_destroy(scored);
    model_destroy(trained);
    stop_counting();
    op_times_remove();
    session_close(&session);
    free(targets);
    free(inputs);
}

static fw_device_info describe_device(void) {
    const fw_device_driver *driver = session.experiment->device.entry->plugin->vtable;
    fw_device_info info = {.struct_size = sizeof info};
    stop_on(driver->describe(device->ordinal, &info, &error), &error);
    return info;
}

static void print_heading(const fw_device_info *info) {
    (void)printf("%s; %s\n%s: %lld parameters, steps of %lld x %lld tokens, %lld at a time\n",
                 info->name, info->libraries, session.experiment->run.name,
                 (long long)model_parameters(trained), (long long)sequences, (long long)sequence,
                 (long long)micro_batch());
    (void)printf("%-34s %9s %9s %8s %9s %9s %6s\n", "", "ms", "best ms", "tokens", "tokens/s",
                 "GFLOP/s", "ratio");
}

int main(int argc, char **argv) {
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    open_session(argc, argv);
    sequence = session.experiment->data.sequence;
    sequences = session.experiment->run.batch_tokens / sequence;
    open_text();
    open_models();
    const fw_device_info info = describe_device();
    print_heading(&info);
    bench_ceiling();
    profile_training();
    bench_training(&info);
    bench_scoring();
    print_profile();
    print_memory();
    close_all();
    return 0;
}
