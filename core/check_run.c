#include "check_run.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "check_play.h"
#include "coin.h"
#include "corpus.h"
#include "evaluate.h"
#include "session.h"
#include "synthetic.h"

enum { WINDOW = 128, STRIDE = 64 };

/* ---- the stream ---- */

static uint64_t tokens_of(const struct cache_check *check, enum check_text text) {
    switch (text) {
    case CHECK_TEXT: return check->tokens;
    case CHECK_COIN: return CHECK_COIN_TOKENS;
    case CHECK_PAIR: return 2;
    default: return CHECK_EDGE_TOKENS;
    }
}

uint64_t check_positions(const struct cache_check *check) {
    return check->tokens > CHECK_COIN_TOKENS ? check->tokens : CHECK_COIN_TOKENS;
}

/* Synthetic text begins with edges; what follows them is two documents here. */
static void put_two_documents(const struct cache_check *check, bool other, uint16_t *tokens) {
    enum { FIRST = 32, HALF = (CHECK_EDGE_TOKENS - FIRST) / 2 };
    struct random random = random_seeded(check->seed + 3);
    for (int i = 0; i < 2 * HALF; i++) {
        const int at = other ? (i + HALF) % (2 * HALF) : i;
        const bool begins = i % HALF == 0;
        const uint64_t any = random_below(&random, check->table->vocabulary);
        tokens[FIRST + at] = (uint16_t)(begins ? token_table_begin(check->table) : any);
    }
}

static void flip(const struct cache_check *check, const struct check_run *run, uint64_t n,
                 uint16_t *tokens) {
    const uint32_t V = check->table->vocabulary;
    struct random random = random_seeded(check->seed + run->flip);
    const uint64_t end = run->flip_one ? run->flip + 2 : n;
    for (uint64_t i = run->flip + 1; i < end && i < n && V > 1; i++)
        tokens[i] = (uint16_t)((tokens[i] + 1 + random_below(&random, V - 1)) % V);
}

uint16_t *check_text(const struct cache_check *check, const struct check_run *run, uint64_t *n) {
    *n = tokens_of(check, run->text);
    uint16_t *tokens = calloc(*n, sizeof *tokens);
    if (tokens == NULL) return NULL;
    if (run->text == CHECK_COIN) {
        struct random random = random_seeded(check->seed);
        coin_toss(&random, check->table->vocabulary, *n, tokens);
        return tokens;
    }
    synthetic_text(check->table, check->seed, *n, tokens);
    if (run->text == CHECK_EDGES || run->text == CHECK_EDGES_OTHER)
        put_two_documents(check, run->text == CHECK_EDGES_OTHER, tokens);
    if (run->flip > 0) flip(check, run, *n, tokens);
    return tokens;
}

/* ---- in the process of the run ---- */

struct recorder {
    uint64_t *digests;
    double *scratch;
};

static fw_status record(void *self, const struct cache_statement *statement, fw_error *error) {
    const struct recorder *recorder = self;
    return statement_digest(statement, recorder->scratch,
                            &recorder->digests[statement->row->position], error);
}

static fw_status ignore(void *self, const struct cache_statement *statement, fw_error *error) {
    (void)self, (void)statement, (void)error;
    return FW_OK;
}

static struct synthetic_rows rows_of(const struct cache_check *check, const struct check_run *run) {
    return (struct synthetic_rows){.vocabulary = check->table->vocabulary,
                                   .seed = check->seed + 1,
                                   .other_seed = run->other_rows ? check->seed + 2 : 0,
                                   .uniform = run->text == CHECK_COIN};
}

static struct experiment experiment_of(const struct session *session, const struct check_run *run) {
    struct experiment experiment = *session->experiment;
    struct eval_keys *eval = &experiment.eval;
    eval->mode = EVAL_SLIDING;
    eval->window = WINDOW;
    eval->stride = STRIDE;
    eval->batch = run->batch > 0 ? run->batch : 4;
    eval->max_tokens = 0;
    eval->on_violation = EVAL_VIOLATION_REPORT;
    eval->audit = run->audited ? EVAL_AUDIT_FULL : EVAL_AUDIT_OFF;
    eval->audit_seed = 0; /* all are looked at; what a twin reads before is the same each time */
    eval->ranks = 1;
    eval->faithful = false;
    experiment.counterpart.entry = NULL;
    return experiment;
}

