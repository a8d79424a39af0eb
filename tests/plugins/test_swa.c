/* Snapshots against their definition in float64: when they are taken, their mean, its mix with the
 * moving average, the effects that are stated, and windows that never open. */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

enum { N = 6, STEPS = 60, MOST_EFFECTS = 4 };

/* ---- a host that notes effects ---- */

static struct {
    char name[64];
    double size;
} effects[MOST_EFFECTS];
static int n_effects;

static void note_effect(const fw_host *host, const char *name, double size) {
    (void)host;
    int i = 0;
    while (i < n_effects && strcmp(effects[i].name, name) != 0) i++;
    assert_true(i < MOST_EFFECTS);
    if (i == n_effects) n_effects++;
    (void)snprintf(effects[i].name, sizeof effects[i].name, "%s", name);
    effects[i].size = size;
}

static double effect(const char *name) {
    for (int i = 0; i < n_effects; i++)
        if (strcmp(effects[i].name, name) == 0) return effects[i].size;
    fail_msg("no effect %s", name);
    return 0;
}

/* ---- a run of one tensor ---- */

struct run {
    const fw_averager *averager;
    void *self;
    fw_host host;
    fw_value *values;
    float weights[N], slot[2][N], result[N];
    fw_averager_tensor tensor;
    double seen[STEPS][N];
};

static void open_run(struct run *r, const char *id, const char *const *overrides) {
    const fw_plugin *plugin = test_plugin(FW_AVERAGER, id);
    fw_error error = {.struct_size = sizeof error};
    memset(r, 0, sizeof *r);
    n_effects = 0;
    r->averager = plugin->vtable;
    r->host = *test_host(test_device("cpu"));
    r->host.struct_size = sizeof r->host;
    r->host.effect = note_effect;
    r->values = test_values(plugin, overrides);
    if (r->averager->create(&r->host, r->values, &r->self, &error) != FW_OK)
        fail_msg("%s", error.message);
    r->tensor = (fw_averager_tensor){.struct_size = sizeof r->tensor,
                                     .parameter = fw_vector(r->weights, FW_F32, N),
                                     .result = fw_vector(r->result, FW_F32, N)};
    for (uint32_t s = 0; s < r->averager->n_slots; s++)
        r->tensor.slot[s] = fw_vector(r->slot[s], FW_F32, N);
}

static void close_run(struct run *r) {
    r->averager->destroy(r->self);
    free(r->values);
}

static fw_averager_call call_at(struct run *r, int step, double schedule) {
    return (fw_averager_call){.struct_size = sizeof(fw_averager_call),
                              .n_tensors = 1,
                              .tensors = &r->tensor,
                              .step = step,
                              .schedule = schedule};
}

static void advance(struct run *r, test_random *random, int step, double schedule) {
    fw_error error = {.struct_size = sizeof error};
    for (int i = 0; i < N; i++) {
        r->weights[i] = (float)test_normal(random);
        r->seen[step][i] = (double)r->weights[i];
    }
    const fw_averager_call call = call_at(r, step, schedule);
    assert_int_equal(r->averager->update(r->self, &call, &error), FW_OK);
}

static fw_status result_of(struct run *r, fw_error *error) {
    *error = (fw_error){.struct_size = sizeof *error};
    const fw_averager_call call = call_at(r, STEPS - 1, 0);
    return r->averager->result(r->self, &call, error);
}

/* Warm-up over 10 steps from a low scale, then a warmdown over the last 30: below 0.25 from step 53
 * on (7/30). */
static double schedule_at(int step) {
    const double up = (step + 1) / 10.0, down = (STEPS - step) / 30.0;
    return fmin(1, fmin(up, down));
}

enum { OPENS = 53 };

static void expected_mean(const struct run *r, int every, double mean[N], int *n) {
    *n = 0;
    memset(mean, 0, N * sizeof *mean);
    for (int step = OPENS; step < STEPS; step += every, (*n)++)
        for (int i = 0; i < N; i++) mean[i] += r->seen[step][i];
    for (int i = 0; i < N; i++) mean[i] /= *n;
}

