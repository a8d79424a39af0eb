#include "code_size.h"

#include <elf.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
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

static fw_status append_binary(struct bytes *bytes, const char *path, fw_error *error) {
    const uint8_t *data = NULL;
    size_t size = 0;
    FW_TRY(file_map(path, &data, &size, error));
    bytes_put(bytes, data, stripped_size(data, size));
    file_unmap(data, size);
    return FW_OK;
}

/* ---- the whole ---- */

struct measurement {
    const char *seen[128]; /* modules measured: one may hold several plugins */
    size_t n_seen;
    struct bytes sources, binaries;
    fw_status status;
    fw_error *error;
};

/* Append a file of sources if it exists. */
static bool append_sources(struct bytes *bytes, const char *path) {
    uint8_t *data = NULL;
    size_t size = 0;
    if (file_read(path, 0, &data, &size, NULL) != FW_OK) return false;
    bytes_put(bytes, data, size);
    free(data);
    return true;
}

static bool seen_before(struct measurement *m, const char *path) {
    for (size_t i = 0; i < m->n_seen; i++)
        if (strcmp(m->seen[i], path) == 0) return true;
    if (m->n_seen < sizeof m->seen / sizeof m->seen[0]) m->seen[m->n_seen++] = path;
    return false;
}

static void measure_module(struct measurement *m, const char *path) {
    if (seen_before(m, path)) return;
    if (m->status == FW_OK) m->status = append_binary(&m->binaries, path, m->error);
    char sources[PATH_MAX];
    const size_t length = strlen(path);
    if (length < 3 || strcmp(path + length - 3, ".so") != 0 || length + 2 > sizeof sources) return;
    (void)snprintf(sources, sizeof sources, "%.*s.src", (int)(length - 3), path);
    if (!append_sources(&m->sources, sources) && m->status == FW_OK)
        m->status = append_binary(&m->sources, path, m->error);
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
    FW_TRY(append_binary(&m->binaries, path, error));
    char *slash = strrchr(path, '/');
    if (slash != NULL) *slash = '\0';
    (void)snprintf(sources, sizeof sources, "%s/../lib/fairway/v0/fairway.src", path);
    if (append_sources(&m->sources, sources)) return FW_OK;
    if (append_sources(&m->sources, FAIRWAY_LIBDIR "/fairway/v0/fairway.src")) return FW_OK;
    return append_binary(&m->sources, "/proc/self/exe", error);
}

fw_status code_size_measure(const struct experiment *experiment, const struct host *host,
                            struct code_size *size, fw_error *error) {
    struct measurement m = {.error = error};
    m.status = measure_host(&m, error);
    experiment_each_plugin(experiment, measure_choice, &m);
    host_each_instantiated(host, measure_entry, &m);
    fw_status status = m.status;
    if (status == FW_OK && (m.sources.failed || m.binaries.failed))
        status = fw_fail(error, FW_E_MEMORY, "no memory to measure the code");
    if (status == FW_OK) {
        size->sources = xz_size(m.sources.data, m.sources.size);
        size->binaries = xz_size(m.binaries.data, m.binaries.size);
        if (size->sources == 0 || size->binaries == 0)
            status = fw_fail(error, FW_E_MEMORY, "no memory to pack the code");
        size->counted = size->sources > size->binaries ? size->sources : size->binaries;
    }
    bytes_free(&m.sources);
    bytes_free(&m.binaries);
    return status;
}
