/* The decoder against the model's own pass over whole texts, with the model's switches alone and
 * together: feeds of one token, of all, of mixed sizes, and across evictions, where the pass's
 * attention is given the same window; then repeatability, decoders in turns, refusals and failures.
 */
#include "support.h"

#include <math.h>
#include <stdio.h>

#include "decoder.h"
#include "scorer.h"
#include "session.h"
#include "tiny_model.h"
#include "workspace.h"
#include "wrapped_device.h"

enum { VOCABULARY = 37, TEXT = 90 };

#define ATTENTION                                                                                  \
    "[attention]\nplugin = xsa\nheads = 4\nkv_heads = 2\nrope_dims = 4\nrope_train_length = 32\n"  \
    "[attention.0]\nplugin = gqa\n[model]\nwidth = 32\nmlp_width = 48\n"

#define EVERYTHING                                                                                 \
    ATTENTION                                                                                      \
    "layers = 5\nbigram_slots = 17\nbigram_width = 8\nsmear = yes\nx0_mix = yes\nskips = yes\n"    \
    "layer_scales = yes\ndepth_norm = yes\nvalue_layers = 1,3-4\nvalue_width = 6\n"

static const struct variant {
    const char *name, *ini;
    bool host_adds; /* attention knows of no residual: the host adds its output to the stream */
} variants[] = {
    {"plain", ATTENTION "layers = 2\n", false},
    {"everything", EVERYTHING, false},
    {"smear alone", ATTENTION "layers = 2\nsmear = yes\n", false},
    {"pairs alone", ATTENTION "layers = 2\nbigram_slots = 9\nbigram_width = 32\n", false},
    {"values alone", ATTENTION "layers = 2\nvalue_layers = 0-1\nvalue_width = 16\n", false},
    {"skips alone", ATTENTION "layers = 4\nskips = yes\n", false},
    {"mixes alone", ATTENTION "layers = 3\nx0_mix = yes\nsmear = yes\n", false},
    {"everything, added by the host", EVERYTHING, true},
};
enum { N_VARIANTS = sizeof variants / sizeof variants[0], EVERYTHING_ON = 1 };

/* ---- attention with a window in every pass, or without decode ---- */

static int64_t window; /* of forward; 0: all */

static struct other {
    const fw_attention *original;
    fw_attention vtable;
    fw_plugin plugin;
    struct registry_entry entry;
} others[2]; /* gqa and xsa are in modules of their own */

static fw_status forward(int which, void *self, const fw_attention_call *call, fw_error *error) {
    fw_attention_call windowed = *call;
    windowed.window = window;
    return others[which].original->forward(self, &windowed, error);
}

static fw_status forward_first(void *self, const fw_attention_call *call, fw_error *error) {
    return forward(0, self, call, error);
}

static fw_status forward_second(void *self, const fw_attention_call *call, fw_error *error) {
    return forward(1, self, call, error);
}

static bool host_adds, no_decode_plan;

static fw_status plan(int which, void *self, uint32_t phase, int64_t batch, int64_t tokens,
                      fw_attention_plan *out, fw_error *error) {
    if (no_decode_plan && phase == FW_DECODE)
        return fw_fail(error, FW_E_LIMIT, "nothing of it fits");
    FW_TRY(others[which].original->plan(self, phase, batch, tokens, out, error));
    if (host_adds) out->output_weight = 0;
    return FW_OK;
}

static fw_status plan_first(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                            fw_attention_plan *out, fw_error *error) {
    return plan(0, self, phase, batch, tokens, out, error);
}

static fw_status plan_second(void *self, uint32_t phase, int64_t batch, int64_t tokens,
                             fw_attention_plan *out, fw_error *error) {
    return plan(1, self, phase, batch, tokens, out, error);
}

static void wrap_attention(const struct experiment *experiment) {
    for (int64_t i = 0; i < experiment->model.layers; i++) {
        struct plugin_choice *choice = &experiment->attention[i];
        const int which = strcmp(choice->entry->plugin->id, "gqa") == 0;
        struct other *other = &others[which];
        if (choice->entry != &other->entry) {
            other->original = choice->entry->plugin->vtable;
            other->vtable = *other->original;
            other->vtable.forward = which ? forward_second : forward_first;
            other->vtable.plan = which ? plan_second : plan_first;
            other->plugin = *choice->entry->plugin;
            other->plugin.vtable = &other->vtable;
            other->entry = *choice->entry;
            other->entry.plugin = &other->plugin;
        }
        choice->entry = &other->entry;
    }
}

