#include "script_cache.h"

#include <stdio.h>

struct script_cache script;

static struct script_call *add_call(char what) {
    assert_true(script.n_calls < SCRIPT_CALLS);
    struct script_call *call = &script.calls[script.n_calls++];
    *call = (struct script_call){.what = what};
    return call;
}

static fw_status script_create(const fw_host *host, const fw_value *values,
                               const fw_cache_shape *shape, void **self, fw_error *error) {
    (void)host, (void)values, (void)shape, (void)error;
    *self = &script;
    return FW_OK;
}

static void script_destroy(void *self) { (void)self; }

static fw_status script_begin(void *self, fw_error *error) {
    (void)self, (void)error;
    script.n_begun++;
    return FW_OK;
}

static fw_status script_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                fw_error *error) {
    (void)self, (void)error;
    add_call('p')->position = row->position;
    if (script.predict != NULL)
        script.predict(row, prediction);
    else
        script_state_row(prediction);
    return FW_OK;
}

static fw_status script_update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    (void)self;
    struct script_call *call = add_call('u');
    call->n = n;
    call->token = tokens[n - 1];
    return script.update != NULL ? script.update(tokens, n, error) : FW_OK;
}

void script_reset(void) {
    script = (struct script_cache){
        .vtable = {.struct_size = sizeof script.vtable,
                   .create = script_create,
                   .destroy = script_destroy,
                   .begin = script_begin,
                   .predict = script_predict,
                   .update = script_update},
        .plugin = {.struct_size = sizeof script.plugin,
                   .kind = FW_CACHE,
                   .id = "script",
                   .vtable = &script.vtable},
        .entry = {.plugin = &script.plugin},
        .choice = {.kind = FW_CACHE, .section = "cache", .name = "script", .entry = &script.entry}};
}

void script_state_row(fw_prediction *prediction) {
    script_state_list(prediction, FW_PREDICT_MIX, 1, 0, NULL, NULL);
}

void script_state_list(fw_prediction *prediction, uint32_t form, double lm_weight, uint32_t n,
                       const uint32_t *tokens, const double *values) {
    prediction->form = form;
    prediction->lm_weight = lm_weight;
    prediction->n = n;
    for (uint32_t i = 0; i < n; i++) {
        prediction->tokens[i] = tokens[i];
        prediction->values[i] = values[i];
    }
}
