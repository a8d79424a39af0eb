/* A cache in a process of its own scores as it does in the host's, bit for bit, and gets nothing
 * but what it is handed. */
#include "cache_seat.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache_child.h"
#include "cache_process.h"
#include "host.h"
#include "seat_channel.h"
#include "seat_fixture.h"

/* ---- the same scores ---- */

enum { TOKENS = 3000 };

static void make_tokens(uint32_t *tokens, size_t n) {
    test_random random = {7};
    for (size_t i = 0; i < n; i++)
        tokens[i] = i > 100 && test_uniform(&random) < 0.7 ? tokens[i - 1 - test_below(&random, 40)]
                                                           : (uint32_t)test_below(&random, SEAT_V);
}

/* Two streams, the second after begin(), in windows of 100. */
static void play(const char *id, const char *const *overrides, bool apart, double nats[2 * TOKENS],
                 struct cache_summary *summary) {
    static uint32_t tokens[TOKENS];
    struct seat seat;
    make_tokens(tokens, TOKENS);
    seat_find(&seat, id, apart, 10, overrides);
    assert_ok(seat_open(&seat, test_host(NULL), true), &seat.error);
    for (size_t round = 0; round < 2; round++) {
        for (size_t t = 0; t < TOKENS; t++) {
            assert_ok(seat_score(&seat, tokens[t], &nats[round * TOKENS + t]), &seat.error);
            if (t % 100 == 99)
                assert_ok(cache_stream_end_window(seat.stream, &seat.error), &seat.error);
        }
        assert_ok(cache_stream_begin(seat.stream, &seat.error), &seat.error);
        seat.n_past = 0;
    }
    assert_ok(cache_stream_end(seat.stream, &seat.error), &seat.error);
    cache_stream_summary(seat.stream, summary);
    seat_close(&seat);
}

static void check_same(const char *id, const char *const *overrides) {
    static double here[2 * TOKENS], there[2 * TOKENS];
    struct cache_summary mine, its;
    play(id, overrides, false, here, &mine);
    play(id, overrides, true, there, &its);
    assert_memory_equal(here, there, sizeof here);
    assert_int_equal(mine.changed, its.changed);
    assert_int_equal(mine.memory_bytes, its.memory_bytes);
    assert_true(mine.mean_sum == its.mean_sum && mine.largest_sum == its.largest_sum);
    assert_true(mine.invalid == its.invalid);
    assert_false(mine.isolated);
    assert_true(its.isolated && its.waiting.answers >= 2 * TOKENS && its.waiting.seconds > 0);
}

static void test_the_same_scores(void **state) {
    (void)state;
    const int descriptors = open_descriptors();
    check_same("none", NULL);
    check_same("ngram", NULL);
    check_same("ngram_counts", NULL);
    check_same("tilt", NULL);
    check_same("ngram_hashed", (const char *const[]){"table_size=1024", NULL});
    assert_int_equal(open_descriptors(), descriptors);
    assert_false(has_children());
}

/* ---- all that a cache can be asked ---- */

static void open_plain(struct seat *seat, struct cache_seat *cache, const char *id, bool apart) {
    const fw_cache_shape shape = {
        .struct_size = sizeof shape, .vocabulary = SEAT_V, .max_entries = SEAT_V};
    seat_find(seat, id, apart, 10, NULL);
    assert_ok(cache_seat_open(&seat->choice, test_host(NULL), &shape, cache, &seat->error),
              &seat->error);
    assert_ok(cache->cache->begin(cache->self, &seat->error), &seat->error);
}

/* More tokens than go into one request. */
static void test_tokens_travel(void **state) {
    (void)state;
    enum { MANY = 70000 };
    static uint32_t tokens[MANY];
    fw_error error = {.struct_size = sizeof error};
    uint64_t bytes[2];
    make_tokens(tokens, MANY);
    for (int i = 0; i < 2; i++) {
        struct seat seat;
        struct cache_seat sits;
        open_plain(&seat, &sits, "ngram_counts", i == 1);
        assert_ok(sits.cache->prefill(sits.self, tokens, MANY - 10, &error), &error);
        assert_ok(sits.cache->update(sits.self, tokens, MANY, &error), &error);
        assert_ok(sits.cache->update(sits.self, tokens, 3, &error), &error);
        assert_ok(sits.cache->update(sits.self, tokens, 0, &error), &error);
        bytes[i] = sits.cache->memory_bytes(sits.self);
        cache_seat_close(&sits);
        seat_close(&seat);
    }
    assert_int_equal(bytes[0], bytes[1]);
}

