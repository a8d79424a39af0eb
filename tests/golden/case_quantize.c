/* Quantizer cases: for each NAME/weight, symbols NAME/int6.q or NAME/int8.q and float16 scales
 * NAME/int6.scale or NAME/int8.scale, bit for bit, and what decode() makes of them. */
#include <fairway/quantizer.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "session.h"

/* Which plugin, set up as the record, has to give the arrays of a format. */
struct format {
    const char *format, *plugin, *keys;
    uint32_t part;
};

static const struct format formats[] = {
    {"int6", "int6_mixed", "faithful = yes\nsmall_values = 0\n", FW_PART_ATTENTION},
    {"int8", "int6_mixed", "faithful = yes\nsmall_values = 0\n", FW_PART_EMBEDDING},
    {"int8", "int8", "scale_floor = 0.007874015748031496\nsmall_values = 0\n", FW_PART_EMBEDDING},
};

static bool is_weight(const struct array *array) {
    const char *slash = strrchr(array->name, '/');
    return slash != NULL && strcmp(slash, "/weight") == 0;
}

/* "gauss/weight" and "int6.q" -> "gauss/int6.q" */
static void sibling(const struct array *weight, const char *format, const char *part, char *name,
                    size_t size) {
    const int stem = (int)(strrchr(weight->name, '/') - weight->name);
    (void)snprintf(name, size, "%.*s/%s.%s", stem, weight->name, format, part);
}

static const struct array *find(const struct folder *folder, const struct array *weight,
                                const char *format) {
    char name[128];
    sibling(weight, format, "q", name, sizeof name);
    return folder_find(folder, name);
}

static bool recognise(const struct folder *folder) {
    for (size_t i = 0; i < folder->n_arrays; i++)
        if (is_weight(&folder->arrays[i]) && (find(folder, &folder->arrays[i], "int6") != NULL ||
                                              find(folder, &folder->arrays[i], "int8") != NULL))
            return true;
    return false;
}

/* One matrix on its way through a quantizer. */
struct matrix {
    fw_weight weight;
    int64_t count;
    float *values, *decoded;
    int8_t *symbols;
    uint16_t *scales;
};