static fw_status score(const struct cache_check *check, const struct check_run *run,
                       const struct session *session, const struct corpus *corpus,
                       struct check_outcome *outcome, struct recorder *recorder, fw_error *error) {
    const struct experiment experiment = experiment_of(session, run);
    struct synthetic_rows rows = rows_of(check, run);
    struct progress silent = {.interval = INFINITY};
    const struct cache_watcher watcher = {recorder, record, ignore};
    const struct evaluate_options options = {.experiment = &experiment,
                                             .host = session->services,
                                             .model = synthetic_model(&rows),
                                             .corpus = corpus,
                                             .table = check->table,
                                             .mode = EVAL_SLIDING,
                                             .with_cache = true,
                                             .audited = run->audited ? EVALUATE_AUDIT_CACHES : 0,
                                             .watcher = run->audited ? NULL : &watcher,
                                             .label = "check",
                                             .progress = &silent};
    struct evaluate_result result;
    FW_TRY(evaluate(&options, &result, error));
    outcome->positions = result.cached.targets;
    outcome->nats = result.cached.nats;
    outcome->verdicts = result.verdicts;
    return FW_OK;
}

static fw_status score_text(const struct cache_check *check, const struct check_run *run,
                            const struct session *session, const uint16_t *tokens, uint64_t n,
                            struct check_outcome *outcome, uint64_t *digests, fw_error *error) {
    struct recorder recorder = {digests, calloc(check->table->vocabulary, sizeof(double))};
    struct corpus *corpus = NULL;
    fw_status status = FW_OK;
    if (recorder.scratch == NULL) status = fw_fail(error, FW_E_MEMORY, "no memory for a row");
    if (status == FW_OK) status = corpus_of_tokens(tokens, n, &corpus, error);
    if (status == FW_OK) status = score(check, run, session, corpus, outcome, &recorder, error);
    corpus_close(corpus);
    free(recorder.scratch);
    return status;
}

static fw_status play(const struct cache_check *check, const struct check_run *run,
                      const struct session *session, const uint16_t *tokens, uint64_t n,
                      struct check_outcome *outcome, fw_error *error) {
    const struct synthetic_rows rows = rows_of(check, run);
    const struct check_play own = {.choice = &session->experiment->cache,
                                   .host = session->services,
                                   .rows = &rows,
                                   .tokens = tokens,
                                   .n = n};
    const bool snapshot = run->what == CHECK_SNAPSHOT;
    struct probe *probe =
        verdicts_probe(&outcome->verdicts, "cache", snapshot ? "snapshot" : "delivery");
    return snapshot ? check_snapshot(&own, probe, error) : check_delivery(&own, probe, error);
}

static void note_declared(const struct session *session, struct check_outcome *outcome) {
    const fw_cache *cache = session->experiment->cache.entry->plugin->vtable;
    outcome->opened = true;
    outcome->counts_only = cache->counts_only != 0 && FW_HAS(cache, prefill);
    outcome->snapshots = FW_HAS(cache, snapshot) && FW_HAS(cache, restore);
}

/* From here on the run's directory is where a plugin would leave something. */
static fw_status enter(const char *directory, fw_error *error) {
    static const char *const homes[] = {"HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"};
    for (size_t i = 0; i < sizeof homes / sizeof homes[0]; i++)
        (void)setenv(homes[i], directory, 1);
    if (chdir(directory) == 0) return FW_OK;
    return fw_fail(error, FW_E_IO, "%s: %s", directory, strerror(errno));
}