/* How the plugins differ from those that are wrapped, before a model is made of them. */
static void (*alter)(void);

/* ---- fixtures ---- */

struct fixture {
    struct session session;
    struct wrapped_device wrapped;
    struct model *model;
    int32_t text[TEXT];
    float expected[TEXT][VOCABULARY], seen[TEXT][VOCABULARY];
};

static fw_error error = {.struct_size = sizeof error};

static void set_weights(struct model *model, uint64_t seed) {
    float *weights = random_weights(model, seed, 0.25);
    assert_ok(model_set_weights(model, weights, &error), &error);
    free(weights);
}

static void open_fixture(struct fixture *f, const struct variant *variant, int64_t feed) {
    const struct arguments arguments = {.overrides = {"run.device=cpu"}, .n_overrides = 1};
    const uint32_t kinds = CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_ATTENTION);
    *f = (struct fixture){.model = NULL};
    window = 0;
    host_adds = variant->host_adds;
    assert_ok(session_open(&arguments, "decoder test", variant->ini, kinds, &f->session, &error),
              &error);
    wrapped_device_open(&f->wrapped, f->session.services, 0);
    wrap_attention(f->session.experiment);
    if (alter != NULL) alter();
    const struct model_options options = {.experiment = f->session.experiment,
                                          .host = &f->wrapped.services,
                                          .vocabulary = VOCABULARY,
                                          .batch = 1,
                                          .tokens = TEXT,
                                          .feed = feed};
    assert_ok(model_create(&options, &f->model, &error), &error);
    set_weights(f->model, 11);
    test_random random = {7};
    for (int i = 0; i < TEXT; i++) f->text[i] = (int32_t)test_below(&random, VOCABULARY);
}

static void close_fixture(struct fixture *f) {
    model_destroy(f->model);
    wrapped_device_close(&f->wrapped);
    session_close(&f->session);
}

static struct decoder *open_decoder(struct fixture *f, int64_t most, int64_t keys) {
    const struct decoder_options options = {.model = f->model, .most = most, .window = keys};
    struct decoder *decoder = NULL;
    assert_ok(decoder_create(&options, &decoder, &error), &error);
    return decoder;
}

/* One pass over the whole text, each query seeing `keys` keys. */
static void expect(struct fixture *f, int64_t keys) {
    window = keys;
    assert_ok(model_infer(f->model, f->text, 1, TEXT, &error), &error);
    assert_ok(model_log_probabilities(f->model, 0, TEXT, f->expected[0], &error), &error);
    window = 0;
}

/* Feeds of the given sizes, over and over. */
static void feed_all(struct fixture *f, struct decoder *decoder, const int64_t *sizes,
                     int n_sizes) {
    int64_t at = 0;
    for (int i = 0; at < TEXT; i++) {
        const int64_t left = TEXT - at, n = sizes[i % n_sizes] < left ? sizes[i % n_sizes] : left;
        assert_ok(decoder_feed(decoder, f->text + at, n, f->seen[at], &error), &error);
        at += n;
        assert_int_equal(decoder_position(decoder), at);
    }
}

/* Products of other shapes add in another order: through layers of width 32 whose scores are not
 * small, float32 leaves some 3e-5 of log-probabilities of the order of 6. A key too many or too
 * few, or a token before that is missing, moves rows by 1e-3 and more. */
static void compare(const struct fixture *f, const char *what) {
    for (int t = 0; t < TEXT; t++)
        for (int v = 0; v < VOCABULARY; v++) {
            const double difference = fabs((double)f->expected[t][v] - (double)f->seen[t][v]);
            if (!(difference <= 1e-4))
                fail_msg("%s: row %d token %d is %.7g, not %.7g", what, t, v, (double)f->seen[t][v],
                         (double)f->expected[t][v]);
        }
}

/* ---- the same as a pass ---- */

static const int64_t ones[] = {1}, whole[] = {TEXT}, mixed[] = {3, 1, 1, 17, 2, 30, 5};

static void check_variant(const struct variant *variant, int64_t keys) {
    struct fixture f;
    char what[128];
    open_fixture(&f, variant, TEXT);
    expect(&f, keys < TEXT ? keys : 0);
    struct decoder *decoder = open_decoder(&f, TEXT, keys);
    (void)snprintf(what, sizeof what, "%s, window %lld", variant->name, (long long)keys);
    feed_all(&f, decoder, ones, 1);
    compare(&f, what);
    assert_ok(decoder_reset(decoder, &error), &error);
    feed_all(&f, decoder, mixed, 7);
    compare(&f, what);
    assert_ok(decoder_reset(decoder, &error), &error);
    feed_all(&f, decoder, whole, 1);
    compare(&f, what);
    decoder_destroy(decoder);
    close_fixture(&f);
}

