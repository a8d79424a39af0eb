#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dl_iterate_phdr */
#endif
#include "proof_pins.h"

#include <elf.h>
#include <fairway/device.h>
#include <link.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "files.h"

/* ---- putting together ---- */

static void put_pin(struct proof_pins *pins, const char *name, const char *remedy,
                    const char *format, ...) FW_PRINTF(4, 5);
static void put_pin(struct proof_pins *pins, const char *name, const char *remedy,
                    const char *format, ...) {
    struct proof_pin *pin = &pins->items[pins->n++];
    *pin = (struct proof_pin){.name = name, .remedy = remedy};
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(pin->value, sizeof pin->value, format, arguments);
    va_end(arguments);
}

/* ---- what is computed ---- */

static fw_status put_artifact(const struct scorer *scorer, struct proof_pins *pins) {
    char hex[65];
    sha256_hex(scorer->artifact.sha256, hex);
    put_pin(pins, "artifact", "name the one that it was written with", "SHA-256 %s", hex);
    return FW_OK;
}

static void put_mode(const struct scorer *scorer, struct proof_pins *pins) {
    static const char *const modes[] = {"plain", "sliding", "stream"};
    const struct experiment *experiment = scorer->session.experiment;
    const struct eval_keys *eval = &experiment->eval;
    put_pin(pins, "evaluation mode",
            "give the same --set eval.mode, window, stride, ranks and warm_start",
            "%s, window %lld, stride %lld, ranks %lld%s", modes[eval->mode % 3],
            (long long)evaluate_window(experiment), (long long)eval->stride, (long long)eval->ranks,
            eval->ranks > 1 && eval->warm_start ? ", warm" : "");
}

static fw_status put_settings(const struct scorer *scorer, struct proof_pins *pins,
                              fw_error *error) {
    static const char *const scored[] = {"data",     "model", "attention", "quantize",
                                         "compress", "cache", NULL};
    static const char *const device[] = {"device", NULL};
    const struct config *config = scorer->session.config;
    char hash[65];
    FW_TRY(config_sections_hash(config, scored, hash, error));
    put_pin(pins, "settings of model and cache", "give the same --set", "SHA-256 %s", hash);
    FW_TRY(config_sections_hash(config, device, hash, error));
    put_pin(pins, "device settings", "give the same --set device.KEY=VALUE", "SHA-256 %s", hash);
    return FW_OK;
}

/* ---- what it is computed with ---- */

static fw_status put_device(const struct scorer *scorer, struct proof_pins *pins, fw_error *error) {
    const struct plugin_choice *choice = &scorer->session.experiment->device;
    const fw_device_driver *driver = choice->entry->plugin->vtable;
    fw_device_info info = {.struct_size = sizeof info};
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = driver->describe(host_device_ordinal(choice), &info, &why);
    if (status != FW_OK) return choice_fail(choice, status, why.message, error);
    put_pin(pins, "device model", "it can be decoded on such a device alone", "%.*s",
            (int)sizeof info.name - 1, info.name);
    put_pin(pins, "device libraries", "it can be decoded with the same versions alone", "%.*s",
            (int)sizeof info.libraries - 1, info.libraries);
    return FW_OK;
}

static fw_status put_program(struct proof_pins *pins, fw_error *error) {
    uint8_t hash[32];
    char hex[65];
    FW_TRY(sha256_file("/proc/self/exe", hash, error));
    sha256_hex(hash, hex);
    put_pin(pins, "build", "it can be decoded by the same build of fairway alone",
            "fairway %s, SHA-256 %s", FAIRWAY_VERSION, hex);
    return FW_OK;
}

/* What libraries choose their kernels by. */
static void put_instructions(struct proof_pins *pins) {
    char list[400] = "";
    size_t n = 0;
#if defined(__x86_64__)
#define PUT_IF(name)                                                                               \
    if (__builtin_cpu_supports(name) && n < sizeof list)                                           \
    n += (size_t)snprintf(list + n, sizeof list - n, "%s" name, n > 0 ? " " : "")
    PUT_IF("sse4.2");
    PUT_IF("avx");
    PUT_IF("fma");
    PUT_IF("avx2");
    PUT_IF("avx512f");
    PUT_IF("avx512bw");
    PUT_IF("avx512dq");
    PUT_IF("avx512vl");
    PUT_IF("avx512vnni");
    PUT_IF("avx512bf16");
#undef PUT_IF
#else
    n = (size_t)snprintf(list, sizeof list, "hwcap %lx %lx", getauxval(AT_HWCAP),
                         getauxval(AT_HWCAP2));
#endif
    put_pin(pins, "instruction set", "it can be decoded on such a processor alone", "%s",
            n > 0 ? list : "base");
}

static void put_threads(const struct scorer *scorer, struct proof_pins *pins) {
    const int64_t set = scorer->session.experiment->run.threads;
    put_pin(pins, "threads", "give the same --set run.threads", "%lld",
            set > 0 ? (long long)set : (long long)omp_get_max_threads());
    pins->items[pins->n - 1].number = true;
}

/* ---- system libraries: those whose arithmetic is ours ---- */

struct found_libraries {
    char text[512];
    size_t length;
};

