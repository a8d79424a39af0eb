#include "reading.h"

#include <stdlib.h>

#include "staging.h"

/* Rows of one pass that are under way: the pass's rows [begin, begin + n), which count `per_window`
 * positions of each of its windows. */
struct rows_sent {
    uint64_t window; /* the pass's first */
    uint64_t per_window;
    int64_t begin, n;
};

struct reading {
    struct reading_options options;
    uint64_t count; /* windows */
    int32_t *inputs;
    int64_t *firsts;          /* ahead: of the pass's windows, see first_of */
    uint64_t index, position; /* the next window, and the next position of it; 0: its first */
    struct staging *staging;  /* NULL: in step with the device */
    struct rows_sent sent[LANGUAGE_MODEL_SENDS]; /* by slot */
    uint32_t slot;                               /* whose rows are read */
    bool heard;                                  /* it was waited for */
    uint64_t next_window;     /* where the pass begins that is to be issued next */
    struct rows_sent issuing; /* what is left of the one before: n rows from `begin` on */
    float *rows;              /* in step: positions [rows_first, rows_first + rows_n) of a window */
    uint64_t rows_first;
    int64_t rows_n, rows_most;
};

static bool works_ahead(const struct reading *r) { return r->options.model->send != NULL; }

/* Pieces of rows under way: of a stream two passes and more, so that the device always has the next
 * one before it, however long the host takes for the rows of the last. */
static uint32_t slots(const struct reading *r) {
    return r->options.reads_on ? LANGUAGE_MODEL_SENDS : LANGUAGE_MODEL_SENDS / 2;
}

/* Inputs of windows [first, first + batch), padded with token 0 to full windows and a full batch,
 * so that every pass has the same shape and a score never depends on where a batch ends. */
static void gather_inputs(struct reading *r, uint64_t first) {
    const uint64_t length = r->options.windows->length;
    for (uint64_t slot = 0; slot < (uint64_t)r->options.batch; slot++) {
        struct window window = {0};
        if (first + slot < r->count) window = windows_get(r->options.windows, first + slot);
        for (uint64_t i = 0; i < length; i++)
            r->inputs[slot * length + i] = i < window.n ? r->options.tokens[window.start + i] : 0;
    }
}

/* ---- in step with the device ---- */

/* Of a stream, no more than there is: what is read would be kept. */
static fw_status read_pass(struct reading *r, const struct window *window, fw_error *error) {
    const struct language_model *model = r->options.model;
    gather_inputs(r, r->index);
    if (r->options.reads_on)
        return model->read_on(model->stream, r->inputs, (int64_t)window->n, error);
    return model->infer(model->self, r->inputs, r->options.batch,
                        (int64_t)r->options.windows->length, error);
}

/* Rows from the next position on, as many as there is room for. */
static fw_status fetch_rows(struct reading *r, const struct window *window, int64_t slot,
                            fw_error *error) {
    const struct language_model *model = r->options.model;
    const int64_t left = (int64_t)(window->n - r->position);
    r->rows_first = r->position;
    r->rows_n = left < r->rows_most ? left : r->rows_most;
    return model->log_probabilities(
        model->self, slot * (int64_t)r->options.windows->length + (int64_t)r->position, r->rows_n,
        r->rows, error);
}

/* The row of the next position, and how many from there on are there. */
static fw_status rows_in_step(struct reading *r, const struct window *window, const float **row,
                              int64_t *n, fw_error *error) {
    const int64_t slot = (int64_t)(r->index % (uint64_t)r->options.batch);
    const bool begins = r->position == window->first;
    if (begins && slot == 0) FW_TRY(read_pass(r, window, error));
    if (begins || r->position >= r->rows_first + (uint64_t)r->rows_n)
        FW_TRY(fetch_rows(r, window, slot, error));
    const int64_t at = (int64_t)(r->position - r->rows_first);
    *row = r->rows + at * r->options.vocabulary;
    *n = r->rows_n - at;
    return FW_OK;
}

/* ---- ahead ---- */

/* The stream's first window is scored whole, and its pass is computed whole; of all others, the
 * `stride` positions before their end, whatever of them is scored: shape and place of a position
 * are the same however the stream ends and targets count. */
static uint64_t rows_per_window(const struct reading *r, uint64_t window) {
    return window == 0 ? r->options.windows->length : r->options.windows->stride;
}

/* Where these positions begin. */
static uint64_t first_of(const struct reading *r, uint64_t index, uint64_t per_window) {
    if (index >= r->count) return 0;
    const uint64_t n = windows_get(r->options.windows, index).n;
    return n > per_window ? n - per_window : 0;
}