static void feeding_gives_what_a_pass_gives(void **state) {
    (void)state;
    for (int i = 0; i < N_VARIANTS; i++) check_variant(&variants[i], TEXT);
}

static void beyond_the_window_too(void **state) {
    (void)state;
    for (int i = 0; i < N_VARIANTS; i++) check_variant(&variants[i], 11);
    check_variant(&variants[EVERYTHING_ON], 1);
}

/* A decoder for small feeds keeps little, so that it must forget again and again. */
static void evictions_change_nothing(void **state) {
    (void)state;
    static const int64_t small[] = {2, 5, 1, 4, 3}, windows[] = {1, 2, 3, 7, 8};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        struct fixture f;
        open_fixture(&f, &variants[EVERYTHING_ON], 5);
        expect(&f, windows[i]);
        struct decoder *one = open_decoder(&f, 1, windows[i]);
        struct decoder *five = open_decoder(&f, 5, windows[i]);
        assert_true(decoder_bytes(one) < (size_t)TEXT * 5 * 2 * 16 * sizeof(float));
        feed_all(&f, one, ones, 1);
        compare(&f, "one by one");
        feed_all(&f, five, small, 5);
        compare(&f, "by up to five");
        decoder_destroy(one);
        decoder_destroy(five);
        close_fixture(&f);
    }
}

/* The instrument itself: another window, or a token that differs, is seen. */
static void a_difference_would_be_seen(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, &variants[EVERYTHING_ON], TEXT);
    struct decoder *decoder = open_decoder(&f, TEXT, 11);
    feed_all(&f, decoder, ones, 1);
    double moved[2] = {0};
    for (int i = 0; i < 2; i++) {
        if (i == 1) f.text[60] = (f.text[60] + 1) % VOCABULARY;
        expect(&f, i == 0 ? 12 : 11);
        for (int v = 0; v < VOCABULARY; v++)
            moved[i] = fmax(moved[i], fabs((double)f.expected[61][v] - (double)f.seen[61][v]));
        assert_true(moved[i] > 1e-3);
    }
    decoder_destroy(decoder);
    close_fixture(&f);
}

/* ---- repeatability ---- */

static void feeds_repeat_bit_for_bit(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, &variants[EVERYTHING_ON], 5);
    struct decoder *decoder = open_decoder(&f, 1, 7);
    feed_all(&f, decoder, ones, 1);
    memcpy(f.expected, f.seen, sizeof f.seen);
    assert_ok(decoder_reset(decoder, &error), &error);
    memset(f.seen, 0, sizeof f.seen);
    feed_all(&f, decoder, ones, 1);
    assert_memory_equal(f.expected, f.seen, sizeof f.seen);
    decoder_destroy(decoder);
    close_fixture(&f);
}

/* Two decoders at different places of the text and passes over windows, all of one model. */
static void decoders_take_turns(void **state) {
    (void)state;
    struct fixture f;
    float row[VOCABULARY];
    open_fixture(&f, &variants[EVERYTHING_ON], 5);
    struct decoder *alone = open_decoder(&f, 1, 7);
    feed_all(&f, alone, ones, 1);
    struct decoder *turns[2] = {open_decoder(&f, 1, 7), open_decoder(&f, 5, 7)};
    for (int t = 0; t < TEXT; t++) {
        if (t >= 20) {
            assert_ok(decoder_feed(turns[0], f.text + t - 20, 1, row, &error), &error);
            assert_memory_equal(row, f.seen[t - 20], sizeof row);
        }
        assert_ok(model_infer(f.model, f.text, 1, 30, &error), &error);
        assert_ok(decoder_feed(turns[1], f.text + t, 1, row, &error), &error);
        assert_memory_equal(row, f.seen[t], sizeof row);
    }
    decoder_destroy(alone);
    decoder_destroy(turns[0]);
    decoder_destroy(turns[1]);
    close_fixture(&f);
}

/* ---- refusals and failures ---- */

static void expect_refusal(struct fixture *f, int64_t most, int64_t keys, fw_status status,
                           const char *words) {
    const struct decoder_options options = {.model = f->model, .most = most, .window = keys};
    struct decoder *decoder = NULL;
    error.message[0] = '\0';
    assert_int_equal(decoder_create(&options, &decoder, &error), status);
    assert_null(decoder);
    if (strstr(error.message, words) == NULL) fail_msg("\"%s\" lacks %s", error.message, words);
}

