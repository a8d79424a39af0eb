#include "code_size.h"

#include <elf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "code_bundle.h"
#include "files.h"

/* ---- the plugins of an experiment ---- */

struct visits {
    const struct plugin_choice *seen[64];
    size_t n;
    void (*visit)(void *argument, const struct plugin_choice *choice);
    void *argument;
};

static void visit_once(struct visits *visits, const struct plugin_choice *choice) {
    if (choice->entry == NULL) return;
    for (size_t i = 0; i < visits->n; i++)
        if (visits->seen[i]->entry == choice->entry) return;
    if (visits->n < sizeof visits->seen / sizeof visits->seen[0])
        visits->seen[visits->n++] = choice;
    visits->visit(visits->argument, choice);
}

void experiment_each_plugin(const struct experiment *experiment,
                            void (*visit)(void *argument, const struct plugin_choice *choice),
                            void *argument) {
    struct visits visits = {.visit = visit, .argument = argument};
    visit_once(&visits, &experiment->device);
    visit_once(&visits, &experiment->tokenizer);
    for (int64_t i = 0; experiment->attention != NULL && i < experiment->model.layers; i++)
        visit_once(&visits, &experiment->attention[i]);
    for (int i = 0; i < OPTIMIZER_GROUPS; i++) visit_once(&visits, &experiment->optimizer[i]);
    visit_once(&visits, &experiment->average);
    visit_once(&visits, &experiment->quantize);
    visit_once(&visits, &experiment->compress);
    visit_once(&visits, &experiment->cache);
    visit_once(&visits, &experiment->counterpart);
}

/* ---- binaries ---- */

struct measurement {
    const char *seen[128]; /* modules measured: one may hold several plugins */
    size_t n_seen;
    struct bytes sources, binaries; /* the former a tar */
    fw_status status;
    fw_error *error;
};

/* What strip(1) would keep of an ELF file: everything up to the end of its last loadable segment.
 * Other files count whole. */
static size_t stripped_size(const uint8_t *data, size_t size) {
    Elf64_Ehdr header;
    if (size < sizeof header || memcmp(data, ELFMAG, SELFMAG) != 0) return size;
    memcpy(&header, data, sizeof header);
    size_t end = 0;
    for (size_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        const size_t at = (size_t)header.e_phoff + i * sizeof segment;
        if (header.e_phentsize != sizeof segment || at > size || size - at < sizeof segment)
            return size;
        memcpy(&segment, data + at, sizeof segment);
        const size_t last = (size_t)(segment.p_offset + segment.p_filesz);
        if (segment.p_type == PT_LOAD && last > end) end = last;
    }
    return end > 0 && end < size ? end : size;
}

/* Append to the binaries; and to the sources too, for want of any. */
static fw_status append_binary(struct measurement *m, const char *path, bool sources) {
    const uint8_t *data = NULL;
    size_t size = 0;
    const char *slash = strrchr(path, '/');
    FW_TRY(file_map(path, &data, &size, m->error));
    const size_t stripped = stripped_size(data, size);
    bytes_put(&m->binaries, data, stripped);
    if (sources) bundle_put_binary(&m->sources, slash != NULL ? slash + 1 : path, data, stripped);
    file_unmap(data, size);
    return FW_OK;
}

/* ---- the whole ---- */

/* Append a tar of sources if there is one. */
static bool append_sources(struct bytes *bundle, const char *path) {
    uint8_t *data = NULL;
    size_t size = 0;
    if (file_read(path, 0, &data, &size, NULL) != FW_OK) return false;
    const bool is_tar = bundle_put_tar(bundle, data, size);
    free(data);
    return is_tar;
}

static bool seen_before(struct measurement *m, const char *path) {
    for (size_t i = 0; i < m->n_seen; i++)
        if (strcmp(m->seen[i], path) == 0) return true;
    if (m->n_seen < sizeof m->seen / sizeof m->seen[0]) m->seen[m->n_seen++] = path;
    return false;
}

static void measure_module(struct measurement *m, const char *path) {
    if (seen_before(m, path)) return;
    char sources[PATH_MAX];
    const size_t length = strlen(path);
    const bool named = length >= 3 && strcmp(path + length - 3, ".so") == 0;
    const int written =
        snprintf(sources, sizeof sources, "%.*s.src", (int)(named ? length - 3 : length), path);
    const bool found = written < (int)sizeof sources && append_sources(&m->sources, sources);
    if (m->status == FW_OK) m->status = append_binary(m, path, !found);
}

static void measure_choice(void *argument, const struct plugin_choice *choice) {
    measure_module(argument, choice->entry->path);
}

static void measure_entry(void *argument, const struct registry_entry *entry) {
    measure_module(argument, entry->path);
}

/* The host's sources lie with the installed plugins. */
static fw_status measure_host(struct measurement *m, fw_error *error) {
    char path[PATH_MAX - 64], sources[PATH_MAX];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0) return fw_fail(error, FW_E_IO, "/proc/self/exe: cannot be read");
    path[length] = '\0';
    const char *slash = strrchr(path, '/');
    (void)snprintf(sources, sizeof sources, "%.*s/../lib/fairway/v0/fairway.src",
                   slash != NULL ? (int)(slash - path) : 0, path);
    const bool found = append_sources(&m->sources, sources) ||
                       append_sources(&m->sources, FAIRWAY_LIBDIR "/fairway/v0/fairway.src");
    return append_binary(m, path, !found);
}

static fw_status pack_code(const struct measurement *m, const char *path, struct code_size *size,
                           fw_error *error) {
    if (m->sources.failed || m->binaries.failed)
        return fw_fail(error, FW_E_MEMORY, "no memory to measure the code");
    struct code_size made = {0};
    uint8_t *sources = NULL, *binaries = NULL;
    fw_status packed[2];
#pragma omp parallel sections num_threads(2)
    {
#pragma omp section
        packed[0] = xz_pack(m->sources.data, m->sources.size, &sources, &made.sources, NULL);
#pragma omp section
        packed[1] = xz_pack(m->binaries.data, m->binaries.size, &binaries, &made.binaries, NULL);
    }
    fw_status status = packed[0] != FW_OK ? packed[0] : packed[1];
    if (status != FW_OK) status = fw_fail(error, status, "no memory to pack the code");
    made.counted = made.sources > made.binaries ? made.sources : made.binaries;
    if (status == FW_OK) sha256_bytes(sources, made.sources, made.hash);
    if (status == FW_OK && path != NULL) status = file_write(path, sources, made.sources, error);
    free(sources);
    free(binaries);
    if (status == FW_OK) *size = made;
    return status;
}

fw_status code_size_measure(const struct experiment *experiment, const struct host *host,
                            const char *path, struct code_size *size, fw_error *error) {
    struct measurement m = {.error = error};
    m.status = measure_host(&m, error);
    experiment_each_plugin(experiment, measure_choice, &m);
    host_each_instantiated(host, measure_entry, &m);
    bundle_end(&m.sources);
    fw_status status = m.status;
    if (status == FW_OK) status = pack_code(&m, path, size, error);
    bytes_free(&m.sources);
    bytes_free(&m.binaries);
    return status;
}