static size_t take_state(const struct cache_seat *sits, uint8_t *out, size_t room) {
    fw_error error = {.struct_size = sizeof error};
    size_t bytes = 0;
    assert_true(FW_HAS(sits->cache, snapshot) && FW_HAS(sits->cache, restore));
    assert_int_equal(sits->cache->snapshot(sits->self, NULL, &bytes, &error), FW_E_BUFFER);
    assert_true(bytes <= room);
    size_t few = bytes - 1;
    assert_int_equal(sits->cache->snapshot(sits->self, out, &few, &error), FW_E_BUFFER);
    assert_int_equal(few, bytes);
    assert_ok(sits->cache->snapshot(sits->self, out, &bytes, &error), &error);
    return bytes;
}

/* States of several fetches: what is told, here or apart, is what comes back; and again when it was
 * taken elsewhere. */
static void test_states_travel(void **state) {
    (void)state;
    enum { MANY = 70001, BYTES = 4 * MANY };
    static uint32_t tokens[MANY];
    static uint8_t out[BYTES];
    fw_error error = {.struct_size = sizeof error};
    make_tokens(tokens, MANY);
    assert_true(BYTES > 4 * CHANNEL_BULK_BYTES && BYTES % CHANNEL_BULK_BYTES != 0);
    for (int i = 0; i < 2; i++) {
        struct seat seat;
        struct cache_seat sits;
        open_plain(&seat, &sits, "broken", i == 1);
        assert_ok(sits.cache->update(sits.self, tokens, MANY, &error), &error);
        memset(out, 0xff, sizeof out);
        assert_int_equal(take_state(&sits, out, sizeof out), BYTES);
        assert_memory_equal(out, tokens, BYTES);
        assert_ok(sits.cache->update(sits.self, tokens + 7, 1, &error), &error);
        assert_ok(sits.cache->begin(sits.self, &error), &error);
        assert_int_not_equal(sits.cache->restore(sits.self, tokens, 5, &error), FW_OK);
        assert_ok(sits.cache->restore(sits.self, tokens, BYTES - 400, &error), &error);
        assert_ok(sits.cache->update(sits.self, tokens, 100, &error), &error);
        memset(out, 0xff, sizeof out);
        assert_int_equal(take_state(&sits, out, sizeof out), BYTES);
        assert_memory_equal(out, tokens, BYTES - 400);
        assert_memory_equal(out + BYTES - 400, tokens, 400);
        cache_seat_close(&sits);
        seat_close(&seat);
    }
}

/* What the module declares arrives: parameters with all that belongs to them. */
static void test_a_described_module(void **state) {
    (void)state;
    static const char *const ids[] = {"ngram", "ngram_hashed", "tilt", "broken_unverified"};
    for (size_t i = 0; i < 4; i++) {
        struct seat here, there;
        seat_find(&here, ids[i], false, 10, NULL);
        seat_find(&there, ids[i], true, 10, NULL);
        const fw_plugin *a = here.choice.entry->plugin, *b = there.choice.entry->plugin;
        const fw_cache *x = a->vtable, *y = b->vtable;
        assert_ptr_not_equal(a, b);
        assert_string_equal(a->id, b->id);
        assert_string_equal(a->summary, b->summary);
        assert_int_equal(a->n_params, b->n_params);
        for (uint32_t k = 0; k < a->n_params; k++) {
            assert_string_equal(a->params[k].key, b->params[k].key);
            assert_string_equal(a->params[k].doc, b->params[k].doc);
            assert_true(a->params[k].min == b->params[k].min);
            assert_true(a->params[k].max == b->params[k].max);
            for (size_t c = 0; a->params[k].choices != NULL && a->params[k].choices[c] != NULL; c++)
                assert_string_equal(a->params[k].choices[c], b->params[k].choices[c]);
        }
        assert_int_equal(x->update_every, y->update_every);
        assert_int_equal(x->needs_entropy, y->needs_entropy);
        assert_int_equal(x->counts_only, y->counts_only);
        assert_int_equal(x->unverified, y->unverified);
        assert_int_equal(x->context_tokens, y->context_tokens);
        assert_int_equal(FW_HAS(x, snapshot), FW_HAS(y, snapshot));
        assert_memory_equal(here.choice.entry->sha256, there.choice.entry->sha256, 32);
        seat_close(&here);
        seat_close(&there);
    }
}