static void decoders_that_cannot_be_are_refused(void **state) {
    (void)state;
    struct fixture f;
    open_fixture(&f, &variants[0], 5);
    expect_refusal(&f, 0, 7, FW_E_RANGE, "feeds of 0 tokens");
    expect_refusal(&f, 6, 7, FW_E_RANGE, "made for 1 to 5");
    expect_refusal(&f, 1, 0, FW_E_RANGE, "window of 0");
    expect_refusal(&f, 1, (int64_t)1 << 40, FW_E_RANGE, "window of 1099511627776");
    close_fixture(&f);
    open_fixture(&f, &variants[0], 0);
    expect_refusal(&f, 1, 7, FW_E_RANGE, "feeds of 1 tokens");
    close_fixture(&f);
}

static void no_decode(void) { others[0].vtable.decode = NULL; }

static void no_member(void) {
    others[1].vtable.struct_size =
        offsetof(fw_attention, forward_flops) + sizeof others[1].vtable.forward_flops;
}

static void must_not_be_called(void) { fail_msg("a function of before 0.4 was called"); }

/* What decoded before 0.4 lay right behind forward_flops, and took device memory alone. */
static void form_before_0_4(void) {
    fw_attention *vtable = &others[0].vtable;
    void (*const old)(void) = must_not_be_called;
    const size_t begin = offsetof(fw_attention, forward_flops) + sizeof vtable->forward_flops;
    for (size_t i = 0; i < 4; i++)
        memcpy((char *)vtable + begin + i * sizeof old, &old, sizeof old);
    vtable->struct_size = (uint32_t)(begin + 4 * sizeof old);
}

static void expect_altered(void (*how)(void), const char *plugin, const char *words) {
    struct fixture f;
    alter = how;
    open_fixture(&f, &variants[0], 5);
    alter = NULL;
    expect_refusal(&f, 1, 7, FW_E_UNSUPPORTED, plugin);
    expect_refusal(&f, 1, 7, FW_E_UNSUPPORTED, "cannot decode");
    expect_refusal(&f, 1, 7, FW_E_UNSUPPORTED, words);
    expect(&f, 0); /* a pass is not concerned */
    close_fixture(&f);
}

static void a_plugin_without_decode_is_named(void **state) {
    (void)state;
    expect_altered(no_decode, "xsa", "no state_bytes");
    expect_altered(no_member, "gqa", "no state_bytes");
    expect_altered(form_before_0_4, "xsa", "interface before 0.4");
}

/* A plugin whose plan for decoding fails: windows are scored, and a decoder says why not. */
static void a_failing_plan_concerns_decoders_alone(void **state) {
    (void)state;
    struct fixture f;
    struct model *model = NULL;
    float row[VOCABULARY];
    static const char sliding[] =
        ATTENTION "layers = 2\n[eval]\nmode = sliding\nwindow = 8\nstride = 4\nbatch = 2\n";
    no_decode_plan = true;
    open_fixture(&f, &(struct variant){"sliding", sliding, false}, 5);
    expect_refusal(&f, 1, 7, FW_E_UNSUPPORTED, "cannot decode (nothing of it fits)");
    assert_ok(scoring_model(&f.session, VOCABULARY, &model, &error), &error);
    no_decode_plan = false;
    set_weights(model, 11);
    assert_ok(model_infer(model, f.text, 2, 8, &error), &error);
    assert_ok(model_log_probabilities(model, 15, 1, row, &error), &error);
    model_destroy(model);
    close_fixture(&f);
}

/* eval.mode = stream is refused where the model is made, which is before any training. */
static void a_run_that_could_not_be_scored_is_refused(void **state) {
    (void)state;
    struct fixture f;
    const struct variant variant = {
        "stream",
        ATTENTION "layers = 2\n[eval]\nmode = stream\nwindow = 8\nstride = 4\nbatch = 2\n", false};
    open_fixture(&f, &variant, 5);
    struct model *model = NULL;
    assert_ok(scoring_model(&f.session, VOCABULARY, &model, &error), &error);
    model_destroy(model);
    model = NULL;
    others[1].vtable.state_evict = NULL;
    assert_int_equal(scoring_model(&f.session, VOCABULARY, &model, &error), FW_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "gqa"));
    assert_null(model);
    others[1].vtable.state_evict = others[1].original->state_evict;
    close_fixture(&f);
}

