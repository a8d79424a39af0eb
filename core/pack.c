#include "pack.h"

#include <fairway/compressor.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "estimate.h"
#include "fit.h"

/* A quantizer and a compressor at work on one model. */
struct packer {
    const fw_quantizer *quantizer;
    void *quantizer_self;
    const fw_compressor *compressor;
    void *compressor_self;
    const struct model *model;
    uint32_t n_weights;
    const fw_weight **weights;
    const float **values;
};

static size_t stream_bytes(const fw_stream *stream) {
    return (size_t)stream->rows * (size_t)stream->columns * fw_dtype_size(stream->dtype);
}

static fw_status packer_open(struct packer *packer, const struct experiment *experiment,
                             const fw_host *host, const struct model *model, fw_error *error) {
    *packer = (struct packer){.model = model, .n_weights = model_n_weights(model)};
    packer->weights = calloc(packer->n_weights, sizeof *packer->weights);
    packer->values = calloc(packer->n_weights, sizeof *packer->values);
    if (packer->weights == NULL || packer->values == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory to pack %u tensors", packer->n_weights);
    for (uint32_t i = 0; i < packer->n_weights; i++) packer->weights[i] = model_weight(model, i);
    packer->quantizer = experiment->quantize.entry->plugin->vtable;
    packer->compressor = experiment->compress.entry->plugin->vtable;
    fw_error why = {.struct_size = sizeof why};
    fw_status status =
        packer->quantizer->create(host, experiment->quantize.values, &packer->quantizer_self, &why);
    if (status != FW_OK) return choice_fail(&experiment->quantize, status, why.message, error);
    status = packer->compressor->create(host, experiment->compress.values, &packer->compressor_self,
                                        &why);
    return status == FW_OK ? FW_OK : choice_fail(&experiment->compress, status, why.message, error);
}

static void packer_close(struct packer *packer) {
    if (packer->quantizer_self != NULL) packer->quantizer->destroy(packer->quantizer_self);
    if (packer->compressor_self != NULL) packer->compressor->destroy(packer->compressor_self);
    free(packer->weights);
    free(packer->values);
}

static void free_streams(fw_stream *streams, uint32_t n) {
    for (uint32_t i = 0; streams != NULL && i < n; i++) {
        free(streams[i].data);
        streams[i].data = NULL;
    }
}

static fw_status allocate_streams(fw_stream *streams, uint32_t n, fw_error *error) {
    for (uint32_t i = 0; i < n; i++) {
        streams[i].data = calloc(1, stream_bytes(&streams[i]) + 1);
        if (streams[i].data == NULL)
            return fw_fail(error, FW_E_MEMORY, "no memory for a stream of %zu bytes",
                           stream_bytes(&streams[i]));
    }
    return FW_OK;
}

/* ---- packing ---- */

/* A quantizer's word is not taken for it: no more streams than fit, and sizes that a tensor can
 * need. */
static fw_status check_streams(const fw_weight *weight, const fw_stream *streams, uint32_t n,
                               fw_error *error) {
    const int64_t most =
        4096 + 16 * weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3];
    if (n == 0 || n > FW_MAX_STREAMS)
        return fw_fail(error, FW_E_PROTOCOL, "it planned %u streams for %s; 1 to %d are right", n,
                       weight->name, FW_MAX_STREAMS);
    for (uint32_t i = 0; i < n; i++) {
        const fw_stream *s = &streams[i];
        if (fw_dtype_size(s->dtype) > 0 && s->rows >= 0 && s->columns >= 0 && s->rows <= most &&
            (s->rows == 0 || s->columns <= most / s->rows))
            continue;
        return fw_fail(error, FW_E_PROTOCOL,
                       "stream %u of %s is %lld x %lld of type %u, more than the tensor can need",
                       i, weight->name, (long long)s->rows, (long long)s->columns, s->dtype);
    }
    return FW_OK;
}