static fw_status run_session(const struct cache_check *check, const struct check_run *run,
                             const char *directory, const struct session *session,
                             struct check_outcome *outcome, uint64_t *digests, fw_error *error) {
    uint64_t n = 0;
    FW_TRY(enter(directory, error));
    uint16_t *tokens = check_text(check, run, &n);
    if (tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a stream");
    const fw_status status =
        run->what == CHECK_SCORE
            ? score_text(check, run, session, tokens, n, outcome, digests, error)
            : play(check, run, session, tokens, n, outcome, error);
    free(tokens);
    return status;
}

static fw_status open_session(const struct cache_check *check, const struct check_run *run,
                              struct session *session, fw_error *error) {
    struct arguments arguments = *check->arguments;
    char threads[64];
    (void)snprintf(threads, sizeof threads, "run.threads=%lld",
                   (long long)(run->threads > 0 ? run->threads : 2));
    if (arguments.n_overrides + 2 > MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d options of one kind", MAX_ARGUMENTS - 2);
    arguments.overrides[arguments.n_overrides++] = threads;
    arguments.overrides[arguments.n_overrides++] = "run.device=cpu";
    return session_open(&arguments, check->name, check->text,
                        CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_CACHE), session, error);
}

static void run_here(const struct cache_check *check, const struct check_run *run,
                     const char *directory, struct check_outcome *outcome, uint64_t *digests) {
    struct session session;
    fw_error why = {.struct_size = sizeof why};
    outcome->status = open_session(check, run, &session, &why);
    if (outcome->status == FW_OK) {
        note_declared(&session, outcome);
        outcome->status = run_session(check, run, directory, &session, outcome, digests, &why);
        session_close(&session);
    }
    (void)snprintf(outcome->message, sizeof outcome->message, "%s", why.message);
}

/* ---- between the processes ---- */

static bool write_all(int to, const void *data, size_t size) {
    const char *bytes = data;
    while (size > 0) {
        const ssize_t n = write(to, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

static bool read_all(int from, void *data, size_t size) {
    char *bytes = data;
    while (size > 0) {
        const ssize_t n = read(from, bytes, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* Never returns. */
static void be_the_run(const struct cache_check *check, const struct check_run *run,
                       const char *directory, struct check_outcome *outcome, uint64_t *digests,
                       int to) {
    (void)alarm(check->seconds);
    run_here(check, run, directory, outcome, digests);
    const bool sent = write_all(to, outcome, sizeof *outcome) &&
                      write_all(to, digests, outcome->positions * sizeof *digests);
    _exit(sent ? 0 : 1);
}

static void explain_end(int how, unsigned seconds, struct check_outcome *outcome) {
    *outcome = (struct check_outcome){.opened = true, .status = FW_E_PROTOCOL};
    const int signal_number = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    if (signal_number == SIGALRM)
        (void)snprintf(outcome->message, sizeof outcome->message,
                       "the cache was not done after %u s", seconds);
    else if (signal_number != 0)
        (void)snprintf(outcome->message, sizeof outcome->message,
                       "the process of the cache was ended by signal %d (%s)", signal_number,
                       strsignal(signal_number));
    else
        (void)snprintf(outcome->message, sizeof outcome->message,
                       "the process of the cache ended with code %d", WEXITSTATUS(how));
}

static fw_status hear(pid_t child, int from, const struct cache_check *check,
                      struct check_outcome *outcome, uint64_t *digests, fw_error *error) {
    const bool heard = read_all(from, outcome, sizeof *outcome) &&
                       outcome->positions <= check_positions(check) &&
                       read_all(from, digests, outcome->positions * sizeof *digests);
    int how = 0;
    while (waitpid(child, &how, 0) < 0)
        if (errno != EINTR) return fw_fail(error, FW_E_IO, "waitpid: %s", strerror(errno));
    if (!heard) explain_end(how, check->seconds, outcome);
    return FW_OK;
}

fw_status check_run(const struct cache_check *check, const struct check_run *run,
                    const char *directory, struct check_outcome *outcome, uint64_t *digests,
                    fw_error *error) {
    int ends[2];
    *outcome = (struct check_outcome){0};
    (void)fflush(NULL); /* nothing is to be written twice */
    if (pipe(ends) != 0) return fw_fail(error, FW_E_IO, "pipe: %s", strerror(errno));
    const pid_t child = fork();
    if (child == 0) {
        (void)close(ends[0]);
        be_the_run(check, run, directory, outcome, digests, ends[1]);
    }
    (void)close(ends[1]);
    const fw_status status = child < 0 ? fw_fail(error, FW_E_IO, "fork: %s", strerror(errno))
                                       : hear(child, ends[0], check, outcome, digests, error);
    (void)close(ends[0]);
    return status;
}
