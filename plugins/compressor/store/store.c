/* No compression: the bytes of all streams one after another. For tests, and to see what the other
 * compressors gain. Any bytes of the right length are valid; the artifact has its own checksum. */
#include "../concatenate.h"

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    (void)host, (void)values, (void)error;
    static char nothing; /* there is no state, but callers may take NULL for failure */
    *self = &nothing;
    return FW_OK;
}

static void destroy(void *self) { (void)self; }

static size_t bound(void *self, const fw_stream *streams, uint32_t n_streams) {
    (void)self;
    size_t total = SIZE_MAX;
    (void)concatenate_size(streams, n_streams, &total, FW_E_ARGUMENT, NULL);
    return total;
}

static fw_status compress(void *self, const fw_stream *streams, uint32_t n_streams, void *out,
                          size_t *bytes, fw_error *error) {
    (void)self;
    size_t total = 0;
    FW_TRY(concatenate_size(streams, n_streams, &total, FW_E_ARGUMENT, error));
    if (*bytes < total)
        return fw_fail(error, FW_E_BUFFER, "store: %zu bytes do not fit a buffer of %zu", total,
                       *bytes);
    concatenate_gather(streams, n_streams, out);
    *bytes = total;
    return FW_OK;
}

static fw_status decompress(void *self, const void *in, size_t bytes, const fw_stream *streams,
                            uint32_t n_streams, fw_error *error) {
    (void)self;
    size_t total = 0;
    FW_TRY(concatenate_size(streams, n_streams, &total, FW_E_FORMAT, error));
    if (bytes != total)
        return fw_fail(error, FW_E_FORMAT, "store: %zu bytes for streams of %zu", bytes, total);
    concatenate_scatter(in, streams, n_streams);
    return FW_OK;
}

static const fw_compressor vtable = {.struct_size = sizeof vtable,
                                     .create = create,
                                     .destroy = destroy,
                                     .bound = bound,
                                     .compress = compress,
                                     .decompress = decompress};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_COMPRESSOR,
                                 .id = "store",
                                 .version = "1.0.0",
                                 .summary = "raw bytes, no compression",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
