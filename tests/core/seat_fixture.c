#include "seat_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <sys/wait.h>

static fw_token_info tokens[SEAT_V];
static const struct token_table table = {.vocabulary = SEAT_V, .begin_token = -1, .tokens = tokens};

void seat_find(struct seat *seat, const char *id, bool apart, double seconds,
               const char *const *overrides) {
    static const char *const directories[] = {BROKEN_CACHES};
    *seat = (struct seat){.error = {.struct_size = sizeof seat->error},
                          .apart = {.seconds = seconds, .seed = SEAT_SEED}};
    fw_error *error = &seat->error;
    assert_ok(registry_create(directories, 1, &seat->registry, error), error);
    seat->choice = (struct plugin_choice){.kind = FW_CACHE,
                                          .section = "cache",
                                          .name = id,
                                          .where = "test.ini:1",
                                          .apart = apart ? &seat->apart : NULL};
    const fw_status status =
        apart
            ? registry_find_apart(seat->registry, FW_CACHE, id, seconds, &seat->choice.entry, error)
            : registry_find(seat->registry, FW_CACHE, id, &seat->choice.entry, error);
    assert_ok(status, error);
    seat->choice.values = seat->values = test_values(seat->choice.entry->plugin, overrides);
    seat->past = calloc(1 << 20, sizeof *seat->past);
    assert_non_null(seat->past);
    seat->row = (fw_row){.struct_size = sizeof seat->row, .vocabulary = SEAT_V};
}

fw_status seat_open(struct seat *seat, const fw_host *host, bool allow_unverified) {
    return cache_stream_open(&seat->choice, host, &table, 100000, allow_unverified, &seat->stream,
                             &seat->error);
}

void seat_close(struct seat *seat) {
    cache_stream_close(seat->stream);
    free(seat->values);
    free(seat->past);
    registry_destroy(seat->registry);
}

static void form_row(struct seat *seat) {
    test_random random = {seat->row.position};
    double sum = 0, entropy = 0;
    for (uint32_t v = 0; v < SEAT_V; v++)
        sum += seat->probabilities[v] = exp(2 * test_normal(&random));
    for (uint32_t v = 0; v < SEAT_V; v++) {
        const double p = seat->probabilities[v] /= sum;
        entropy -= p * log(p);
    }
    seat->row.probabilities = seat->probabilities;
    seat->row.entropy = entropy;
    seat->row.context = seat->past;
    seat->row.n_context = (uint32_t)seat->n_past;
}

fw_status seat_score(struct seat *seat, uint32_t target, double *nats) {
    seat->row.position = seat->n_past;
    form_row(seat);
    if (!cache_stream_needs_entropy(seat->stream)) seat->row.entropy = -1;
    const fw_status status =
        cache_stream_score(seat->stream, &seat->row, target, nats, &seat->error);
    seat->past[seat->n_past++] = target;
    return status;
}

int open_descriptors(void) {
    int n = 0;
    DIR *entries = opendir("/proc/self/fd");
    assert_non_null(entries);
    while (readdir(entries) != NULL) n++;
    (void)closedir(entries);
    return n;
}

bool has_children(void) { return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD; }
