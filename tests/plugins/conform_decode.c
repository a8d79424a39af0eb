/* See conform_decode.h. The reference is the plugin's own forward pass over the whole text, with
 * the same window; what that computes is checked by conform_attention.c and, for the plugins of
 * this tree, against float64. State memory begins as NaN: whoever reads what nobody wrote is seen.
 */
#include "conform_decode.h"

#include <math.h>

/* Products of other shapes add in another order. In float32 that is some 1e-6; in bfloat16 what is
 * rounded differs wherever a sum lands on the other side, a unit (2^-8) at a time, of single
 * elements of queries, keys, weights and output: well below 1e-2 of the norm. A key too many or too
 * few among 20, or a rotation by one position, is 5e-2 and more. */
static double rounding(void) { return target.device->compute_dtype == FW_F32 ? 1e-5 : 1.5e-2; }

static bool decodes(void) {
    const fw_attention *vtable = target.plugin->vtable;
    return FW_HAS(vtable, decode);
}

void decoding_is_whole_or_absent(void **state) {
    (void)state;
    const fw_attention *vtable = target.plugin->vtable;
    const int members = FW_HAS(vtable, state_bytes) + FW_HAS(vtable, state_reset) +
                        FW_HAS(vtable, decode) + FW_HAS(vtable, state_evict);
    assert_true(members == 0 || members == 4);
}

/* ---- decoding a text ---- */

static fw_attention_state open_state(const layer *l, int64_t batch, int64_t capacity) {
    fw_error error = {.struct_size = sizeof error};
    fw_attention_state state = {
        .struct_size = sizeof state, .batch = batch, .capacity = capacity, .held = -1};
    const size_t bytes = l->vtable->state_bytes(l->self, batch, capacity);
    assert_true(bytes <= l->vtable->state_bytes(l->self, batch, capacity + 1));
    state.memory = bytes > 0 ? conform_take(l->c, bytes) : NULL;
    conform_ok(l->vtable->state_reset(l->self, &state, &error), &error);
    assert_int_equal(state.held, 0);
    return state;
}

/* Positions [at, at + n) of each sequence of `from` [batch, tokens, width]. NULL stays NULL. */
static float *slice(const float *from, const pass *p, int64_t at, int64_t n, int64_t width) {
    if (from == NULL) return NULL;
    const size_t row = (size_t)width * sizeof *from;
    float *piece = conform_floats((size_t)(p->batch * n * width));
    for (int64_t b = 0; b < p->batch; b++)
        memcpy(piece + b * n * width, from + (b * p->tokens + at) * width, (size_t)n * row);
    return piece;
}

/* Positions [at, at + n) of the text of `p`, whose own position is p->offset + at; to `output`
 * [batch, tokens, WIDTH]. */
static fw_status decode_piece(const layer *l, const pass *p, fw_attention_state *state, int64_t at,
                              int64_t n, float *output, fw_error *error) {
    const size_t mark = conform_mark();
    float *input = slice(p->input, p, at, n, WIDTH);
    float *value_add = slice(p->value_add, p, at, n, l->value_width);
    float *residual = slice(p->residual, p, at, n, WIDTH);
    const pass piece = {.batch = p->batch,
                        .tokens = n,
                        .offset = p->offset + at,
                        .window = p->window,
                        .phase = FW_DECODE,
                        .input = input,
                        .value_add = value_add,
                        .residual = residual};
    stage s;
    prepare(l, &piece, &s);
    assert_null(s.call.saved);
    const fw_status status = l->vtable->decode(l->self, state, &s.call, error);
    float *out = conform_floats((size_t)(p->batch * n * WIDTH));
    conform_read(l->c, &s.call.output, out);
    for (int64_t b = 0; b < p->batch; b++)
        memcpy(output + (b * p->tokens + at) * WIDTH, out + b * n * WIDTH,
               (size_t)(n * WIDTH) * sizeof *out);
    conform_release(mark);
    free(input), free(value_add), free(residual), free(out);
    return status;
}

/* When there is no room, all but what the window needs is forgotten. */
static void make_room(const layer *l, const pass *p, fw_attention_state *state, int64_t n) {
    fw_error error = {.struct_size = sizeof error};
    if (state->held + n <= state->capacity) return;
    const int64_t held = state->held, surplus = held - (p->window - 1);
    conform_ok(l->vtable->state_evict(l->self, state, surplus, &error), &error);
    assert_int_equal(state->held, held - surplus);
}