/* Here and apart would isolate nothing, whichever comes first. */
static void test_not_in_both_places(void **state) {
    (void)state;
    const struct registry_entry *entry = NULL;
    for (int first = 0; first < 2; first++) {
        struct seat seat;
        fw_error error = {.struct_size = sizeof error};
        seat_find(&seat, "broken", first == 1, 10, NULL);
        const fw_status status =
            first == 1 ? registry_find(seat.registry, FW_CACHE, "broken", &entry, &error)
                       : registry_find_apart(seat.registry, FW_CACHE, "broken", 10, &entry, &error);
        assert_fails(status, FW_E_CONFIG, &error, "cache-broken.so", "isolate nothing");
        seat_close(&seat);
    }
}

/* ---- services ---- */

static double effects[4];
static char logged[256];

static void take_effect(const fw_host *host, const char *name, double size) {
    static const char *const names[] = {"broken_cache_threads", "broken_cache_seed",
                                        "broken_cache_open", "broken_cache_reach"};
    (void)host;
    for (size_t i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0) effects[i] = size;
}

static void take_log(const fw_host *host, uint32_t level, const char *message) {
    (void)host;
    assert_int_equal(level, FW_LOG_INFO);
    (void)snprintf(logged, sizeof logged, "%s", message);
}

static void live_once(const char *setting) {
    struct seat seat;
    double nats;
    fw_host host = *test_host(NULL);
    host.effect = take_effect;
    host.log = take_log;
    memset(effects, 0, sizeof effects);
    seat_find(&seat, "broken", true, 10, (const char *const[]){setting, NULL});
    assert_ok(seat_open(&seat, &host, false), &seat.error);
    assert_ok(seat_score(&seat, 3, &nats), &seat.error);
    seat_close(&seat);
}

/* Lines without what a terminal would act on; as many threads as here; seeds by the run's seed. */
static void test_log_and_effects(void **state) {
    (void)state;
    const fw_host *host = test_host(NULL);
    struct host *of_the_run = NULL;
    fw_error error = {.struct_size = sizeof error};
    live_once("way=talk");
    assert_string_equal(logged, "the cache?[31m says this");
    assert_true(effects[0] == host->threads(host));
    assert_ok(host_create(&(struct host_options){.seed = SEAT_SEED}, &of_the_run, &error), &error);
    host = host_table(of_the_run);
    assert_true(effects[1] == (double)(host->seed(host, "label") % 1000000 + 1));
    host_destroy(of_the_run);
}

/* Standard input, output and error, and no file. */
static void test_nothing_else_is_open(void **state) {
    (void)state;
    live_once("way=look");
    assert_true(effects[2] == 3);
    assert_true(effects[3] == 1);
}

/* While a cache is apart, the host cannot be looked into; afterwards as before. */
static void test_the_host_is_hidden(void **state) {
    (void)state;
    struct seat seats[2];
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
    for (int i = 0; i < 2; i++) {
        seat_find(&seats[i], "none", true, 10, NULL);
        assert_ok(seat_open(&seats[i], test_host(NULL), false), &seats[i].error);
        assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    }
    seat_close(&seats[0]);
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
    seat_close(&seats[1]);
    assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
}

/* ---- rows ---- */

/* What a row points to stays until the next is asked about, here and apart, also where an
 * unverified form is asked about every token in between: SEAT_V + 3 requests, which end in the same
 * slot. */
static void test_rows_stay(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        const bool unverified = i % 2 == 1;
        struct seat seat;
        double nats;
        seat_find(&seat, unverified ? "broken_unverified" : "broken", i >= 2, 10,
                  (const char *const[]){"way=look_back", NULL});
        assert_ok(seat_open(&seat, test_host(NULL), unverified), &seat.error);
        for (uint32_t t = 0; t < 12; t++)
            assert_ok(seat_score(&seat, t % SEAT_V, &nats), &seat.error);
        assert_ok(cache_stream_end(seat.stream, &seat.error), &seat.error);
        seat_close(&seat);
    }
}

