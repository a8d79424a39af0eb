/* A cache that breaks the protocol, or its process, in the way and at the position that its
 * parameters say. Until then it states the row as it is, and keeps what it is told, which is its
 * state. Built as a module, so that it can be used by the program and in a process of its own. */
#include <fairway/fairway.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* X(what it is called, what it does) */
#define WAYS(X)                                                                                    \
    X(none, "nothing wrong")                                                                       \
    X(nan, "a mass that is not a number")                                                          \
    X(inf, "an infinite gain")                                                                     \
    X(outside, "a token that does not exist")                                                      \
    X(twice, "a token listed twice")                                                               \
    X(too_many, "more entries than allowed, in place")                                             \
    X(heavy, "masses of 1.25 in all")                                                              \
    X(form, "an unknown form")                                                                     \
    X(dense_nan, "a probability that is not a number")                                             \
    X(no_function, "the unverified form without a function")                                       \
    X(probability_nan, "an unverified probability that is not a number")                           \
    X(error, "an error, with a reason")                                                            \
    X(status, "an unknown status, without a reason")                                               \
    X(update_error, "an error of update")                                                          \
    X(update_internal, "an error of update that sounds like the host's")                           \
    X(begin_error, "an error of begin that sounds like the host's")                                \
    X(begin_status, "an unknown status of begin, without a reason")                                \
    X(second_begin_error, "an error of begin when a stream ends")                                  \
    X(create_error, "an error of create that sounds like the host's")                              \
    X(create_status, "an unknown status of create, without a reason")                              \
    X(tokens_beyond, "writing beyond the tokens of its list")                                      \
    X(values_beyond, "writing beyond the values of its list")                                      \
    X(dense_beyond, "writing beyond its dense probabilities")                                      \
    X(row_beyond, "reading beyond the row")                                                        \
    X(told_beyond, "reading beyond the tokens that it is told")                                    \
    X(crash, "a null pointer")                                                                     \
    X(create_crash, "a null pointer in create")                                                    \
    X(update_crash, "a null pointer in update")                                                    \
    X(probability_crash, "a null pointer in the unverified form")                                  \
    X(destroy_crash, "a null pointer in destroy")                                                  \
    X(quit, "leaving the process with code 7")                                                     \
    X(give_up, "abort() with last words")                                                          \
    X(hang, "never answering")                                                                     \
    X(update_hang, "never answering to update")                                                    \
    X(create_hang, "never answering to create")                                                    \
    X(stop, "stopping its process")                                                                \
    X(race, "a thread that rewrites the list all the time")                                        \
    X(look_back, "an error of a slow update where the row it was asked about has changed")         \
    X(seeded, "half of the mass for a token that the run's seed decides")                          \
    X(talk, "log lines and effects")                                                               \
    X(look, "counting what the process has open, as an effect")

enum way {
#define WAY_ENUM(name, doc) WAY_##name,
    WAYS(WAY_ENUM)
#undef WAY_ENUM
};
static const char *const ways[] = {
#define WAY_NAME(name, doc) #name,
    WAYS(WAY_NAME)
#undef WAY_NAME
        NULL};

static const fw_param params[] = {
    FW_PARAM_CHOICE("way", "none", ways, "how it breaks the protocol"),
    FW_PARAM_RANGE(FW_PARAM_INT, "at", "0", 0, 1e15, "", "the position where it does"),
};

typedef struct broken {
    enum way way;
    uint64_t at, position;
    uint32_t vocabulary;
    bool begun;
    const fw_host *host;
    uint32_t *told;
    size_t n_told;
    double *raced;
    fw_row row; /* asked about last, and what it sums to */
    double sum;
    pthread_t racer;
    _Atomic bool racing;
} broken;

static volatile int *volatile nowhere;

/* A sanitizer would see the null pointer before the processor does. */
__attribute__((no_sanitize("undefined"))) static void crash(void) { *nowhere = 1; }

static void hang(void) {
    for (;;) (void)usleep(1000);
}

#ifdef SLOW
/* Half a second of this process's own time. */
static void take_time(void) __attribute__((constructor));
static void take_time(void) {
    for (int i = 0; i < 50; i++) (void)usleep(10000);
}
#endif

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    const enum way way = (enum way)values[0].integer;
    if (way == WAY_create_error) return fw_fail(error, FW_E_INTERNAL, "no instance today");
    if (way == WAY_create_status) return 4711;
    if (way == WAY_create_crash) crash();
    if (way == WAY_create_hang) hang();
    broken *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory");
    made->way = way;
    made->at = (uint64_t)values[1].integer;
    made->vocabulary = shape->vocabulary;
    made->host = host;
    *self = made;
    return FW_OK;
}

static void destroy(void *self) {
    broken *b = self;
    if (b == NULL) return;
    if (b->way == WAY_destroy_crash) crash();
    if (b->racing) {
        b->racing = false;
        (void)pthread_join(b->racer, NULL);
    }
    free(b->told);
    free(b);
}