/* The whole text in pieces of these sizes, over and over. The caller frees. */
static float *decode_text(const layer *l, const pass *p, int64_t capacity, const int64_t *sizes,
                          int n_sizes) {
    const size_t mark = conform_mark();
    fw_error error = {.struct_size = sizeof error};
    float *output = conform_floats((size_t)(p->batch * p->tokens * WIDTH));
    fw_attention_state state = open_state(l, p->batch, capacity);
    int64_t at = 0;
    for (int i = 0; at < p->tokens; i++) {
        const int64_t left = p->tokens - at, size = sizes[i % n_sizes];
        const int64_t n = size < left ? size : left;
        make_room(l, p, &state, n);
        const int64_t held = state.held;
        conform_ok(decode_piece(l, p, &state, at, n, output, &error), &error);
        assert_int_equal(state.held, held + n);
        at += n;
    }
    conform_release(mark);
    return output;
}

static void expect_forward(const layer *l, pass p, int64_t capacity, const int64_t *sizes,
                           int n_sizes, const char *what) {
    const size_t n = (size_t)(p.batch * p.tokens * WIDTH);
    float *decoded = decode_text(l, &p, capacity, sizes, n_sizes);
    p.phase = FW_INFER;
    outcome whole = run(l, &p);
    conform_assert_close(what, decoded, whole.output, n, rounding());
    /* the last position alone, so that no single row hides in the norm of all */
    conform_assert_close(what, decoded + n - WIDTH, whole.output + n - WIDTH, WIDTH,
                         2 * rounding());
    free_outcome(&whole);
    free(decoded);
}

/* ---- the tests ---- */

static const int64_t ones[] = {1}, whole[] = {MAX_TOKENS}, mixed[] = {3, 1, 5, 2};

void decoding_gives_what_forward_gives(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    for (int64_t batch = 1; batch <= MAX_BATCH; batch += MAX_BATCH - 1)
        for (int with = 0; with < 2; with++) {
            const size_t rows = (size_t)(batch * MAX_TOKENS);
            const bool value = with && l.value_width > 0, residual = with && l.output_weight > 0;
            float *input = conform_normals(50, rows * WIDTH, 1);
            float *added = value ? conform_normals(51, rows * (size_t)l.value_width, 1) : NULL;
            float *stream = residual ? conform_normals(52, rows * WIDTH, 0.1) : NULL;
            const pass p = {.batch = batch,
                            .tokens = MAX_TOKENS,
                            .input = input,
                            .value_add = added,
                            .residual = stream};
            expect_forward(&l, p, MAX_TOKENS, ones, 1, "one by one");
            expect_forward(&l, p, MAX_TOKENS + 3, mixed, 4, "in pieces");
            expect_forward(&l, p, MAX_TOKENS, whole, 1, "at once");
            free(input), free(added), free(stream);
        }
    close_layer(&l);
}

void decoding_keeps_to_the_window(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    float *input = conform_normals(53, 2 * MAX_TOKENS * WIDTH, 1);
    static const int64_t windows[] = {2, 5, 9, MAX_TOKENS};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        const pass p = {.batch = 2, .tokens = MAX_TOKENS, .window = windows[i], .input = input};
        expect_forward(&l, p, MAX_TOKENS, ones, 1, "in a window, nothing forgotten");
        expect_forward(&l, p, windows[i], ones, 1, "in a window, each forgotten at once");
        expect_forward(&l, p, windows[i] + 6, mixed, 4, "in a window, forgotten now and then");
    }
    free(input);
    close_layer(&l);
}

/* Only differences of positions matter, however far a stream has gone. */
void decoding_at_far_positions(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    float *input = conform_normals(54, MAX_TOKENS * WIDTH, 1);
    pass p = {.batch = 1, .tokens = MAX_TOKENS, .window = 9, .input = input};
    float *near = decode_text(&l, &p, 15, mixed, 4);
    static const int64_t offsets[] = {1, MAX_TOKENS, 3400000, (int64_t)1 << 31};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        p.offset = offsets[i];
        float *far = decode_text(&l, &p, 15, mixed, 4);
        conform_assert_close("at a far position", far, near, MAX_TOKENS * WIDTH, rounding());
        free(far);
    }
    free(near), free(input);
    close_layer(&l);
}