/* The last update's error is the cache's, as that of any other. */
static void test_an_error_at_the_end(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        struct seat seat;
        double nats;
        seat_find(&seat, "broken", apart == 1, 10,
                  (const char *const[]){"way=update_internal", "at=2", NULL});
        assert_ok(seat_open(&seat, test_host(NULL), false), &seat.error);
        fw_status status = FW_OK;
        for (uint32_t t = 0; t < 3 && status == FW_OK; t++) status = seat_score(&seat, t, &nats);
        if (status == FW_OK) status = cache_stream_end(seat.stream, &seat.error);
        assert_fails(status, FW_E_PROTOCOL, &seat.error, "position 2", "full of itself");
        seat_close(&seat);
    }
}

/* ---- ends ---- */

/* How it ended is known as often as somebody asks: an answer may have come before. */
static void test_an_end_is_remembered(void **state) {
    (void)state;
    static const char *const arguments[] = {"serve", NULL};
    for (int killed = 0; killed < 2; killed++) {
        struct cache_process process;
        struct channel channel;
        fw_error error = {.struct_size = sizeof error};
        char how[128] = "";
        int descriptor = -1;
        assert_ok(channel_create(SEAT_V, 0, &channel, &descriptor, &error), &error);
        channel.head->host += killed == 0; /* a child leaves when that is not its parent */
        assert_ok(cache_process_start(arguments, descriptor, &process, &error), &error);
        if (killed == 1) assert_int_equal(kill(process.pid, SIGKILL), 0);
        while (!cache_process_ended(&process, how, sizeof how)) (void)usleep(1000);
        for (int i = 0; i < 2; i++) {
            assert_non_null(strstr(how, killed == 1 ? "signal 9" : "exit code 2"));
            memset(how, 0, sizeof how);
            assert_true(cache_process_ended(&process, how, sizeof how));
        }
        cache_process_stop(&process, 0);
        (void)close(descriptor);
        channel_unmap(&channel);
    }
}

static pid_t only_child(pid_t parent) {
    char name[64];
    int child = 0;
    (void)snprintf(name, sizeof name, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *file = fopen(name, "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%d", &child) != 1) child = 0;
    (void)fclose(file);
    return child;
}

/* A host that is killed takes the cache's process along. */
static void test_the_child_ends_with_the_host(void **state) {
    (void)state;
    struct seat seat;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    const pid_t host = fork();
    if (host == 0) {
        seat_find(&seat, "none", true, 10, NULL);
        if (seat_open(&seat, test_host(NULL), false) != FW_OK) _exit(1);
        (void)write(ready[1], "x", 1);
        for (;;) (void)pause();
    }
    char byte;
    (void)close(ready[1]); /* so that a host that fails ends the reading */
    assert_true(host > 0);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    const pid_t child = only_child(host);
    if (child == 0) skip(); /* a kernel that does not list children */
    assert_int_equal(kill(child, 0), 0);
    assert_int_equal(kill(host, SIGKILL), 0);
    assert_int_equal(waitpid(host, NULL, 0), host);
    bool gone = false;
    for (int i = 0; i < 500 && !gone; i++) {
        (void)usleep(10000);
        char name[64], line[256] = "";
        (void)snprintf(name, sizeof name, "/proc/%d/stat", (int)child);
        FILE *file = fopen(name, "r");
        gone =
            file == NULL || fgets(line, sizeof line, file) == NULL || strstr(line, ") Z ") != NULL;
        if (file != NULL) (void)fclose(file);
    }
    assert_true(gone);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], CACHE_CHILD_VERB) == 0)
        return cache_child_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_stay),
        cmocka_unit_test(test_an_error_at_the_end),
        cmocka_unit_test(test_the_same_scores),
        cmocka_unit_test(test_tokens_travel),
        cmocka_unit_test(test_states_travel),
        cmocka_unit_test(test_a_described_module),
        cmocka_unit_test(test_not_in_both_places),
        cmocka_unit_test(test_log_and_effects),
        cmocka_unit_test(test_nothing_else_is_open),
        cmocka_unit_test(test_the_host_is_hidden),
        cmocka_unit_test(test_an_end_is_remembered),
        cmocka_unit_test(test_the_child_ends_with_the_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