static fw_status open_matrix(const struct folder *folder, const struct array *array, uint32_t part,
                             struct matrix *matrix, fw_error *error) {
    if (array->dtype != FW_F32 || array->rank != 2 || array->count == 0)
        return fw_fail(error, FW_E_SHAPE, "%s/manifest.txt: %s should be a matrix in f32",
                       folder->path, array->name);
    matrix->weight = (fw_weight){.struct_size = sizeof matrix->weight,
                                 .role = FW_ROLE_MATRIX,
                                 .part = part,
                                 .rank = 2,
                                 .shape = {array->shape[0], array->shape[1], 1, 1}};
    (void)snprintf(matrix->weight.name, sizeof matrix->weight.name, "%.60s", array->name);
    matrix->count = array->count;
    matrix->values = malloc(array->bytes);
    matrix->decoded = malloc(array->bytes);
    matrix->symbols = malloc((size_t)array->count);
    matrix->scales = malloc((size_t)array->shape[0] * sizeof *matrix->scales);
    if (matrix->values == NULL || matrix->decoded == NULL || matrix->symbols == NULL ||
        matrix->scales == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for a matrix");
    memcpy(matrix->values, array->data, array->bytes);
    return FW_OK;
}

static void close_matrix(struct matrix *matrix) {
    free(matrix->values);
    free(matrix->decoded);
    free(matrix->symbols);
    free(matrix->scales);
}

static fw_status check_streams(const struct matrix *matrix, const fw_stream *streams, uint32_t n,
                               fw_error *error) {
    const int64_t rows = matrix->weight.shape[0], columns = matrix->weight.shape[1];
    if (n == 2 && streams[0].kind == FW_STREAM_SYMBOLS && streams[0].dtype == FW_I8 &&
        streams[0].rows == rows && streams[0].columns == columns &&
        streams[1].kind == FW_STREAM_SCALES && streams[1].dtype == FW_F16 &&
        streams[1].rows == rows && streams[1].columns == 1)
        return FW_OK;
    return fw_fail(error, FW_E_FORMAT,
                   "%s: the quantizer does not plan int8 symbols and float16 scales of its rows",
                   matrix->weight.name);
}

static fw_status quantize(const fw_quantizer *quantizer, void *self, struct matrix *matrix,
                          fw_error *error) {
    const fw_weight *weight = &matrix->weight;
    const float *values = matrix->values;
    const fw_quantizer_plan plan = {.struct_size = sizeof plan,
                                    .n_tensors = 1,
                                    .weights = &weight,
                                    .values = &values,
                                    .rate = 1};
    fw_stream streams[FW_MAX_STREAMS];
    uint32_t n = 0;
    for (int i = 0; i < FW_MAX_STREAMS; i++)
        streams[i] = (fw_stream){.struct_size = sizeof(fw_stream)};
    FW_TRY(quantizer->plan(self, &plan, error));
    FW_TRY(quantizer->streams(self, 0, streams, &n, error));
    FW_TRY(check_streams(matrix, streams, n, error));
    streams[0].data = matrix->symbols;
    streams[1].data = matrix->scales;
    FW_TRY(quantizer->encode(self, 0, streams, n, error));
    return quantizer->decode(self, weight, streams, n, matrix->decoded, error);
}

static double half_value(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    const double magnitude =
        exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return half >> 15 ? -magnitude : magnitude;
}

static fw_status compare(struct folder *folder, const struct array *weight,
                         const struct format *format, const struct matrix *matrix,
                         struct verdicts *verdicts, fw_error *error) {
    const int64_t rows = matrix->weight.shape[0], columns = matrix->weight.shape[1];
    const struct array *symbols = NULL, *scales = NULL;
    char name[128], quantity[64];
    sibling(weight, format->format, "q", name, sizeof name);
    FW_TRY(folder_require(folder, name, FW_I8, matrix->count, &symbols, error));
    sibling(weight, format->format, "scale", name, sizeof name);
    FW_TRY(folder_require(folder, name, FW_F16, rows, &scales, error));
    int64_t other[3] = {0};
    for (int64_t i = 0; i < matrix->count; i++) {
        const double value = (double)matrix->symbols[i] * half_value(matrix->scales[i / columns]);
        other[0] += (double)matrix->symbols[i] != array_value(symbols, i);
        other[2] += (double)matrix->decoded[i] != value;
    }
    for (int64_t i = 0; i < rows; i++)
        other[1] += memcmp((const char *)scales->data + 2 * i, &matrix->scales[i], 2) != 0;
    static const char *const what[] = {"symbols", "scales", "decoded"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(quantity, sizeof quantity, "%.*s %s: %s that differ",
                       (int)(strrchr(name, '/') - name), name, format->format, what[i]);
        verdict_line(verdicts, quantity, format->plugin,
                     (double)other[i] / (double)(i == 1 ? rows : matrix->count), 0);
    }
    return FW_OK;
}

static fw_status run_matrix(struct folder *folder, const struct array *weight,
                            const struct format *format, const struct session *session, void *self,
                            struct verdicts *verdicts, fw_error *error) {
    const fw_quantizer *quantizer = session->experiment->quantize.entry->plugin->vtable;
    struct matrix matrix = {0};
    fw_status status = open_matrix(folder, weight, format->part, &matrix, error);
    if (status == FW_OK) status = quantize(quantizer, self, &matrix, error);
    if (status == FW_OK) status = compare(folder, weight, format, &matrix, verdicts, error);
    close_matrix(&matrix);
    return status;
}

static fw_status run_instance(struct folder *folder, const struct format *format,
                              const struct session *session, struct verdicts *verdicts,
                              fw_error *error) {
    const struct plugin_choice *choice = &session->experiment->quantize;
    const fw_quantizer *quantizer = choice->entry->plugin->vtable;
    void *self = NULL;
    FW_TRY(quantizer->create(session->services, choice->values, &self, error));
    fw_status status = FW_OK;
    for (size_t i = 0; status == FW_OK && i < folder->n_arrays; i++) {
        const struct array *weight = &folder->arrays[i];
        if (is_weight(weight) && find(folder, weight, format->format) != NULL)
            status = run_matrix(folder, folder_take(folder, weight->name), format, session, self,
                                verdicts, error);
    }
    quantizer->destroy(self);
    return status;
}

static fw_status run_format(struct folder *folder, const struct format *format,
                            const struct case_options *options, struct verdicts *verdicts,
                            fw_error *error) {
    char ini[2048];
    struct session session;
    bool any = false;
    for (size_t i = 0; i < folder->n_arrays; i++)
        any |= is_weight(&folder->arrays[i]) &&
               find(folder, &folder->arrays[i], format->format) != NULL;
    if (!any) return FW_OK;
    (void)snprintf(ini, sizeof ini,
                   "[run]\ndevice = %.900s\nsteps = 1\n[quantize]\nplugin = %s\n%s",
                   options->device, format->plugin, format->keys);
    FW_TRY(session_open(options->arguments, folder->path, ini,
                        CONFIG_BIND(FW_DEVICE) | CONFIG_BIND(FW_QUANTIZER), &session, error));
    const fw_status status = run_instance(folder, format, &session, verdicts, error);
    session_close(&session);
    return status;
}

static fw_status run(struct folder *folder, const struct case_options *options,
                     struct verdicts *verdicts, fw_error *error) {
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        FW_TRY(run_format(folder, &formats[i], options, verdicts, error));
    return FW_OK;
}

const struct case_kind case_quantize = {
    "quantize", "NAME/weight with NAME/int6.* or NAME/int8.*: symbols and scales, exactly",
    recognise, run};