/* An instance keeps nothing of a state; a state that is reset begins anew; calls repeat. */
void states_take_turns(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    fw_error error = {.struct_size = sizeof error};
    enum { T = 12 };
    float *input = conform_normals(56, T * WIDTH, 1);
    float *outputs[3];
    for (int i = 0; i < 3; i++) outputs[i] = conform_floats(T * WIDTH);
    const pass p = {.batch = 1, .tokens = T, .window = 5, .input = input};
    const size_t mark = conform_mark();
    fw_attention_state first = open_state(&l, 1, T), second = open_state(&l, 1, T);
    for (int64_t t = 0; t < T + 3; t++) {
        if (t < T) conform_ok(decode_piece(&l, &p, &first, t, 1, outputs[0], &error), &error);
        if (t >= 3) conform_ok(decode_piece(&l, &p, &second, t - 3, 1, outputs[1], &error), &error);
    }
    conform_ok(l.vtable->state_reset(l.self, &first, &error), &error);
    for (int64_t t = 0; t < T; t++)
        conform_ok(decode_piece(&l, &p, &first, t, 1, outputs[2], &error), &error);
    conform_release(mark);
    conform_assert_finite("output", outputs[0], T * WIDTH);
    conform_assert_same("in turns", outputs[1], outputs[0], T * WIDTH);
    conform_assert_same("reset", outputs[2], outputs[0], T * WIDTH);
    for (int i = 0; i < 3; i++) free(outputs[i]);
    free(input);
    close_layer(&l);
}

/* A call of decode may have more tokens than any other call. */
void decoding_takes_more_than_forward(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    enum { T = 5 * MAX_TOKENS + 3 };
    fw_attention_plan small = {.struct_size = sizeof small}, large = small;
    fw_error error = {.struct_size = sizeof error};
    conform_ok(l.vtable->plan(l.self, FW_DECODE, 1, 1, &small, &error), &error);
    conform_ok(l.vtable->plan(l.self, FW_DECODE, 1, T, &large, &error), &error);
    assert_true(small.scratch_bytes <= large.scratch_bytes);
    assert_int_equal(large.saved_bytes, 0);
    float *input = conform_normals(58, T * WIDTH, 1);
    const int64_t all = T;
    const pass p = {.batch = 1, .tokens = T, .window = 20, .input = input};
    float *once = decode_text(&l, &p, T, &all, 1), *pieces = decode_text(&l, &p, 26, mixed, 4);
    conform_assert_close("more tokens than forward takes", once, pieces, T * WIDTH, rounding());
    free(once), free(pieces), free(input);
    close_layer(&l);
}

void decoding_refuses(void **state) {
    (void)state;
    if (!decodes()) skip();
    layer l = open_layer(&target);
    enum { T = 6 };
    float *input = conform_normals(57, T * WIDTH, 1), *output = conform_floats(T * WIDTH);
    const pass p = {.batch = 1, .tokens = T, .input = input};
    const size_t mark = conform_mark();
    fw_attention_state kept = open_state(&l, 1, 4);
    fw_error error = {.struct_size = sizeof error};
    conform_ok(decode_piece(&l, &p, &kept, 0, 3, output, &error), &error);
    assert_int_equal(decode_piece(&l, &p, &kept, 3, 2, output, &error), FW_E_RANGE);
    assert_true(error.message[0] != '\0');
    assert_int_equal(kept.held, 3);
    for (size_t i = 3 * WIDTH; i < 5 * WIDTH; i++) assert_true(isnan(output[i]));
    assert_int_equal(l.vtable->state_evict(l.self, &kept, 4, &error), FW_E_RANGE);
    assert_int_equal(l.vtable->state_evict(l.self, &kept, -1, &error), FW_E_RANGE);
    assert_int_equal(kept.held, 3);
    conform_ok(l.vtable->state_evict(l.self, &kept, 0, &error), &error);
    conform_ok(decode_piece(&l, &p, &kept, 3, 1, output, &error), &error);
    assert_int_equal(kept.held, 4);
    conform_ok(l.vtable->state_evict(l.self, &kept, 4, &error), &error);
    assert_int_equal(kept.held, 0);
    conform_release(mark);
    free(input), free(output);
    close_layer(&l);
}
