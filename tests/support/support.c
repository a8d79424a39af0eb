#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dladdr */
#endif
#include "support.h"

#include <dlfcn.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <unistd.h>

static const char *kind_name(uint32_t kind) {
    switch (kind) {
#define KIND_CASE(name, value, text)                                                               \
    case value: return text;
        FW_KIND_MAP(KIND_CASE)
#undef KIND_CASE
    default: return "?";
    }
}

const fw_plugin *test_plugin(uint32_t kind, const char *id) {
    char path[4096];
    const char *elsewhere = getenv("FAIRWAY_TEST_PLUGINS"); /* searched first: other authors' */
    (void)snprintf(path, sizeof path, "%s/%s-%s.so", elsewhere != NULL ? elsewhere : "",
                   kind_name(kind), id);
    if (elsewhere == NULL || access(path, R_OK) != 0)
        (void)snprintf(path, sizeof path, "%s/%s-%s.so", TEST_PLUGIN_DIRECTORY, kind_name(kind),
                       id);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (library == NULL) fail_msg("%s", dlerror());
    const fw_module *module = (const fw_module *)dlsym(library, FW_MODULE_SYMBOL);
    if (module == NULL || module->magic != FW_MODULE_MAGIC) fail_msg("%s: not a module", path);
    for (uint32_t i = 0; i < module->n_plugins; i++) {
        const fw_plugin *plugin = module->plugins[i];
        if (plugin->kind == kind && strcmp(plugin->id, id) == 0) return plugin;
    }
    fail_msg("%s: no plugin %s", path, id);
    return NULL;
}

const char *test_plugin_path(const fw_plugin *plugin) {
    Dl_info about;
    if (dladdr(plugin, &about) == 0) fail_msg("plugin %s lies in no file", plugin->id);
    return about.dli_fname;
}

static void host_log(const fw_host *host, uint32_t level, const char *message) {
    (void)host;
    (void)fprintf(stderr, "[%u] %s\n", level, message);
}

static void *host_allocate(const fw_host *host, size_t bytes) {
    (void)host;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static void host_release(const fw_host *host, void *memory) {
    (void)host;
    free(memory);
}

static uint64_t host_seed(const fw_host *host, const char *label) {
    (void)host;
    uint64_t hash = 1469598103934665603u;
    for (; *label != '\0'; label++) hash = (hash ^ (uint8_t)*label) * 1099511628211u;
    return hash;
}

static uint32_t host_threads(const fw_host *host) {
    (void)host;
    return (uint32_t)omp_get_max_threads();
}

static void host_parallel_for(const fw_host *host, int64_t n, int64_t grain,
                              void (*body)(void *, int64_t, int64_t), void *argument) {
    (void)host;
    const int64_t step = grain > 0 ? grain : 1;
    const int64_t chunks = (n + step - 1) / step;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < chunks; i++)
        body(argument, i * step, (i + 1) * step < n ? (i + 1) * step : n);
}

static void host_progress(const fw_host *host, const char *what, double done, double total) {
    (void)host, (void)what, (void)done, (void)total;
}

static double host_seconds_left(const fw_host *host) {
    (void)host;
    return INFINITY;
}

static const void *host_service(const fw_host *host, const char *id) {
    (void)host, (void)id;
    return NULL;
}

/* Every table made, so that leak checkers find them reachable. */
static const fw_host *volatile kept[256];
static size_t n_kept;

const fw_host *test_host(fw_device *device) {
    fw_host *host = calloc(1, sizeof *host);
    assert_non_null(host);
    *host = (fw_host){.struct_size = sizeof *host,
                      .abi_minor = FW_ABI_MINOR,
                      .device = device,
                      .log = host_log,
                      .allocate = host_allocate,
                      .release = host_release,
                      .seed = host_seed,
                      .parallel_for = host_parallel_for,
                      .threads = host_threads,
                      .progress = host_progress,
                      .seconds_left = host_seconds_left,
                      .service = host_service};
    kept[n_kept++ % 256] = host;
    return host;
}

