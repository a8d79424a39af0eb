/* The probe "model.decode": passes where feeding gives what a pass gives, fails where the two read
 * other keys, is skipped where a plugin cannot decode. */
#include "probe_decode.h"

#include "evaluate_fixture.h"
#include "model_internal.h"
#include "tiny_model.h"

static fw_error error = {.struct_size = sizeof error};

/* gqa, but that a pass sees no more than `keys` keys where that is not 0. */
static int64_t keys;
static const fw_attention *original;
static fw_attention vtable;
static fw_plugin plugin;
static struct registry_entry entry;

static bool no_plan;
static int64_t rows_at_once; /* 0: as many as the model gives */

static fw_status plan(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                      fw_attention_plan *out, fw_error *why) {
    if (no_plan && phase == FW_DECODE) return fw_fail(why, FW_E_LIMIT, "nothing of it fits");
    return original->plan(self, phase, batch, tokens, out, why);
}

static fw_status forward(void *self, const fw_attention_call *call, fw_error *why) {
    fw_attention_call windowed = *call;
    windowed.window = keys;
    return original->forward(self, &windowed, why);
}

static void wrap_attention(void) {
    for (int64_t i = 0; i < experiment.model.layers; i++) {
        struct plugin_choice *choice = &experiment.attention[i];
        if (choice->entry == &entry) continue;
        entry = *choice->entry;
        plugin = *entry.plugin;
        original = plugin.vtable;
        vtable = *original;
        vtable.forward = forward;
        vtable.plan = plan;
        plugin.vtable = &vtable;
        entry.plugin = &plugin;
        break;
    }
    for (int64_t i = 0; i < experiment.model.layers; i++) experiment.attention[i].entry = &entry;
}

static int setup(void **state) {
    const int failed = evaluate_setup(state);
    keys = 0;
    no_plan = false;
    rows_at_once = 0;
    wrap_attention();
    vtable.decode = original->decode;
    return failed;
}

static struct probe probed(void) {
    const struct model_options options = {.experiment = &experiment,
                                          .host = &device.services,
                                          .vocabulary = V,
                                          .batch = 2,
                                          .tokens = WINDOW,
                                          .feed = 1};
    struct model *model = tiny_model(&options);
    if (rows_at_once > 0) model->most_rows = rows_at_once;
    const struct decode_probe probe = {.model = model,
                                       .tokens = stream,
                                       .n = WINDOW,
                                       .batch = 2,
                                       .window = WINDOW,
                                       .vocabulary = V,
                                       .rounding = 1e-3};
    struct verdicts verdicts = {0};
    assert_ok(decode_probe(&probe, &verdicts, &error), &error);
    model_destroy(model);
    const struct probe *verdict = verdicts_find(&verdicts, "model.decode");
    assert_non_null(verdict);
    return *verdict;
}

static void test_equal(void **state) {
    (void)state;
    const struct probe verdict = probed();
    if (verdict.verdict != VERDICT_PASS) fail_msg("%s", verdict.words);
    assert_int_equal(verdict.positions, WINDOW);
}

/* Of a large vocabulary a window's rows come in several pieces. */
static void test_pieces(void **state) {
    (void)state;
    rows_at_once = 3;
    const struct probe verdict = probed();
    if (verdict.verdict != VERDICT_PASS) fail_msg("%s", verdict.words);
    assert_int_equal(verdict.positions, WINDOW);
}

/* The first position has one key either way. */
static void test_other_keys(void **state) {
    (void)state;
    keys = 1;
    const struct probe verdict = probed();
    assert_int_equal(verdict.verdict, VERDICT_FAIL);
    assert_non_null(strstr(verdict.words, "position 1: fed token by token, the log-probability"));
}

static void test_no_decoder(void **state) {
    (void)state;
    vtable.decode = NULL;
    const struct probe verdict = probed();
    assert_int_equal(verdict.verdict, VERDICT_SKIPPED);
    assert_non_null(strstr(verdict.words, "cannot decode"));
    assert_int_equal(verdict.positions, 0);
}

static void test_no_plan(void **state) {
    (void)state;
    no_plan = true;
    const struct probe verdict = probed();
    assert_int_equal(verdict.verdict, VERDICT_SKIPPED);
    assert_non_null(strstr(verdict.words, "nothing of it fits"));
}

int main(void) {
#define CHECKED(test) cmocka_unit_test_setup_teardown(test, setup, evaluate_teardown)
    const struct CMUnitTest tests[] = {
        CHECKED(test_equal),      CHECKED(test_pieces),  CHECKED(test_other_keys),
        CHECKED(test_no_decoder), CHECKED(test_no_plan),
    };
    return cmocka_run_group_tests(tests, evaluate_open_session, evaluate_close_session);
}
