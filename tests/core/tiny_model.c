#include "tiny_model.h"

#include "workspace.h"

float *random_weights(const struct model *model, uint64_t seed, double deviation) {
    float *weights = calloc((size_t)model_arena_count(model), sizeof *weights);
    assert_non_null(weights);
    test_random random = {seed};
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_tensor view = model_view(model, weights, i);
        float *data = view.data;
        for (int64_t j = 0; j < fw_tensor_count(&view); j++)
            data[j] = (float)((view.rank == 1 ? 1 : 0) + deviation * test_normal(&random));
    }
    return weights;
}

struct model *tiny_model(const struct model_options *options) {
    fw_error error = {.struct_size = sizeof error};
    struct model *model = NULL;
    assert_ok(model_create(options, &model, &error), &error);
    float *weights = random_weights(model, 11, 0.3);
    assert_ok(model_set_weights(model, weights, &error), &error);
    free(weights);
    return model;
}