static fw_status begin(void *self, fw_error *error) {
    broken *b = self;
    b->n_told = 0;
    const bool again = b->begun;
    b->begun = true;
    if (b->way == WAY_begin_error) return fw_fail(error, FW_E_INTERNAL, "no stream today");
    if (b->way == WAY_begin_status) return 4711;
    if (b->way == WAY_second_begin_error && again)
        return fw_fail(error, FW_E_INTERRUPTED, "one stream is enough");
    return FW_OK;
}

/* ---- statements ---- */

static void state(fw_prediction *prediction, uint32_t form, double weight, uint32_t n,
                  uint32_t first, double value) {
    prediction->form = form;
    prediction->lm_weight = weight;
    prediction->n = n;
    for (uint32_t i = 0; i < n; i++) {
        prediction->tokens[i] = first;
        prediction->values[i] = value;
    }
}

static void state_row(fw_prediction *prediction) { state(prediction, FW_PREDICT_MIX, 1, 0, 0, 0); }

static double probability(void *self, const fw_row *row, uint32_t token) {
    const broken *b = self;
    if (row->position == b->at && b->way == WAY_probability_crash) crash();
    if (row->position == b->at && b->way == WAY_probability_nan) return (double)NAN;
    return row->probabilities[token];
}

/* Half of the time the list says 0.5 and half of the time 0.9, for ever. */
static void *race(void *argument) {
    broken *b = argument;
    volatile double *value = b->raced;
    while (b->racing)
        for (int i = 0; i < 1000; i++) *value = (i & 1) != 0 ? 0.9 : 0.5;
    return NULL;
}

static void start_race(broken *b, double *value) {
    b->raced = value;
    if (b->racing) return;
    b->racing = true;
    if (pthread_create(&b->racer, NULL, race, b) != 0) b->racing = false;
}

static void write_beyond(const broken *b, fw_prediction *prediction) {
    const uint32_t V = b->vocabulary;
    for (uint32_t i = 0; i <= V; i++) {
        if (b->way == WAY_tokens_beyond) prediction->tokens[i] = i;
        if (b->way == WAY_values_beyond) prediction->values[i] = 0;
        if (b->way == WAY_dense_beyond) prediction->dense[i] = 1.0 / V;
    }
}

static void talk(const broken *b) {
    char name[64];
    b->host->log(b->host, FW_LOG_INFO, "the cache\x1b[31m says this");
    (void)snprintf(name, sizeof name, "broken_cache_threads");
    b->host->effect(b->host, name, b->host->threads(b->host));
    b->host->effect(b->host, "broken_cache_seed",
                    (double)(b->host->seed(b->host, "label") % 1000000 + 1));
}

/* Descriptors that are open, and what of the host can be reached. */
static void look(const broken *b) {
    double n = 0, reach = 1;
    for (int i = 0; i < 4096; i++) n += lseek(i, 0, SEEK_CUR) >= 0 || write(i, "", 0) == 0;
    reach += access("/proc/self/maps", R_OK) == 0;
    reach += access(".", R_OK) == 0;
    b->host->effect(b->host, "broken_cache_open", n);
    b->host->effect(b->host, "broken_cache_reach", reach);
}

static void die(const broken *b) {
    switch (b->way) {
    case WAY_crash: crash(); break;
    case WAY_quit: _exit(7);
    case WAY_give_up: (void)write(2, "last words\n", 11); abort();
    case WAY_hang: hang(); break;
    case WAY_stop: (void)raise(SIGSTOP); break;
    case WAY_talk: talk(b); break;
    case WAY_look: look(b); break;
    default: break;
    }
}

static void misstate(broken *b, const fw_row *row, fw_prediction *prediction) {
    const uint32_t V = b->vocabulary;
    volatile double sink;
    switch (b->way) {
    case WAY_nan: state(prediction, FW_PREDICT_MIX, 0.5, 1, 6, (double)NAN); break;
    case WAY_inf: state(prediction, FW_PREDICT_TILT, 0, 1, 6, (double)INFINITY); break;
    case WAY_outside: state(prediction, FW_PREDICT_TILT, 0, 1, V, 2); break;
    case WAY_twice: state(prediction, FW_PREDICT_MIX, 0.5, 2, 6, 0.25); break;
    case WAY_too_many: prediction->n = V + 1; break;
    case WAY_heavy: state(prediction, FW_PREDICT_MIX, 1, 1, 6, 0.25); break;
    case WAY_form: prediction->form = 77; break;
    case WAY_dense_nan:
        prediction->form = FW_PREDICT_DENSE;
        for (uint32_t v = 0; v < V; v++) prediction->dense[v] = v == 3 ? (double)NAN : 1.0 / V;
        break;
    case WAY_no_function:
        prediction->form = FW_PREDICT_UNVERIFIED;
        prediction->probability = NULL;
        break;
    case WAY_row_beyond:
        sink = row->probabilities[V];
        (void)sink;
        break;
    case WAY_tokens_beyond:
    case WAY_values_beyond:
    case WAY_dense_beyond: write_beyond(b, prediction); break;
    default: break;
    }
}

