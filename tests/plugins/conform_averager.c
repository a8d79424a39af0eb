/* Conformance of averager plugins: the weights are read only, the result is an average of what was
 * seen, and slots and saved state together hold everything. */
#include <math.h>

#include "conform.h"

enum { N_TENSORS = 2, STEPS = 40, STATE_BYTES = 4096 };

static conform target;

static const int64_t shapes[N_TENSORS][2] = {{13, 7}, {5, 1}};

/* One instance with its tensors on the device. */
typedef struct averaged {
    const fw_averager *vtable;
    void *self;
    fw_weight weights[N_TENSORS];
    fw_averager_tensor tensors[N_TENSORS];
    size_t mark;
} averaged;

static size_t count_of(uint32_t i) { return (size_t)(shapes[i][0] * shapes[i][1]); }

static void *create(void) {
    const fw_averager *vtable = target.plugin->vtable;
    fw_error error = {.struct_size = sizeof error};
    void *self = NULL;
    conform_ok(vtable->create(target.host, target.values, &self, &error), &error);
    return self;
}

static averaged open_averaged(void) {
    averaged a = {.vtable = target.plugin->vtable, .self = create(), .mark = conform_mark()};
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        const uint32_t rank = shapes[i][1] > 1 ? 2 : 1;
        a.weights[i] = (fw_weight){.struct_size = sizeof a.weights[i],
                                   .role = rank == 2 ? FW_ROLE_MATRIX : FW_ROLE_SCALAR,
                                   .init = FW_INIT_ZERO,
                                   .part = FW_PART_OTHER,
                                   .rank = rank,
                                   .shape = {shapes[i][0], shapes[i][1], 1, 1},
                                   .index = i};
        fw_averager_tensor *t = &a.tensors[i];
        *t = (fw_averager_tensor){.struct_size = sizeof *t};
        t->parameter = conform_tensor(&target, FW_F32, rank, shapes[i][0], shapes[i][1]);
        t->result = conform_tensor(&target, FW_F32, rank, shapes[i][0], shapes[i][1]);
        float *zero = conform_floats(count_of(i));
        for (uint32_t s = 0; s < FW_MAX_SLOTS; s++) {
            t->slot[s] = fw_absent();
            if (s >= a.vtable->n_slots) continue;
            t->slot[s] = conform_tensor(&target, FW_F32, rank, shapes[i][0], shapes[i][1]);
            conform_write(&target, &t->slot[s], zero);
        }
        free(zero);
    }
    return a;
}

static void close_averaged(averaged *a) {
    conform_release(a->mark);
    a->vtable->destroy(a->self);
}

static fw_averager_call call_of(averaged *a, int64_t step) {
    for (uint32_t i = 0; i < N_TENSORS; i++) a->tensors[i].weight = &a->weights[i];
    return (fw_averager_call){.struct_size = sizeof(fw_averager_call),
                              .n_tensors = N_TENSORS,
                              .tensors = a->tensors,
                              .step = step,
                              .schedule = 1 - (double)step / STEPS};
}

/* The weights of tensor i after step t of a made-up run. */
static float *weights_at(uint32_t i, int64_t t) {
    return conform_normals(500 + 100 * i + (uint64_t)t, count_of(i), 1);
}

/* One step: new weights, update, and the weights must be as they were. */
static void advance(averaged *a, int64_t t) {
    fw_error error = {.struct_size = sizeof error};
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *weights = weights_at(i, t);
        conform_write(&target, &a->tensors[i].parameter, weights);
        free(weights);
    }
    const fw_averager_call call = call_of(a, t);
    if (a->vtable->update != NULL) conform_ok(a->vtable->update(a->self, &call, &error), &error);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *weights = weights_at(i, t), *seen = conform_floats(count_of(i));
        conform_read(&target, &a->tensors[i].parameter, seen);
        conform_assert_same("the raw weights", seen, weights, count_of(i));
        free(weights), free(seen);
    }
}

static fw_status result_of(averaged *a, int64_t t) {
    fw_error error = {.struct_size = sizeof error};
    const fw_averager_call call = call_of(a, t);
    const fw_status status = a->vtable->result(a->self, &call, &error);
    if (status != FW_OK) assert_true(error.message[0] != '\0');
    return status;
}

static float *read_result(const averaged *a, uint32_t i) {
    float *values = conform_floats(count_of(i));
    conform_read(&target, &a->tensors[i].result, values);
    return values;
}

static void descriptor(void **state) {
    (void)state;
    const fw_averager *vtable = target.plugin->vtable;
    conform_check_descriptor(&target);
    assert_true(vtable->n_slots <= FW_MAX_SLOTS);
    assert_true(vtable->update != NULL || vtable->n_slots == 0);
    assert_int_equal(FW_HAS(vtable, save), FW_HAS(vtable, load));
}

/* Without an update there is no average: E_LIMIT with the result untouched, or the weights. */
static void result_without_updates(void **state) {
    (void)state;
    averaged a = open_averaged();
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *weights = weights_at(i, 0);
        conform_write(&target, &a.tensors[i].parameter, weights);
        free(weights);
    }
    const fw_status status = result_of(&a, 0);
    assert_true(status == FW_OK || status == FW_E_LIMIT);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *seen = read_result(&a, i), *weights = weights_at(i, 0);
        if (status == FW_OK) conform_assert_same("result", seen, weights, count_of(i));
        for (size_t j = 0; status != FW_OK && j < count_of(i); j++) assert_true(isnan(seen[j]));
        free(seen), free(weights);
    }
    close_averaged(&a);
}

