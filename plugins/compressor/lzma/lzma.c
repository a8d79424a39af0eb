/* LZMA over all streams, alike kinds together, in the least container that can be read back: one
 * byte, 0 for stored bytes or 1 + (pb * 5 + lp) * 9 + lc, then a raw LZMA1 stream with its end
 * marker. No dictionary size: distances never exceed the size of the streams, which the reader
 * knows. No check: the artifact has its own. LZMA1, because LZMA2 adds 6 bytes to every 64 KiB.
 *
 * Data that does not shrink is stored, so the bound is exact: all bytes and one more. */
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "../concatenate.h"

enum { LARGEST_DICTIONARY = 1 << 26 }; /* that of preset 9 */

/* lc, lp, pb = 0, 1, 0 makes 0.2% to 1.1% fewer bytes than liblzma's 3, 0, 2 on synthetic int8 and
 * int6 rows with float16 behind them: the previous weight says nothing of the next, and one bit of
 * the position tells the two bytes of a float16 apart. */
enum { SEARCH, PRESET, EXTREME, LC, LP, PB, N_PARAMS };

/* Quantized weights hardly repeat: the matches that a thorough search finds are chance ones, and
 * coding them costs the literals' statistics. On 27 million synthetic int6 weights with the
 * reference record's scale floors the least search that liblzma has (hash chains of 3 bytes, one
 * candidate, 4 KiB back) made 1.2% to 4% fewer bytes than preset 9 extreme, in a tenth of the time;
 * on trained models of 0.6 million parameters between 0.5% fewer and 0.14% more. */
enum { SEARCH_LIGHT, SEARCH_FULL };
static const char *const searches[] = {"light", "full", NULL};
enum { LIGHT_DICTIONARY = 4096, LIGHT_NICE_LENGTH = 8, LIGHT_DEPTH = 1 };

static const fw_param params[N_PARAMS] = {
    [SEARCH] = FW_PARAM_CHOICE("search", "light", searches,
                               "matches: light, for quantized weights; full, as the preset says"),
    [PRESET] = FW_PARAM_RANGE(FW_PARAM_INT, "preset", "9", 0, 9, "",
                              "liblzma's preset for the full search: dictionary and effort"),
    [EXTREME] = FW_PARAM_PLAIN(FW_PARAM_BOOL, "extreme", "yes", "the full search takes longer"),
    [LC] = FW_PARAM_RANGE(FW_PARAM_INT, "lc", "0", 0, 4, "bits",
                          "high bits of the previous byte as context of a literal"),
    [LP] = FW_PARAM_RANGE(FW_PARAM_INT, "lp", "1", 0, 4, "bits",
                          "low bits of the position as context of a literal; lc + lp <= 4"),
    [PB] = FW_PARAM_RANGE(FW_PARAM_INT, "pb", "0", 0, 4, "bits",
                          "low bits of the position as context of everything else"),
};

typedef struct lzma_compressor {
    const fw_host *host;
    lzma_options_lzma options;
} lzma_compressor;

static void search_lightly(lzma_options_lzma *options) {
    options->mode = LZMA_MODE_NORMAL;
    options->mf = LZMA_MF_HC3;
    options->nice_len = LIGHT_NICE_LENGTH;
    options->depth = LIGHT_DEPTH;
    options->dict_size = LIGHT_DICTIONARY;
}

static fw_status create(const fw_host *host, const fw_value *values, void **self, fw_error *error) {
    const uint32_t lc = (uint32_t)values[LC].integer, lp = (uint32_t)values[LP].integer;
    const uint32_t extreme = values[EXTREME].integer != 0 ? LZMA_PRESET_EXTREME : 0;
    if (lc + lp > LZMA_LCLP_MAX)
        return fw_fail(error, FW_E_CONFIG, "lzma: lc + lp is %u, but must be at most %d", lc + lp,
                       LZMA_LCLP_MAX);
    lzma_compressor *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for compressor lzma");
    if (lzma_lzma_preset(&made->options, (uint32_t)values[PRESET].integer | extreme)) {
        free(made);
        return fw_fail(error, FW_E_UNSUPPORTED, "lzma: this liblzma lacks preset %lld",
                       (long long)values[PRESET].integer);
    }
    made->host = host;
    if (values[SEARCH].integer == SEARCH_LIGHT) search_lightly(&made->options);
    made->options.lc = lc;
    made->options.lp = lp;
    made->options.pb = (uint32_t)values[PB].integer;
    *self = made;
    return FW_OK;
}

static void destroy(void *self) { free(self); }

static size_t bound(void *self, const fw_stream *streams, uint32_t n_streams) {
    (void)self;
    size_t total = SIZE_MAX;
    const fw_status status = concatenate_size(streams, n_streams, &total, FW_E_ARGUMENT, NULL);
    return status == FW_OK && total < SIZE_MAX ? total + 1 : SIZE_MAX;
}

/* What liblzma said, as a status of ours. */
static fw_status translate(lzma_ret result, fw_status otherwise, fw_error *error) {
    switch (result) {
    case LZMA_OK:
    case LZMA_STREAM_END: return FW_OK;
    case LZMA_MEM_ERROR: return fw_fail(error, FW_E_MEMORY, "lzma: out of memory");
    case LZMA_BUF_ERROR:
    case LZMA_DATA_ERROR: return fw_fail(error, otherwise, "lzma: the bytes are damaged");
    default: return fw_fail(error, FW_E_INTERNAL, "lzma: liblzma returned %d", (int)result);
    }
}

