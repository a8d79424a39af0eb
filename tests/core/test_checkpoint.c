/* core/checkpoint: state comes back bit for bit; files cut short, damaged, foreign or of other
 * sizes are refused with the reason, and a failed write costs nothing. */
#include <checkpoint.h>
#include <host.h>
#include <math.h>
#include <session.h>

#include "workspace.h"

/* One piece is larger than the buffer that memory streams through. */
enum { SMALL = 24, LARGE = (1 << 18) + 77, STATE = 5 };

static fw_error error = {.struct_size = sizeof error};

struct fixture {
    struct session session;
    float small[SMALL], *large;
    uint8_t state[STATE];
    struct checkpoint checkpoint;
    struct checkpoint_memory memory;
};

static void open_fixture(struct fixture *f) {
    const struct arguments arguments = {0};
    assert_ok(session_open(&arguments, "checkpoint test", "", CONFIG_BIND(FW_DEVICE), &f->session,
                           &error),
              &error);
    f->large = malloc(LARGE * sizeof *f->large);
    assert_non_null(f->large);
    test_random random = {5};
    for (int i = 0; i < SMALL; i++) f->small[i] = (float)test_normal(&random);
    for (int i = 0; i < LARGE; i++) f->large[i] = (float)test_normal(&random);
    memcpy(f->state, "state", STATE);
    f->checkpoint = (struct checkpoint){.config = "0123abcd",
                                        .data = {1, 2, 3},
                                        .layout = {4, 5, 6},
                                        .step = 70000000001,
                                        .elapsed = 12.5,
                                        .mean_loss = 3.25,
                                        .qat_on = true,
                                        .lowest_scale = 0.125,
                                        .averager = f->state,
                                        .averager_bytes = STATE};
    f->memory = (struct checkpoint_memory){.device = f->session.services->device};
    checkpoint_add_piece(&f->memory, f->small, sizeof f->small);
    checkpoint_add_piece(&f->memory, NULL, 0);
    checkpoint_add_piece(&f->memory, f->large, LARGE * sizeof *f->large);
    assert_int_equal(f->memory.n, 2);
}

static void close_fixture(struct fixture *f) {
    free(f->large);
    session_close(&f->session);
}

static void test_round_trip(void **state) {
    (void)state;
    struct fixture f, other;
    struct checkpoint_file *file = NULL;
    open_fixture(&f), open_fixture(&other);
    assert_ok(checkpoint_write("c", &f.checkpoint, &f.memory, &error), &error);
    assert_string_equal(listing(), "c ");
    memset(other.small, 0, sizeof other.small);
    memset(other.large, 0, LARGE * sizeof *other.large);
    assert_ok(checkpoint_open("c", &file, &error), &error);
    const struct checkpoint *found = checkpoint_contents(file);
    assert_string_equal(found->config, "0123abcd");
    assert_memory_equal(found->data, f.checkpoint.data, 32);
    assert_memory_equal(found->layout, f.checkpoint.layout, 32);
    assert_true(found->step == 70000000001 && found->elapsed == 12.5);
    assert_true(found->mean_loss == 3.25 && found->qat_on && found->lowest_scale == 0.125);
    assert_int_equal(found->averager_bytes, STATE);
    assert_memory_equal(found->averager, "state", STATE);
    assert_ok(checkpoint_restore(file, &other.memory, &error), &error);
    assert_memory_equal(other.small, f.small, sizeof f.small);
    assert_memory_equal(other.large, f.large, LARGE * sizeof *f.large);
    checkpoint_close(file);
    checkpoint_close(NULL);
    close_fixture(&other), close_fixture(&f);
}

static void refuse(const void *data, size_t size, fw_status expected, const char *why) {
    struct checkpoint_file *file = NULL;
    write_bytes("bad", data, size);
    assert_fails(checkpoint_open("bad", &file, &error), expected, &error, "bad: ", why);
    assert_null(file);
}

static void test_damage(void **state) {
    (void)state;
    struct fixture f;
    size_t size = 0;
    open_fixture(&f);
    f.memory.n = 1;
    assert_ok(checkpoint_write("c", &f.checkpoint, &f.memory, &error), &error);
    char *good = read_bytes("c", &size);
    char *bad = malloc(size);
    assert_non_null(bad);
    for (size_t i = 0; i < size; i++) { /* a bit flips anywhere behind magic and version */
        memcpy(bad, good, size);
        bad[i] = (char)(bad[i] ^ 4);
        refuse(bad, size, i < 12 ? FW_E_FORMAT : FW_E_CHECKSUM,
               i < 8    ? "not a checkpoint"
               : i < 12 ? "format version"
                        : "truncated or damaged");
    }
    for (size_t n = 0; n < size; n++)
        refuse(good, n, n < 44 ? FW_E_FORMAT : FW_E_CHECKSUM,
               n < 44 ? "not a checkpoint" : "truncated or damaged");
    refuse("", 0, FW_E_FORMAT, "not a checkpoint");
    free(bad), free(good);
    close_fixture(&f);
}

static void test_missing_and_unfitting(void **state) {
    (void)state;
    struct fixture f;
    struct checkpoint_file *file = NULL;
    open_fixture(&f);
    assert_fails(checkpoint_open("none", &file, &error), FW_E_NOT_FOUND, &error,
                 "none: there is no checkpoint to resume from", "run.checkpoint_every");
    assert_ok(checkpoint_write("c", &f.checkpoint, &f.memory, &error), &error);
    assert_ok(checkpoint_open("c", &file, &error), &error);
    f.memory.n = 1;
    f.small[0] = 42;
    assert_fails(checkpoint_restore(file, &f.memory, &error), FW_E_FORMAT, &error,
                 "this run has 96");
    assert_true(f.small[0] == 42);
    checkpoint_close(file);
    close_fixture(&f);
}

/* Intact, but of no run: a clock that is no number would never run out. */
static void test_impossible_numbers(void **state) {
    (void)state;
    struct fixture f;
    struct checkpoint_file *file = NULL;
    open_fixture(&f);
    f.memory.n = 1;
    const struct checkpoint good = f.checkpoint;
    struct checkpoint bad[6] = {good, good, good, good, good, good};
    bad[0].elapsed = NAN;
    bad[1].elapsed = -1;
    bad[2].elapsed = INFINITY;
    bad[3].mean_loss = NAN;
    bad[4].lowest_scale = NAN;
    bad[5].step = INT64_MAX;
    for (int i = 0; i < 6; i++) {
        assert_ok(checkpoint_write("c", &bad[i], &f.memory, &error), &error);
        assert_fails(checkpoint_open("c", &file, &error), FW_E_FORMAT, &error,
                     "c: ", "no run has such");
        assert_null(file);
    }
    close_fixture(&f);
}

static void test_full_disk(void **state) {
    (void)state;
    struct fixture f;
    size_t size = 0, again = 0;
    open_fixture(&f);
    assert_ok(checkpoint_write("c", &f.checkpoint, &f.memory, &error), &error);
    char *before = read_bytes("c", &size);
    f.checkpoint.step++;
    limit_file_size(100000);
    const fw_status status = checkpoint_write("c", &f.checkpoint, &f.memory, &error);
    limit_file_size(0);
    assert_fails(status, FW_E_IO, &error, "cannot write c");
    assert_string_equal(listing(), "c ");
    char *after = read_bytes("c", &again);
    assert_int_equal(size, again);
    assert_memory_equal(before, after, size);
    free(before), free(after);
    close_fixture(&f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_round_trip), TEST(test_damage),
                                       TEST(test_missing_and_unfitting),
                                       TEST(test_impossible_numbers), TEST(test_full_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