static void tokens_outside_are_refused(void **state) {
    (void)state;
    struct fixture f;
    float rows[5 * VOCABULARY];
    open_fixture(&f, &variants[EVERYTHING_ON], 5);
    struct decoder *decoder = open_decoder(&f, 3, 7);
    static const int32_t bad[] = {1, VOCABULARY, -1};
    assert_ok(decoder_feed(decoder, f.text, 3, rows, &error), &error);
    assert_int_equal(decoder_feed(decoder, bad, 2, rows, &error), FW_E_RANGE);
    assert_non_null(strstr(error.message, "token 37 at position 4"));
    assert_int_equal(decoder_feed(decoder, bad + 2, 1, rows, &error), FW_E_RANGE);
    assert_int_equal(decoder_feed(decoder, f.text, 0, rows, &error), FW_E_RANGE);
    assert_int_equal(decoder_feed(decoder, f.text, 4, rows, &error), FW_E_RANGE);
    assert_non_null(strstr(error.message, "1 to 3"));
    assert_int_equal(decoder_position(decoder), 3);
    decoder_destroy(decoder);
    close_fixture(&f);
}

/* What a model forms of its weights once is formed of those that it has: also after the device
 * failed on the way, and after it got others. */
static void weights_that_change_count(void **state) {
    (void)state;
    struct fixture f;
    float row[VOCABULARY], expected[2][VOCABULARY];
    for (int64_t fail = 0; fail < 60; fail++) {
        open_fixture(&f, &variants[EVERYTHING_ON], 5);
        struct decoder *decoder = open_decoder(&f, 1, 3);
        f.wrapped.fail_at = fail > 0 ? f.wrapped.calls + fail : 0;
        (void)decoder_feed(decoder, f.text, 1, row, &error);
        f.wrapped.fail_at = 0;
        for (int i = 0; i < 2; i++) {
            if (i == 1) set_weights(f.model, 12);
            assert_ok(decoder_reset(decoder, &error), &error);
            assert_ok(decoder_feed(decoder, f.text, 1, row, &error), &error);
            if (fail == 0) memcpy(expected[i], row, sizeof row);
            assert_memory_equal(row, expected[i], sizeof row);
        }
        decoder_destroy(decoder);
        close_fixture(&f);
    }
    assert_memory_not_equal(expected[0], expected[1], sizeof row);
}

/* Whichever call of the device fails: nothing is left, the decoder says so, and works once reset.
 */
static void a_failing_device_is_told_of(void **state) {
    (void)state;
    struct fixture f;
    float rows[5 * VOCABULARY], first[5 * VOCABULARY];
    open_fixture(&f, &variants[EVERYTHING_ON], 5);
    struct decoder *decoder = open_decoder(&f, 5, 3);
    assert_ok(decoder_feed(decoder, f.text, 5, first, &error), &error);
    assert_ok(decoder_reset(decoder, &error), &error);
    const int64_t before = f.wrapped.calls; /* what the model does once is done */
    assert_ok(decoder_feed(decoder, f.text, 5, first, &error), &error);
    const int64_t calls = f.wrapped.calls - before;
    assert_true(calls > 50);
    for (int64_t i = 1; i <= calls; i++) {
        assert_ok(decoder_reset(decoder, &error), &error);
        f.wrapped.fail_at = f.wrapped.calls + i;
        assert_int_equal(decoder_feed(decoder, f.text, 5, rows, &error), FW_E_DEVICE);
        assert_int_equal(decoder_feed(decoder, f.text, 5, rows, &error), FW_E_ARGUMENT);
        assert_ok(decoder_reset(decoder, &error), &error);
        assert_ok(decoder_feed(decoder, f.text, 5, rows, &error), &error);
        assert_memory_equal(rows, first, sizeof rows);
    }
    decoder_destroy(decoder);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(feeding_gives_what_a_pass_gives),
        cmocka_unit_test(beyond_the_window_too),
        cmocka_unit_test(evictions_change_nothing),
        cmocka_unit_test(a_difference_would_be_seen),
        cmocka_unit_test(feeds_repeat_bit_for_bit),
        cmocka_unit_test(decoders_take_turns),
        cmocka_unit_test(decoders_that_cannot_be_are_refused),
        cmocka_unit_test(a_plugin_without_decode_is_named),
        cmocka_unit_test(a_failing_plan_concerns_decoders_alone),
        cmocka_unit_test(a_run_that_could_not_be_scored_is_refused),
        cmocka_unit_test(tokens_outside_are_refused),
        cmocka_unit_test(weights_that_change_count),
        cmocka_unit_test(a_failing_device_is_told_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
