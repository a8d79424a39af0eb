/* A cache that does nothing, from which the test modules are varied. */
#ifndef TEST_TINY_H
#define TEST_TINY_H

#include <fairway/fairway.h>

static int tiny_self;

static inline fw_status tiny_create(const fw_host *host, const fw_value *values,
                                    const fw_cache_shape *shape, void **self, fw_error *error) {
    (void)host, (void)values, (void)shape, (void)error;
    *self = &tiny_self;
    return FW_OK;
}

static inline void tiny_destroy(void *self) { (void)self; }

static inline fw_status tiny_begin(void *self, fw_error *error) {
    (void)self, (void)error;
    return FW_OK;
}

static inline fw_status tiny_predict(void *self, const fw_row *row, fw_prediction *prediction,
                                     fw_error *error) {
    (void)self, (void)row, (void)error;
    prediction->form = FW_PREDICT_MIX;
    prediction->n = 0;
    prediction->lm_weight = 1;
    return FW_OK;
}

static inline fw_status tiny_update(void *self, const uint32_t *tokens, uint64_t n,
                                    fw_error *error) {
    (void)self, (void)tokens, (void)n, (void)error;
    return FW_OK;
}

#define TINY_MEMBERS                                                                               \
    .create = tiny_create, .destroy = tiny_destroy, .begin = tiny_begin, .predict = tiny_predict,  \
    .update = tiny_update

/* Everything of a description but kind, id and what a module varies. */
#define TINY_TEXTS                                                                                 \
    .version = "1.0.0", .summary = "test module", .vendor = "tests", .license = "MIT",             \
    .devices = FW_CPU

/* One valid cache with this id. */
#define TINY_PLUGIN(name, id_)                                                                     \
    static const fw_cache name##_table = {.struct_size = sizeof(fw_cache), TINY_MEMBERS};          \
    static const fw_plugin name = {.struct_size = sizeof(fw_plugin),                               \
                                   .kind = FW_CACHE,                                               \
                                   .id = id_,                                                      \
                                   .vtable = &name##_table,                                        \
                                   TINY_TEXTS}

#endif