static fw_status begin_pass(struct reading *r, fw_error *error) {
    const struct language_model *model = r->options.model;
    const int64_t batch = r->options.batch;
    const uint64_t window = r->next_window, per_window = rows_per_window(r, window);
    for (int64_t b = 0; b < batch; b++)
        r->firsts[b] = (int64_t)first_of(r, window + (uint64_t)b, per_window);
    gather_inputs(r, window);
    r->issuing = (struct rows_sent){window, per_window, 0, batch * (int64_t)per_window};
    r->next_window += (uint64_t)batch;
    if (r->options.reads_on)
        return model->read_on(model->stream, r->inputs, (int64_t)r->options.windows->length, error);
    return model->infer_some(model->self, r->inputs, batch, (int64_t)r->options.windows->length,
                             r->firsts, (int64_t)per_window, error);
}

/* Send for the next rows, to the memory of `slot`, which is free; n is 0 when there are none. */
static fw_status issue(struct reading *r, uint32_t slot, fw_error *error) {
    const struct language_model *model = r->options.model;
    r->sent[slot].n = 0;
    if (r->issuing.n == 0) {
        if (r->next_window >= r->count) return FW_OK;
        FW_TRY(begin_pass(r, error));
    }
    struct rows_sent now = r->issuing;
    if (now.n > model->most_rows) now.n = model->most_rows;
    FW_TRY(model->send(model->self, now.begin, now.n, staging_memory(r->staging, slot), error));
    FW_TRY(staging_mark(r->staging, slot, error));
    r->issuing.begin += now.n;
    r->issuing.n -= now.n;
    r->sent[slot] = now;
    return FW_OK;
}

/* Whether the next position's row lies in what was sent, and where. */
static bool find_row(const struct reading *r, const struct rows_sent *sent, int64_t *row) {
    const uint64_t batch = (uint64_t)r->options.batch;
    if (r->index < sent->window || r->index >= sent->window + batch) return false;
    const uint64_t in_window = r->position - first_of(r, r->index, sent->per_window);
    *row = (int64_t)((r->index - sent->window) * sent->per_window + in_window) - sent->begin;
    return *row >= 0 && *row < sent->n;
}

static fw_status rows_ahead(struct reading *r, const float **row, int64_t *n, fw_error *error) {
    int64_t at = 0;
    while (!find_row(r, &r->sent[r->slot], &at)) {
        if (r->sent[r->slot].n == 0) return fw_fail(error, FW_E_INTERNAL, "a row was not sent for");
        FW_TRY(issue(r, r->slot, error));
        r->slot = (r->slot + 1) % slots(r);
        r->heard = false;
    }
    if (!r->heard) FW_TRY(staging_wait(r->staging, r->slot, error));
    r->heard = true;
    const float *rows = staging_memory(r->staging, r->slot);
    *row = rows + at * (int64_t)r->options.vocabulary;
    *n = r->sent[r->slot].n - at;
    return FW_OK;
}

/* ---- both ---- */

static fw_status allocate(struct reading *r, fw_error *error) {
    const struct reading_options *o = &r->options;
    const size_t length = o->windows->length, row = o->vocabulary * sizeof(float);
    r->inputs = malloc((size_t)o->batch * length * sizeof *r->inputs);
    r->firsts = calloc((size_t)o->batch, sizeof *r->firsts);
    if (r->inputs == NULL || r->firsts == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for windows of tokens");
    if (works_ahead(r))
        return staging_create(o->host->device, slots(r), (size_t)o->model->most_rows * row,
                              &r->staging, error);
    const int64_t most = o->model->most_rows;
    r->rows_most = most > 0 && most < (int64_t)length ? most : (int64_t)length;
    r->rows = malloc((size_t)r->rows_most * row);
    return r->rows != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "no memory for a window's rows");
}

fw_status reading_create(const struct reading_options *options, struct reading **reading,
                         fw_error *error) {
    struct reading *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory to read a stream");
    made->options = *options;
    made->count = windows_count(options->windows);
    fw_status status = allocate(made, error);
    if (status == FW_OK && options->reads_on)
        status = options->model->restart(options->model->stream, error);
    for (uint32_t slot = 0; slot < slots(made) && status == FW_OK && works_ahead(made); slot++)
        status = issue(made, slot, error);
    if (status == FW_OK)
        *reading = made;
    else
        reading_destroy(made);
    return status;
}

void reading_destroy(struct reading *r) {
    if (r == NULL) return;
    staging_destroy(r->staging);
    free(r->inputs);
    free(r->firsts);
    free(r->rows);
    free(r);
}

fw_status reading_next(struct reading *r, struct piece *piece, fw_error *error) {
    *piece = (struct piece){.index = r->index};
    if (r->index == r->count) return FW_OK;
    const struct window window = windows_get(r->options.windows, r->index);
    if (r->position < window.first) r->position = window.first;
    int64_t there = 0, n = (int64_t)(window.n - r->position);
    const float *row = NULL;
    FW_TRY(works_ahead(r) ? rows_ahead(r, &row, &there, error)
                          : rows_in_step(r, &window, &row, &there, error));
    if (n > there) n = there;
    if (n > r->options.most) n = r->options.most;
    *piece = (struct piece){r->index, window, r->position, n, row};
    r->position += (uint64_t)n;
    if (r->position < window.n) return FW_OK;
    r->position = 0;
    r->index++;
    return FW_OK;
}