/* Every element lies between the smallest and the largest value that it took. */
static void result_is_an_average(void **state) {
    (void)state;
    averaged a = open_averaged();
    for (int64_t t = 0; t < STEPS; t++) advance(&a, t);
    assert_int_equal(result_of(&a, STEPS - 1), FW_OK);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *seen = read_result(&a, i);
        conform_assert_finite("result", seen, count_of(i));
        float *low = weights_at(i, 0), *high = weights_at(i, 0);
        for (int64_t t = 1; t < STEPS; t++) {
            float *weights = weights_at(i, t);
            for (size_t j = 0; j < count_of(i); j++) {
                low[j] = fminf(low[j], weights[j]);
                high[j] = fmaxf(high[j], weights[j]);
            }
            free(weights);
        }
        for (size_t j = 0; j < count_of(i); j++)
            assert_true(seen[j] >= low[j] - 1e-5f && seen[j] <= high[j] + 1e-5f);
        free(seen), free(low), free(high);
    }
    close_averaged(&a);
}

static void result_repeats_and_changes_nothing(void **state) {
    (void)state;
    averaged a = open_averaged(), b = open_averaged();
    for (int64_t t = 0; t < STEPS; t++) {
        advance(&a, t), advance(&b, t);
        (void)result_of(&b, t); /* an early look must not disturb the average */
    }
    assert_int_equal(result_of(&a, STEPS - 1), FW_OK);
    assert_int_equal(result_of(&b, STEPS - 1), FW_OK);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *first = read_result(&a, i), *second = read_result(&b, i);
        conform_assert_same("result", first, second, count_of(i));
        free(first), free(second);
    }
    close_averaged(&b), close_averaged(&a);
}

/* Replace the instance by a new one that is given the saved state; the slots stay. */
static void resume(averaged *a) {
    fw_error error = {.struct_size = sizeof error};
    char saved[STATE_BYTES];
    size_t bytes = sizeof saved;
    const bool saves = FW_HAS(a->vtable, save);
    if (saves) conform_ok(a->vtable->save(a->self, saved, &bytes, &error), &error);
    assert_true(bytes <= sizeof saved);
    a->vtable->destroy(a->self);
    a->self = create();
    if (saves) conform_ok(a->vtable->load(a->self, saved, bytes, &error), &error);
}

static void a_resumed_run_goes_on_exactly(void **state) {
    (void)state;
    averaged straight = open_averaged(), resumed = open_averaged();
    for (int64_t t = 0; t < STEPS; t++) {
        advance(&straight, t), advance(&resumed, t);
        if (t % 7 == 0) resume(&resumed);
    }
    assert_int_equal(result_of(&straight, STEPS - 1), FW_OK);
    assert_int_equal(result_of(&resumed, STEPS - 1), FW_OK);
    for (uint32_t i = 0; i < N_TENSORS; i++) {
        float *first = read_result(&straight, i), *second = read_result(&resumed, i);
        conform_assert_same("result", second, first, count_of(i));
        free(first), free(second);
    }
    close_averaged(&resumed), close_averaged(&straight);
}

static void wrong_states_are_refused(void **state) {
    (void)state;
    const fw_averager *vtable = target.plugin->vtable;
    if (!FW_HAS(vtable, save)) skip();
    averaged a = open_averaged();
    fw_error error = {.struct_size = sizeof error};
    char saved[STATE_BYTES];
    size_t bytes = 0;
    assert_int_equal(vtable->save(a.self, saved, &bytes, &error), FW_E_BUFFER);
    assert_true(error.message[0] != '\0');
    memset(saved, 0xff, sizeof saved);
    assert_int_equal(vtable->load(a.self, saved, 1, &error), FW_E_FORMAT);
    assert_int_equal(vtable->load(a.self, saved, sizeof saved, &error), FW_E_FORMAT);
    close_averaged(&a);
}

/* A rehearsal shows the schedule without tensors; its result's status is that of the real run. */
static void rehearse(double lowest) {
    averaged real = open_averaged(), rehearsed = open_averaged();
    fw_error error = {.struct_size = sizeof error};
    fw_status status = FW_OK;
    for (int64_t t = 0; t < STEPS; t++) {
        fw_averager_call call = call_of(&real, t);
        call.schedule = 1 - (1 - lowest) * (double)t / STEPS;
        conform_ok(real.vtable->update(real.self, &call, &error), &error);
        call.n_tensors = 0;
        call.tensors = NULL;
        conform_ok(rehearsed.vtable->update(rehearsed.self, &call, &error), &error);
        status = rehearsed.vtable->result(rehearsed.self, &call, &error);
    }
    assert_int_equal(status, result_of(&real, STEPS - 1));
    close_averaged(&rehearsed), close_averaged(&real);
}

static void a_rehearsal_tells_the_end(void **state) {
    (void)state;
    if (((const fw_averager *)target.plugin->vtable)->update == NULL) skip();
    rehearse(0);
    rehearse(0.9);
}

int main(int argc, char **argv) {
    target = conform_open(argc, argv, FW_AVERAGER);
    const struct CMUnitTest tests[] = {cmocka_unit_test(descriptor),
                                       cmocka_unit_test(result_without_updates),
                                       cmocka_unit_test(result_is_an_average),
                                       cmocka_unit_test(result_repeats_and_changes_nothing),
                                       cmocka_unit_test(a_resumed_run_goes_on_exactly),
                                       cmocka_unit_test(wrong_states_are_refused),
                                       cmocka_unit_test(a_rehearsal_tells_the_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