static fw_status quantize_tensor(struct packer *packer, uint32_t index, struct artifact *artifact,
                                 fw_error *error) {
    fw_stream *streams = artifact->streams + artifact->n_streams;
    for (uint32_t i = 0; i < FW_MAX_STREAMS; i++)
        streams[i] = (fw_stream){.struct_size = sizeof *streams};
    uint32_t n = FW_MAX_STREAMS;
    FW_TRY(packer->quantizer->streams(packer->quantizer_self, index, streams, &n, error));
    FW_TRY(check_streams(packer->weights[index], streams, n, error));
    for (uint32_t i = 0; i < n; i++) streams[i].tensor = index;
    artifact->n_streams += n;
    FW_TRY(allocate_streams(streams, n, error));
    return packer->quantizer->encode(packer->quantizer_self, index, streams, n, error);
}

/* The streams of all tensors at `rate`, in place of those of another. */
static fw_status quantize(struct packer *packer, double rate, struct artifact *artifact,
                          fw_error *error) {
    const fw_quantizer_plan plan = {.struct_size = sizeof plan,
                                    .n_tensors = packer->n_weights,
                                    .weights = packer->weights,
                                    .values = packer->values,
                                    .rate = rate};
    free_streams(artifact->streams, artifact->n_streams);
    artifact->n_streams = 0;
    FW_TRY(packer->quantizer->plan(packer->quantizer_self, &plan, error));
    if (artifact->streams == NULL)
        artifact->streams =
            calloc((size_t)(packer->n_weights + 1) * FW_MAX_STREAMS, sizeof *artifact->streams);
    if (artifact->streams == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for streams");
    for (uint32_t i = 0; i < packer->n_weights; i++)
        FW_TRY(quantize_tensor(packer, i, artifact, error));
    return FW_OK;
}

struct payload {
    uint8_t *data;
    size_t bytes;
};

static fw_status compress(struct packer *packer, const struct artifact *artifact,
                          struct payload *payload, fw_error *error) {
    const fw_compressor *compressor = packer->compressor;
    size_t bytes =
        compressor->bound(packer->compressor_self, artifact->streams, artifact->n_streams);
    uint8_t *data = malloc(bytes + 1);
    if (data == NULL)
        return fw_fail(error, FW_E_MEMORY, "no memory for %zu bytes of payload", bytes);
    const fw_status status = compressor->compress(packer->compressor_self, artifact->streams,
                                                  artifact->n_streams, data, &bytes, error);
    if (status != FW_OK) {
        free(data);
        return status;
    }
    free(payload->data);
    *payload = (struct payload){data, bytes};
    return FW_OK;
}

fw_status pack_check(const struct experiment *experiment, const fw_host *host,
                     const struct model *model, fw_error *error) {
    struct packer packer;
    const fw_status status = packer_open(&packer, experiment, host, model, error);
    packer_close(&packer);
    return status;
}

static fw_status ask_quantizer(const struct packer *packer, const struct experiment *experiment,
                               bool *wanted, fw_error *error) {
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = calibration_is_wanted(packer->quantizer, packer->quantizer_self,
                                                   packer->model, wanted, &why);
    return status == FW_OK ? FW_OK : choice_fail(&experiment->quantize, status, why.message, error);
}

fw_status pack_wants_calibration(const struct experiment *experiment, const fw_host *host,
                                 const struct model *model, bool *wanted, fw_error *error) {
    struct packer packer;
    fw_status status = packer_open(&packer, experiment, host, model, error);
    if (status == FW_OK) status = ask_quantizer(&packer, experiment, wanted, error);
    packer_close(&packer);
    return status;
}

bool pack_has_rate(const struct experiment *experiment) {
    const fw_quantizer *quantizer = experiment->quantize.entry->plugin->vtable;
    return quantizer->has_rate != 0;
}

/* ---- fitting ---- */

/* A model on its way into a limited number of bytes. */
struct fitting {
    const struct pack_options *options;
    struct packer *packer;
    struct artifact *artifact;
    struct payload tried, kept;
    double rate; /* of the streams in `artifact` */
    int encodes;
};

static fw_status quantize_at(struct fitting *fitting, double rate, fw_error *error) {
    const struct plugin_choice *choice = &fitting->options->experiment->quantize;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = quantize(fitting->packer, rate, fitting->artifact, &why);
    if (status != FW_OK) return choice_fail(choice, status, why.message, error);
    fitting->rate = rate;
    return FW_OK;
}

static fw_status compress_streams(struct fitting *fitting, fw_error *error) {
    const struct plugin_choice *choice = &fitting->options->experiment->compress;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = compress(fitting->packer, fitting->artifact, &fitting->tried, &why);
    return status == FW_OK ? FW_OK : choice_fail(choice, status, why.message, error);
}

static void show_encodes(const struct fitting *fitting) {
    const fw_host *host = fitting->options->host;
    host->progress(host, "fit to the size limit", fitting->encodes, FIT_ENCODES);
}

static fw_status estimate_at(void *argument, double rate, double *estimate, fw_error *error) {
    struct fitting *fitting = argument;
    FW_TRY(quantize_at(fitting, rate, error));
    show_encodes(fitting);
    return estimate_bytes(fitting->options->host, fitting->artifact->streams,
                          fitting->artifact->n_streams, estimate, error);
}

static fw_status encode_at(void *argument, double rate, double *bytes, double *estimate,
                           fw_error *error) {
    struct fitting *fitting = argument;
    size_t overhead = 0;
    FW_TRY(estimate_at(fitting, rate, estimate, error));
    FW_TRY(artifact_overhead(fitting->artifact, &overhead, error));
    FW_TRY(compress_streams(fitting, error));
    fitting->encodes++;
    show_encodes(fitting);
    *bytes = (double)(overhead + fitting->tried.bytes);
    return FW_OK;
}

static void keep(void *argument) {
    struct fitting *fitting = argument;
    free(fitting->kept.data);
    fitting->kept = fitting->tried;
    fitting->tried = (struct payload){0};
}

/* Leaves the payload in fitting->kept, and streams and quantizer at its rate. */
static fw_status fit(struct fitting *fitting, struct pack_result *result, fw_error *error) {
    const struct fit_task task = {.limit = (double)fitting->options->limit,
                                  .estimate = estimate_at,
                                  .encode = encode_at,
                                  .keep = keep,
                                  .argument = fitting};
    struct fit_result found;
    FW_TRY(fit_rate(&task, &found, error));
    result->fits = found.fits;
    result->rate = found.rate;
    result->encodes = found.encodes;
    result->full_bytes = (size_t)found.full_bytes;
    result->least_bytes = (size_t)found.least_bytes;
    return found.fits && fitting->rate != found.rate ? quantize_at(fitting, found.rate, error)
                                                     : FW_OK;
}

static fw_status pack_once(struct fitting *fitting, struct pack_result *result, fw_error *error) {
    FW_TRY(quantize_at(fitting, 1, error));
    FW_TRY(compress_streams(fitting, error));
    keep(fitting);
    *result = (struct pack_result){.rate = 1, .encodes = 1, .fits = true};
    return FW_OK;
}

/* Before its first plan. What the quantizer says to rows is its own; all else is the model's. */
static fw_status calibrate(struct packer *packer, const struct pack_options *options,
                           double *seconds, fw_error *error) {
    const struct plugin_choice *choice = &options->experiment->quantize;
    fw_error why = {.struct_size = sizeof why};
    bool wanted = false, refused = false;
    if (options->calibration == NULL) return FW_OK;
    FW_TRY(ask_quantizer(packer, options->experiment, &wanted, error));
    if (!wanted) return FW_OK;
    const double begin = clock_seconds();
    const fw_status status = calibration_run(options->calibration, options->host, packer->quantizer,
                                             packer->quantizer_self, &refused, &why);
    *seconds = clock_seconds() - begin;
    if (status == FW_OK) return FW_OK;
    return refused ? choice_fail(choice, status, why.message, error)
                   : fw_fail(error, status, "%s", why.message);
}

fw_status pack_weights(const struct pack_options *options, struct artifact *artifact,
                       struct pack_result *result, fw_error *error) {
    struct packer packer;
    struct fitting fitting = {.options = options, .packer = &packer, .artifact = artifact};
    fw_status status =
        packer_open(&packer, options->experiment, options->host, options->model, error);
    for (uint32_t i = 0; status == FW_OK && i < packer.n_weights; i++)
        packer.values[i] = options->weights + model_offset(options->model, i);
    double calibration = 0;
    if (status == FW_OK) status = calibrate(&packer, options, &calibration, error);
    if (status == FW_OK)
        status = options->fit && pack_has_rate(options->experiment)
                     ? fit(&fitting, result, error)
                     : pack_once(&fitting, result, error);
    result->calibration_seconds = calibration;
    free(fitting.tried.data);
    artifact->payload = fitting.kept.data;
    artifact->payload_bytes = fitting.kept.bytes;
    free_streams(artifact->streams, artifact->n_streams);
    packer_close(&packer);
    return status;
}

/* ---- unpacking ---- */

/* The streams that belong to tensor `index` follow one another from `*first` on. */
static fw_status dequantize_tensor(struct packer *packer, uint32_t index,
                                   const struct artifact *artifact, const fw_stream *streams,
                                   uint32_t *first, float *weights, fw_error *error) {
    uint32_t n = 0;
    while (*first + n < artifact->n_streams && streams[*first + n].tensor == index) n++;
    const fw_weight *weight = packer->weights[index];
    if (n == 0 || n > FW_MAX_STREAMS)
        return fw_fail(error, FW_E_FORMAT, "it has %u streams for tensor %s; 1 to %d are right", n,
                       weight->name, FW_MAX_STREAMS);
    const fw_stream *own = streams + *first;
    *first += n;
    return packer->quantizer->decode(packer->quantizer_self, weight, own, n,
                                     weights + model_offset(packer->model, index), error);
}

static fw_status check_total(const struct packer *packer, const struct artifact *artifact,
                             fw_error *error) {
    const uint64_t limit = 64 + 64 * (uint64_t)model_parameters(packer->model);
    uint64_t total = 0;
    for (uint32_t i = 0; i < artifact->n_streams; i++) {
        total += stream_bytes(&artifact->streams[i]);
        if (total > limit)
            return fw_fail(error, FW_E_FORMAT,
                           "its streams are larger than the model they describe");
    }
    return FW_OK;
}

static fw_status unpack(struct packer *packer, const struct artifact *artifact, fw_stream *streams,
                        float *weights, fw_error *error) {
    FW_TRY(check_total(packer, artifact, error));
    FW_TRY(allocate_streams(streams, artifact->n_streams, error));
    FW_TRY(packer->compressor->decompress(packer->compressor_self, artifact->payload,
                                          artifact->payload_bytes, streams, artifact->n_streams,
                                          error));
    uint32_t next = 0;
    for (uint32_t i = 0; i < packer->n_weights; i++)
        FW_TRY(dequantize_tensor(packer, i, artifact, streams, &next, weights, error));
    if (next != artifact->n_streams)
        return fw_fail(error, FW_E_FORMAT, "it has %u streams beyond the model's tensors",
                       artifact->n_streams - next);
    return FW_OK;
}

fw_status unpack_weights(const struct experiment *experiment, const fw_host *host,
                         const struct model *model, const struct artifact *artifact, float *weights,
                         fw_error *error) {
    struct packer packer;
    fw_stream *streams = calloc(artifact->n_streams + 1u, sizeof *streams);
    if (streams == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for streams");
    memcpy(streams, artifact->streams, artifact->n_streams * sizeof *streams);
    fw_status status = packer_open(&packer, experiment, host, model, error);
    if (status == FW_OK) status = unpack(&packer, artifact, streams, weights, error);
    free_streams(streams, artifact->n_streams);
    free(streams);
    packer_close(&packer);
    return status;
}