/* All that a row points to, in one number. */
static double sum_of(const fw_row *row) {
    double sum = 0;
    for (uint32_t v = 0; v < row->vocabulary; v++) sum += (v + 1) * row->probabilities[v];
    for (uint32_t i = 0; i < row->n_context; i++) sum += (i + 1) * 1e-3 * row->context[i];
    return sum;
}

/* It stays until the next one, however long this takes. */
static fw_status look_back(const broken *b, fw_error *error) {
    volatile char used[8192]; /* where the host may have had it */
    for (size_t i = 0; i < sizeof used; i++) used[i] = (char)i;
    if (b->position < 12) (void)usleep(1000);
    if (sum_of(&b->row) == b->sum && used[1] == 1) return FW_OK;
    return fw_fail(error, FW_E_INTERNAL, "the row has changed");
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    broken *b = self;
    b->position = row->position;
    b->row = *row;
    b->sum = sum_of(row);
    state_row(prediction);
#ifdef UNVERIFIED
    if (b->way == WAY_look_back) {
        prediction->form = FW_PREDICT_UNVERIFIED;
        prediction->probability = probability;
    }
#endif
    if (b->way == WAY_probability_crash || b->way == WAY_probability_nan ||
        b->way == WAY_no_function) {
        prediction->form = FW_PREDICT_UNVERIFIED;
        prediction->probability = probability;
    }
    if (b->way == WAY_race) {
        state(prediction, FW_PREDICT_MIX, 0.5, 1, 6, 0.5);
        start_race(b, prediction->values);
    }
    if (b->way == WAY_seeded) {
        const uint64_t seed = b->host->seed(b->host, "broken");
        state(prediction, FW_PREDICT_MIX, 0.5, 1, (uint32_t)(seed % b->vocabulary), 0.5);
    }
    if (row->position != b->at) return FW_OK;
    if (b->way == WAY_error) return fw_fail(error, FW_E_INTERNAL, "the cache is tired");
    if (b->way == WAY_status) return 4711;
    die(b);
    misstate(b, row, prediction);
    return FW_OK;
}

/* `tokens`: NULL for room alone. */
static fw_status keep(broken *b, const uint32_t *tokens, size_t n, fw_error *error) {
    uint32_t *told = realloc(b->told, (b->n_told + n + 1) * sizeof *told);
    if (told == NULL) return fw_fail(error, FW_E_MEMORY, "no memory");
    b->told = told;
    if (n > 0 && tokens != NULL) memcpy(told + b->n_told, tokens, n * sizeof *told);
    b->n_told += n;
    return FW_OK;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    broken *b = self;
    volatile uint32_t sink;
    FW_TRY(keep(b, tokens, n, error));
    if (b->way == WAY_look_back) return look_back(b, error);
    if (b->position != b->at) return FW_OK;
    if (b->way == WAY_update_error) return fw_fail(error, FW_E_LIMIT, "the cache is full");
    if (b->way == WAY_update_internal) return fw_fail(error, FW_E_INTERNAL, "full of itself");
    if (b->way == WAY_update_crash) crash();
    if (b->way == WAY_update_hang) hang();
    if (b->way == WAY_told_beyond) {
        sink = tokens[n];
        (void)sink;
    }
    return FW_OK;
}

static fw_status snapshot(void *self, void *state, size_t *bytes, fw_error *error) {
    const broken *b = self;
    const size_t needed = b->n_told * sizeof *b->told, room = *bytes;
    *bytes = needed;
    if (state == NULL || room < needed) return fw_fail(error, FW_E_BUFFER, "%zu bytes", needed);
    if (needed > 0) memcpy(state, b->told, needed);
    return FW_OK;
}

static fw_status restore(void *self, const void *state, size_t bytes, fw_error *error) {
    broken *b = self;
    const size_t n = bytes / sizeof *b->told;
    if (bytes % sizeof *b->told != 0) return fw_fail(error, FW_E_FORMAT, "no state of mine");
    b->n_told = 0;
    FW_TRY(keep(b, NULL, n, error));
    if (n > 0) memcpy(b->told, state, bytes);
    return FW_OK;
}

static const fw_cache vtable = {.struct_size = sizeof vtable,
                                .create = create,
                                .destroy = destroy,
                                .begin = begin,
                                .predict = predict,
                                .update = update,
                                .snapshot = snapshot,
                                .restore = restore,
                                .context_tokens = 8,
#ifdef UNVERIFIED
                                .unverified = 1
#endif
};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_CACHE,
                                 .id = CACHE_ID,
                                 .version = "1.0.0",
                                 .summary = "breaks the protocol as it is told to",
                                 .vendor = "Fairway's tests",
                                 .license = "MIT",
                                 .devices = FW_CPU,
                                 .n_params = sizeof params / sizeof params[0],
                                 .params = params,
                                 .vtable = &vtable};
FW_DEFINE_MODULE(&plugin);