static fw_value parse(const fw_param *param, const char *text) {
    fw_value value = {0};
    switch (param->type) {
    case FW_PARAM_BOOL:
        value.integer = strcmp(text, "yes") == 0 || strcmp(text, "true") == 0 ||
                        strcmp(text, "on") == 0 || strcmp(text, "1") == 0;
        break;
    case FW_PARAM_INT: {
        char *end = NULL;
        value.integer = strtoll(text, &end, 10);
        if (*end == 'K') value.integer *= 1000;
        if (*end == 'M') value.integer *= 1000000;
        break;
    }
    case FW_PARAM_FLOAT: value.real = strtod(text, NULL); break;
    case FW_PARAM_ENUM:
        for (int64_t i = 0; param->choices[i] != NULL; i++)
            if (strcmp(param->choices[i], text) == 0) value.integer = i;
        break;
    default: value.text = text; break;
    }
    return value;
}

fw_value *test_values(const fw_plugin *plugin, const char *const *overrides) {
    fw_value *values = calloc(plugin->n_params + 1, sizeof *values);
    assert_non_null(values);
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = &plugin->params[i];
        const char *text = param->default_text;
        const size_t length = strlen(param->key);
        for (const char *const *o = overrides; o != NULL && *o != NULL; o++)
            if (strncmp(*o, param->key, length) == 0 && (*o)[length] == '=') text = *o + length + 1;
        if (text != NULL) values[i] = parse(param, text);
    }
    return values;
}

/* ctest's SKIP_RETURN_CODE: a machine without a GPU has passed no test of one, and failed none. */
enum { SKIPPED = 77 };

static void skip_without_device(const fw_device_driver *driver) {
    uint32_t n = 0;
    fw_error error = {.struct_size = sizeof error};
    if (driver->count(&n, &error) == FW_OK && n > 0) return;
    (void)printf("skipped: %s\n", error.message);
    (void)fflush(stdout);
    _Exit(SKIPPED); /* past the leak checker: the plugin is loaded for good */
}

/* "hopper=no synchronous=yes" of FAIRWAY_TEST_DEVICE_VALUES, as test_values takes them. */
static const char *const *device_overrides(void) {
    static char text[256];
    static const char *list[16];
    const char *given = getenv("FAIRWAY_TEST_DEVICE_VALUES");
    size_t n = 0;
    (void)snprintf(text, sizeof text, "%s", given != NULL ? given : "");
    for (char *word = strtok(text, " "); word != NULL && n < 15; word = strtok(NULL, " "))
        list[n++] = word;
    list[n] = NULL;
    return list;
}

fw_device *test_device(const char *id) {
    const fw_plugin *plugin = test_plugin(FW_DEVICE, id);
    const fw_device_driver *driver = plugin->vtable;
    skip_without_device(driver);
    const bool named =
        getenv("FAIRWAY_TEST_DEVICE") != NULL && strcmp(id, getenv("FAIRWAY_TEST_DEVICE")) == 0;
    fw_value *values = test_values(plugin, named ? device_overrides() : NULL);
    fw_device *device = NULL;
    fw_error error = {.struct_size = sizeof error};
    if (driver->create(test_host(NULL), values, 0, &device, &error) != FW_OK)
        fail_msg("device %s: %s", id, error.message);
    free(values);
    return device;
}

static uint64_t next(test_random *random) {
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double test_uniform(test_random *random) { return (double)(next(random) >> 11) * 0x1p-53; }

double test_normal(test_random *random) {
    const double radius = sqrt(-2.0 * log(1.0 - test_uniform(random)));
    return radius * cos(6.283185307179586 * test_uniform(random));
}

uint64_t test_below(test_random *random, uint64_t n) { return next(random) % n; }

double test_relative_error(const float *a, const double *b, size_t n) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += b[i] * b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
