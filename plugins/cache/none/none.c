/* No cache: every prediction is the language model's row itself. The baseline that caches are
 * compared with, and the smallest example of the protocol. */
#include <fairway/fairway.h>

static fw_status create(const fw_host *host, const fw_value *values, const fw_cache_shape *shape,
                        void **self, fw_error *error) {
    (void)host, (void)values, (void)shape, (void)error;
    static const char nothing = 0; /* a self that is not NULL; nothing is kept */
    *self = (void *)(uintptr_t)&nothing;
    return FW_OK;
}

static void destroy(void *self) { (void)self; }

static fw_status begin(void *self, fw_error *error) {
    (void)self, (void)error;
    return FW_OK;
}

static fw_status update(void *self, const uint32_t *tokens, uint64_t n, fw_error *error) {
    (void)self, (void)tokens, (void)n, (void)error;
    return FW_OK;
}

static fw_status predict(void *self, const fw_row *row, fw_prediction *prediction,
                         fw_error *error) {
    (void)self, (void)row, (void)error;
    prediction->form = FW_PREDICT_MIX;
    prediction->n = 0;
    prediction->lm_weight = 1.0;
    return FW_OK;
}

static uint64_t memory_bytes(void *self) {
    (void)self;
    return 0;
}

static const fw_cache none_cache = {.struct_size = sizeof none_cache,
                                    .update_every = 1,
                                    .counts_only = 1,
                                    .create = create,
                                    .destroy = destroy,
                                    .begin = begin,
                                    .prefill = update,
                                    .predict = predict,
                                    .update = update,
                                    .memory_bytes = memory_bytes};

static const fw_plugin none_plugin = {.struct_size = sizeof none_plugin,
                                      .kind = FW_CACHE,
                                      .id = "none",
                                      .version = "1.0.0",
                                      .summary = "no cache: the language model's own prediction",
                                      .vendor = "Fairway",
                                      .license = "MIT",
                                      .devices = FW_CPU,
                                      .vtable = &none_cache};

FW_DEFINE_MODULE(&none_plugin);