/* Dictionaries beyond the data are wasted memory; the least that liblzma accepts is 4096. */
static uint32_t dictionary_size(size_t total, uint32_t most) {
    if (total >= most) return most;
    return total < LZMA_DICT_SIZE_MIN ? LZMA_DICT_SIZE_MIN : (uint32_t)total;
}

/* coded[0 .. *used): header and data for plain[0 .. total); coded has room for total + 1. */
static fw_status code(const lzma_compressor *self, const uint8_t *plain, size_t total,
                      uint8_t *coded, size_t *used, fw_error *error) {
    lzma_options_lzma options = self->options;
    options.dict_size = dictionary_size(total, options.dict_size);
    const lzma_filter filters[] = {{.id = LZMA_FILTER_LZMA1, .options = &options},
                                   {.id = LZMA_VLI_UNKNOWN}};
    size_t size = 0;
    const lzma_ret result =
        lzma_raw_buffer_encode(filters, NULL, plain, total, coded + 1, &size, total);
    if (result == LZMA_BUF_ERROR) { /* it did not shrink */
        coded[0] = 0;
        memcpy(coded + 1, plain, total);
        *used = total + 1;
        return FW_OK;
    }
    FW_TRY(translate(result, FW_E_INTERNAL, error));
    coded[0] = (uint8_t)(1 + (options.pb * 5 + options.lp) * 9 + options.lc);
    *used = size + 1;
    return FW_OK;
}

static fw_status compress(void *self, const fw_stream *streams, uint32_t n_streams, void *out,
                          size_t *bytes, fw_error *error) {
    const lzma_compressor *compressor = self;
    const fw_host *host = compressor->host;
    size_t total = 0, used = 0;
    FW_TRY(concatenate_size(streams, n_streams, &total, FW_E_ARGUMENT, error));
    if (total > SIZE_MAX / 2 - 1)
        return fw_fail(error, FW_E_LIMIT, "lzma: the streams are too large");
    uint8_t *plain = host->allocate(host, 2 * total + 1);
    if (plain == NULL) return fw_fail(error, FW_E_MEMORY, "lzma: no memory for %zu bytes", total);
    concatenate_gather(streams, n_streams, plain);
    fw_status status = code(compressor, plain, total, plain + total, &used, error);
    if (status == FW_OK && used > *bytes)
        status =
            fw_fail(error, FW_E_BUFFER, "lzma: %zu bytes do not fit a buffer of %zu", used, *bytes);
    if (status == FW_OK) {
        memcpy(out, plain + total, used);
        *bytes = used;
    }
    host->release(host, plain);
    return status;
}

/* plain[0 .. total) from the bytes behind the header; liblzma checks every distance. */
static fw_status decode(const uint8_t *in, size_t bytes, uint8_t *plain, size_t total,
                        fw_error *error) {
    const uint32_t properties = in[0] - 1u;
    lzma_options_lzma options = {.dict_size = dictionary_size(total, LARGEST_DICTIONARY),
                                 .lc = properties % 9,
                                 .lp = properties / 9 % 5,
                                 .pb = properties / 45};
    if (options.lc + options.lp > LZMA_LCLP_MAX || options.pb > LZMA_PB_MAX)
        return fw_fail(error, FW_E_FORMAT, "lzma: %u is not a header that it writes", in[0]);
    const lzma_filter filters[] = {{.id = LZMA_FILTER_LZMA1, .options = &options},
                                   {.id = LZMA_VLI_UNKNOWN}};
    size_t read = 1, written = 0;
    const lzma_ret result =
        lzma_raw_buffer_decode(filters, NULL, in, &read, bytes, plain, &written, total);
    FW_TRY(translate(result, FW_E_FORMAT, error));
    if (read != bytes || written != total)
        return fw_fail(error, FW_E_FORMAT, "lzma: %zu of %zu bytes hold %zu, but %zu are needed",
                       read, bytes, written, total);
    return FW_OK;
}

static fw_status decompress(void *self, const void *in, size_t bytes, const fw_stream *streams,
                            uint32_t n_streams, fw_error *error) {
    const fw_host *host = ((const lzma_compressor *)self)->host;
    const uint8_t *coded = in;
    size_t total = 0;
    FW_TRY(concatenate_size(streams, n_streams, &total, FW_E_FORMAT, error));
    if (bytes == 0) return fw_fail(error, FW_E_FORMAT, "lzma: no bytes at all");
    if (coded[0] == 0) {
        if (bytes - 1 != total)
            return fw_fail(error, FW_E_FORMAT, "lzma: %zu stored bytes for streams of %zu",
                           bytes - 1, total);
        concatenate_scatter(coded + 1, streams, n_streams);
        return FW_OK;
    }
    uint8_t *plain = host->allocate(host, total + 1);
    if (plain == NULL) return fw_fail(error, FW_E_MEMORY, "lzma: no memory for %zu bytes", total);
    const fw_status status = decode(coded, bytes, plain, total, error);
    if (status == FW_OK) concatenate_scatter(plain, streams, n_streams);
    host->release(host, plain);
    return status;
}

static const fw_compressor vtable = {.struct_size = sizeof vtable,
                                     .create = create,
                                     .destroy = destroy,
                                     .bound = bound,
                                     .compress = compress,
                                     .decompress = decompress};

static const fw_plugin plugin = {.struct_size = sizeof plugin,
                                 .kind = FW_COMPRESSOR,
                                 .id = "lzma",
                                 .version = "1.0.0",
                                 .summary = "LZMA, one raw stream over all streams",
                                 .vendor = "Fairway",
                                 .license = "MIT",
                                 .devices = FW_CPU | FW_CUDA,
                                 .n_params = N_PARAMS,
                                 .params = params,
                                 .vtable = &vtable};

FW_DEFINE_MODULE(&plugin);