static double distance(const double *a, const double *b) {
    double difference = 0, norm = 0;
    for (int i = 0; i < N; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return sqrt(difference / norm);
}

static void train(struct run *r) {
    test_random random = {3};
    for (int step = 0; step < STEPS; step++) advance(r, &random, step, schedule_at(step));
}

static void check_swa(int every, int expected_count) {
    char setting[32];
    (void)snprintf(setting, sizeof setting, "every=%d", every);
    const char *const overrides[] = {"below=0.25", setting, NULL};
    struct run r;
    fw_error error;
    int n;
    double mean[N];
    open_run(&r, "swa", overrides);
    train(&r);
    assert_int_equal(result_of(&r, &error), FW_OK);
    expected_mean(&r, every, mean, &n);
    assert_int_equal(n, expected_count);
    assert_true(test_relative_error(r.result, mean, N) < 1e-6);
    assert_true(effect("swa_snapshots") == n);
    assert_true(fabs(effect("swa_relative_distance") - distance(mean, r.seen[STEPS - 1])) < 1e-5);
    close_run(&r);
}

static void test_snapshots_and_their_mean(void **state) {
    (void)state;
    check_swa(1, 7);
    check_swa(3, 3); /* steps 53, 56, 59 */
    check_swa(50, 1);
}

static void moving_average(const struct run *r, double decay, double average[N]) {
    memcpy(average, r->seen[0], N * sizeof *average);
    for (int step = 1; step < STEPS; step++)
        for (int i = 0; i < N; i++) average[i] += (1 - decay) * (r->seen[step][i] - average[i]);
}

static void check_mix(const char *setting, double share) {
    const char *const overrides[] = {"below=0.25", "every=2", "decay=0.9", setting, NULL};
    struct run r;
    fw_error error;
    int n;
    double mean[N], average[N], expected[N];
    open_run(&r, "ema_swa", overrides);
    train(&r);
    assert_int_equal(result_of(&r, &error), FW_OK);
    expected_mean(&r, 2, mean, &n);
    moving_average(&r, 0.9, average);
    for (int i = 0; i < N; i++) expected[i] = average[i] + share * (mean[i] - average[i]);
    assert_true(test_relative_error(r.result, expected, N) < 1e-6);
    assert_true(effect("swa_snapshots") == 4);
    assert_true(fabs(effect("swa_relative_distance") - distance(expected, average)) < 1e-5);
    close_run(&r);
}

static void test_mix_with_the_moving_average(void **state) {
    (void)state;
    check_mix("swa_share=0.5", 0.5);
    check_mix("swa_share=0.25", 0.25);
    check_mix("swa_share=1", 1);
}

/* The scale rises from 0.1 to 1 and stays: a warm-up opens no window. */
static void test_a_window_that_never_opens(void **state) {
    (void)state;
    static const char *const ids[] = {"swa", "ema_swa"};
    static const char *const overrides[] = {NULL};
    for (int k = 0; k < 2; k++) {
        struct run r;
        fw_error error;
        test_random random = {3};
        open_run(&r, ids[k], overrides);
        for (int step = 0; step < STEPS; step++)
            advance(&r, &random, step, step < 10 ? (step + 1) / 10.0 : step < 40 ? 1 : 0.3);
        assert_int_equal(result_of(&r, &error), FW_E_LIMIT);
        assert_non_null(strstr(error.message, "never fell below 0.2 (its lowest was 0.3 in 60"));
        assert_non_null(strstr(error.message, "run.warmdown_steps"));
        assert_int_equal(n_effects, 0);
        close_run(&r);
    }
}

static void test_no_step_at_all(void **state) {
    (void)state;
    static const char *const overrides[] = {NULL};
    struct run r;
    fw_error error;
    open_run(&r, "swa", overrides);
    assert_int_equal(result_of(&r, &error), FW_E_LIMIT);
    assert_non_null(strstr(error.message, "0 steps"));
    close_run(&r);
}

/* A state that is of the right size but cannot be. */
static void test_impossible_states(void **state) {
    (void)state;
    static const char *const overrides[] = {NULL};
    struct run r;
    fw_error error = {.struct_size = sizeof error};
    open_run(&r, "swa", overrides);
    int64_t saved[8];
    size_t bytes = sizeof saved;
    assert_int_equal(r.averager->save(r.self, saved, &bytes, &error), FW_OK);
    assert_int_equal(r.averager->load(r.self, saved, bytes, &error), FW_OK);
    saved[1] = 5; /* snapshots of no steps */
    assert_int_equal(r.averager->load(r.self, saved, bytes, &error), FW_E_FORMAT);
    assert_non_null(strstr(error.message, "5 snapshots in 0 steps"));
    close_run(&r);
}

/* Hosts of an older interface have no effect(). */
static void test_a_host_without_effects(void **state) {
    (void)state;
    static const char *const overrides[] = {"below=0.25", NULL};
    struct run r;
    fw_error error;
    open_run(&r, "swa", overrides);
    r.host.struct_size = offsetof(fw_host, effect);
    train(&r);
    assert_int_equal(result_of(&r, &error), FW_OK);
    assert_int_equal(n_effects, 0);
    close_run(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshots_and_their_mean),
        cmocka_unit_test(test_mix_with_the_moving_average),
        cmocka_unit_test(test_a_window_that_never_opens),
        cmocka_unit_test(test_no_step_at_all),
        cmocka_unit_test(test_impossible_states),
        cmocka_unit_test(test_a_host_without_effects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