static void put_build_id(struct found_libraries *found, const uint8_t *note, size_t size) {
    while (size >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) header;
        memcpy(&header, note, sizeof header);
        const size_t name = (header.n_namesz + 3u) & ~(size_t)3;
        const size_t rest = size - sizeof header;
        const size_t whole = name + ((header.n_descsz + 3u) & ~(size_t)3);
        if (whole > rest) return;
        const uint8_t *id = note + sizeof header + name;
        for (size_t i = 0; header.n_type == NT_GNU_BUILD_ID && i < header.n_descsz; i++)
            if (found->length + 3 < sizeof found->text)
                found->length += (size_t)snprintf(found->text + found->length, 3, "%02x", id[i]);
        note += sizeof header + whole;
        size = rest - whole;
    }
}

static int visit_library(struct dl_phdr_info *info, size_t size, void *argument) {
    static const char *const names[] = {"libm.", "libmvec.", "libc.", "libgomp.", "libopenblas"};
    struct found_libraries *found = argument;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = slash != NULL ? slash + 1 : info->dlpi_name;
    (void)size;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strncmp(name, names[i], strlen(names[i])) != 0) continue;
        const size_t room = sizeof found->text - found->length;
        const int n = snprintf(found->text + found->length, room, "%s%s ",
                               found->length > 0 ? ", " : "", name);
        found->length += n < (int)room ? (size_t)n : room - 1;
        for (ElfW(Half) k = 0; k < info->dlpi_phnum; k++)
            if (info->dlpi_phdr[k].p_type == PT_NOTE)
                put_build_id(
                    found,
                    (const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[k].p_vaddr), /* NOLINT */
                    info->dlpi_phdr[k].p_memsz);
    }
    return 0;
}

static void put_libraries(struct proof_pins *pins) {
    struct found_libraries found = {.text = ""};
    (void)dl_iterate_phdr(visit_library, &found);
    put_pin(pins, "system libraries", "it can be decoded with the same versions alone", "%s",
            found.text);
}

/* ---- plugins ---- */

static void put_plugin(struct proof_pins *pins, const char *name,
                       const struct plugin_choice *choice) {
    char hex[65];
    sha256_hex(choice->entry->sha256, hex);
    put_pin(pins, name, "name the one that it was written with", "%s %s, SHA-256 %s",
            choice->entry->plugin->id, choice->entry->plugin->version, hex);
}

/* Layers may have different ones: the pin is of all in their order. */
static void put_attention(struct proof_pins *pins, const struct experiment *experiment) {
    struct bytes all = {0};
    for (int64_t i = 0; i < experiment->model.layers; i++)
        bytes_put(&all, experiment->attention[i].entry->sha256, 32);
    uint8_t hash[32];
    char hex[65];
    sha256_bytes(all.data, all.size, hash);
    sha256_hex(hash, hex);
    bytes_free(&all);
    put_pin(pins, "attention plugins", "name those that it was written with",
            "%s %s in layer 0, SHA-256 of all %s", experiment->attention[0].entry->plugin->id,
            experiment->attention[0].entry->plugin->version, hex);
}

static void put_plugins(const struct scorer *scorer, const struct session *text,
                        struct proof_pins *pins) {
    const struct experiment *experiment = scorer->session.experiment;
    put_plugin(pins, "device plugin", &experiment->device);
    put_attention(pins, experiment);
    put_plugin(pins, "quantizer plugin", &experiment->quantize);
    put_plugin(pins, "compressor plugin", &experiment->compress);
    put_plugin(pins, "cache plugin", &experiment->cache);
    if (text != NULL)
        put_plugin(pins, "tokenizer plugin", &text->experiment->tokenizer);
    else
        put_pin(pins, "tokenizer plugin", "name it with --tokenizer", "none");
}

/* The order is that of the file, and of what is told first. */
fw_status proof_pins_collect(const struct scorer *scorer, const struct session *text,
                             struct proof_pins *pins, fw_error *error) {
    *pins = (struct proof_pins){0};
    FW_TRY(put_artifact(scorer, pins));
    put_plugins(scorer, text, pins);
    put_mode(scorer, pins);
    put_threads(scorer, pins);
    FW_TRY(put_program(pins, error));
    FW_TRY(put_device(scorer, pins, error));
    put_instructions(pins);
    put_libraries(pins);
    return put_settings(scorer, pins, error);
}

/* ---- codes ---- */

const char *proof_pin_value(const struct proof_pins *pins, const char *name) {
    for (uint32_t i = 0; i < pins->n; i++)
        if (strcmp(pins->items[i].name, name) == 0) return pins->items[i].value;
    return "";
}

uint16_t proof_pin_code(const struct proof_pin *pin) {
    if (pin->number) return (uint16_t)strtoul(pin->value, NULL, 10);
    uint8_t hash[32];
    sha256_bytes(pin->value, strlen(pin->value), hash);
    return (uint16_t)(hash[0] | hash[1] << 8);
}

static fw_status differs(const struct proof_pin *pin, uint16_t code, fw_error *error) {
    if (pin->number)
        return fw_fail(error, FW_E_CONFIG, "%s: %u when it was written, %s here; %s", pin->name,
                       code, pin->value, pin->remedy);
    return fw_fail(error, FW_E_CONFIG, "%s: not what it was written with (here: %s); %s", pin->name,
                   pin->value, pin->remedy);
}

fw_status proof_pins_compare(const struct proof_pins *pins, const struct proof_file *file,
                             fw_error *error) {
    if (file->n_pins != pins->n)
        return fw_fail(error, FW_E_FORMAT,
                       "it has %u pins, this program's files have %u: another build wrote it",
                       file->n_pins, pins->n);
    for (uint32_t i = 0; i < pins->n; i++)
        if (proof_pin_code(&pins->items[i]) != file->pins[i])
            return differs(&pins->items[i], file->pins[i], error);
    return FW_OK;
}
