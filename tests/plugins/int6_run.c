#include "int6_run.h"

int int6_effects;
double int6_effect_size;

static void effect(const fw_host *host, const char *name, double size) {
    (void)host;
    assert_string_equal(name, "pruned_weights");
    int6_effects++;
    int6_effect_size = size;
}

static void ok(fw_status status, const fw_error *error) {
    if (status != FW_OK) fail_msg("status %d: %s", status, error->message);
}

int6_run int6_run_new(const char *const *overrides) {
    static fw_host host;
    const fw_plugin *plugin = test_plugin(FW_QUANTIZER, "int6_mixed");
    fw_error error = {.struct_size = sizeof error};
    int6_run run = {.quantizer = plugin->vtable};
    host = *test_host(NULL);
    host.effect = effect;
    int6_effects = 0;
    fw_value *values = test_values(plugin, overrides);
    ok(run.quantizer->create(&host, values, &run.self, &error), &error);
    free(values);
    return run;
}

void int6_run_add(int6_run *run, uint32_t part, int64_t rows, int64_t columns, float *values) {
    fw_weight *weight = &run->weight[run->n];
    *weight = (fw_weight){.struct_size = sizeof *weight,
                          .role = part == FW_PART_EMBEDDING ? FW_ROLE_EMBED : FW_ROLE_MATRIX,
                          .part = part,
                          .rank = 2,
                          .shape = {rows, columns, 1, 1},
                          .index = run->n};
    (void)snprintf(weight->name, sizeof weight->name, "matrix.%u", run->n);
    run->values[run->n] = values;
    run->symbols[run->n] = calloc((size_t)(rows * columns), 1);
    run->scales[run->n] = calloc((size_t)rows, sizeof(uint16_t));
    assert_true(run->symbols[run->n] != NULL && run->scales[run->n] != NULL);
    run->n++;
}

fw_status int6_run_plan(int6_run *run, double rate, fw_error *error) {
    const fw_weight *weights[RUN_TENSORS];
    for (uint32_t i = 0; i < run->n; i++) weights[i] = &run->weight[i];
    const fw_quantizer_plan plan = {.struct_size = sizeof plan,
                                    .n_tensors = run->n,
                                    .weights = weights,
                                    .values = (const float *const *)run->values,
                                    .rate = rate};
    return run->quantizer->plan(run->self, &plan, error);
}

void int6_run_encode(int6_run *run, double rate) {
    fw_error error = {.struct_size = sizeof error};
    ok(int6_run_plan(run, rate, &error), &error);
    for (uint32_t i = 0; i < run->n; i++) {
        fw_stream streams[FW_MAX_STREAMS] = {{.struct_size = sizeof(fw_stream)}};
        uint32_t n = 0;
        ok(run->quantizer->streams(run->self, i, streams, &n, &error), &error);
        assert_int_equal(n, 2);
        streams[0].data = run->symbols[i];
        streams[1].data = run->scales[i];
        ok(run->quantizer->encode(run->self, i, streams, n, &error), &error);
    }
}

void int6_run_free(int6_run *run) {
    for (uint32_t i = 0; i < run->n; i++) {
        free(run->symbols[i]);
        free(run->scales[i]);
    }
    run->quantizer->destroy(run->self);
}
