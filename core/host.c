/* The host's services to plugins (fairway/host.h): log, memory, seeds, threads, clock, and
 * instances of other plugins. */
#include "host.h"

#include <fairway/fairway.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "params.h"

#define LARGE_PAGE ((size_t)2 << 20)

enum { LONGEST_EFFECT = 63, MOST_EFFECTS = 256 };

/* An effect that a plugin stated. */
struct effect {
    char name[LONGEST_EFFECT + 1];
    double size;
};

struct host {
    fw_host table;
    struct host_options options;
    uint32_t threads;
    const fw_device_driver *driver;             /* of the open device */
    const struct registry_entry **instantiated; /* by plugins, each once */
    size_t n_instantiated;
    pthread_mutex_t effects_lock;
    struct effect *effects;
    size_t n_effects;
};

static struct host *owner(const fw_host *table) { return table->context; }

static void service_log(const fw_host *table, uint32_t level, const char *message) {
    static const char *const names[] = {"debug: ", "", "warning: ", "error: "};
    const struct host *host = owner(table);
    if (host->options.log != NULL)
        host->options.log(host->options.argument, level, message);
    else if (level > FW_LOG_DEBUG)
        (void)fprintf(stderr, "%s%s\n", names[level <= FW_LOG_ERROR ? level : FW_LOG_ERROR],
                      message);
}

/* A block of several megabytes on large pages, where the system grants them: who jumps about in it
 * then seldom waits for an address to be translated. */
static void *allocate_large(size_t bytes) {
    void *block = NULL;
    if (posix_memalign(&block, LARGE_PAGE, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    (void)madvise(block, bytes / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#endif
    return block;
}

static void *service_allocate(const fw_host *table, size_t bytes) {
    (void)table;
    if (bytes > SIZE_MAX - 64) return NULL;
    if (bytes >= LARGE_PAGE) return allocate_large(bytes);
    return aligned_alloc(64, bytes > 0 ? (bytes + 63) / 64 * 64 : 64);
}

static void service_release(const fw_host *table, void *memory) {
    (void)table;
    free(memory);
}

/* FNV-1a of the label, then SplitMix64's finaliser together with the run's seed. */
static uint64_t service_seed(const fw_host *table, const char *label) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *label != '\0'; label++) hash = (hash ^ (uint8_t)*label) * UINT64_C(0x100000001b3);
    uint64_t z = hash + owner(table)->options.seed * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* As many near-equal ranges as threads, fewer when they would be smaller than the grain. */
static void service_parallel_for(const fw_host *table, int64_t n, int64_t grain,
                                 void (*body)(void *, int64_t, int64_t), void *argument) {
    if (n <= 0) return;
    const int64_t most = n / (grain > 0 ? grain : 1);
    const int64_t threads = owner(table)->threads;
    const int64_t ranges = most < 1 ? 1 : most < threads ? most : threads;
    const int64_t size = n / ranges,
                  longer = n % ranges; /* the first `longer` ranges get one more */
#pragma omp parallel for schedule(static, 1) num_threads((int)ranges) if (ranges > 1)
    for (int64_t i = 0; i < ranges; i++) {
        const int64_t begin = i * size + (i < longer ? i : longer);
        body(argument, begin, begin + size + (i < longer ? 1 : 0));
    }
}

static uint32_t service_threads(const fw_host *table) { return owner(table)->threads; }

static void service_progress(const fw_host *table, const char *what, double done, double total) {
    const struct host_options *options = &owner(table)->options;
    if (options->progress != NULL) options->progress(options->argument, what, done, total);
}

static double service_seconds_left(const fw_host *table) {
    const struct host_options *options = &owner(table)->options;
    return options->seconds_left != NULL ? options->seconds_left(options->argument)
                                         : (double)INFINITY;
}

/* ---- Effects ---- */

/* NULL: no memory, or more of them than anybody reads. */
static struct effect *effect_named(struct host *host, const char *name) {
    for (size_t i = 0; i < host->n_effects; i++)
        if (strncmp(host->effects[i].name, name, LONGEST_EFFECT) == 0) return &host->effects[i];
    if (host->n_effects == MOST_EFFECTS) return NULL;
    struct effect *more = realloc(host->effects, (host->n_effects + 1) * sizeof *more);
    if (more == NULL) return NULL;
    host->effects = more;
    struct effect *made = &more[host->n_effects++];
    *made = (struct effect){.size = 0};
    (void)snprintf(made->name, sizeof made->name, "%s", name);
    return made;
}

/* Caches state effects from threads of their own. */
static void service_effect(const fw_host *table, const char *name, double size) {
    struct host *host = owner(table);
    (void)pthread_mutex_lock(&host->effects_lock);
    struct effect *effect = effect_named(host, name);
    if (effect != NULL) effect->size = size;
    (void)pthread_mutex_unlock(&host->effects_lock);
}

void host_each_effect(const struct host *host,
                      void (*visit)(void *argument, const char *name, double size),
                      void *argument) {
    for (size_t i = 0; i < host->n_effects; i++)
        visit(argument, host->effects[i].name, host->effects[i].size);
}

/* ---- Instances of other plugins ---- */

/* What must live as long as the instance: its values and the text that they point into. */
struct settings {
    fw_value *values;
    char **texts;
    uint32_t n;
};

static void settings_free(struct settings *settings) {
    if (settings == NULL) return;
    for (uint32_t i = 0; i < settings->n; i++) free(settings->texts[i]);
    free(settings->texts);
    free(settings->values);
    free(settings);
}

static const char *setting_text(const fw_param *param, const fw_setting *list, uint32_t n) {
    for (uint32_t i = n; i-- > 0;)
        if (strcmp(list[i].key, param->key) == 0) return list[i].value;
    return param->default_text;
}

static fw_status check_settings(const fw_plugin *plugin, const fw_setting *list, uint32_t n,
                                fw_error *error) {
    for (uint32_t i = 0; i < n; i++) {
        bool known = false;
        for (uint32_t k = 0; k < plugin->n_params && !known; k++)
            known = strcmp(param_at(plugin->params, k)->key, list[i].key) == 0;
        if (!known)
            return fw_fail(error, FW_E_CONFIG, "%s %s has no key '%s'", kind_name(plugin->kind),
                           plugin->id, list[i].key);
    }
    return FW_OK;
}

static fw_status fill_settings(struct settings *settings, const fw_plugin *plugin,
                               const fw_setting *list, uint32_t n, fw_error *error) {
    FW_TRY(check_settings(plugin, list, n, error));
    settings->values = calloc(plugin->n_params + 1u, sizeof *settings->values);
    settings->texts = calloc(plugin->n_params + 1u, sizeof *settings->texts);
    if (settings->values == NULL || settings->texts == NULL)
        return fw_fail(error, FW_E_MEMORY, "out of memory");
    settings->n = plugin->n_params;
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = param_at(plugin->params, i);
        const char *text = setting_text(param, list, n);
        if (text == NULL)
            return fw_fail(error, FW_E_CONFIG, "%s %s needs the key '%s': %s",
                           kind_name(plugin->kind), plugin->id, param->key, param->doc);
        settings->texts[i] = strdup(text);
        if (settings->texts[i] == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
        FW_TRY(param_parse(param, settings->texts[i], &settings->values[i], error));
    }
    return FW_OK;
}

/* Kinds whose create() takes the host and the values alone. */
static fw_status create_instance(const fw_host *table, const fw_plugin *plugin,
                                 const fw_value *values, void **self, fw_error *error) {
    const void *vtable = plugin->vtable;
    switch (plugin->kind) {
    case FW_OPTIMIZER: return ((const fw_optimizer *)vtable)->create(table, values, self, error);
    case FW_AVERAGER: return ((const fw_averager *)vtable)->create(table, values, self, error);
    case FW_QUANTIZER: return ((const fw_quantizer *)vtable)->create(table, values, self, error);
    case FW_COMPRESSOR: return ((const fw_compressor *)vtable)->create(table, values, self, error);
    case FW_COLLECTIVE: return ((const fw_collective *)vtable)->create(table, values, self, error);
    case FW_TOKENIZER: return ((const fw_tokenizer *)vtable)->create(table, values, self, error);
    default:
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "a plugin of kind %s needs more than settings and cannot be instantiated by "
                       "another plugin",
                       kind_name(plugin->kind));
    }
}

static void destroy_instance(const fw_instance *instance) {
    switch (instance->kind) {
    case FW_OPTIMIZER: ((const fw_optimizer *)instance->vtable)->destroy(instance->self); break;
    case FW_AVERAGER: ((const fw_averager *)instance->vtable)->destroy(instance->self); break;
    case FW_QUANTIZER: ((const fw_quantizer *)instance->vtable)->destroy(instance->self); break;
    case FW_COMPRESSOR: ((const fw_compressor *)instance->vtable)->destroy(instance->self); break;
    case FW_COLLECTIVE: ((const fw_collective *)instance->vtable)->destroy(instance->self); break;
    case FW_TOKENIZER: ((const fw_tokenizer *)instance->vtable)->destroy(instance->self); break;
    default: break;
    }
}

static fw_status remember(struct host *host, const struct registry_entry *entry, fw_error *error) {
    for (size_t i = 0; i < host->n_instantiated; i++)
        if (host->instantiated[i] == entry) return FW_OK;
    const struct registry_entry **grown = realloc(
        host->instantiated, (host->n_instantiated + 1) * sizeof(const struct registry_entry *));
    if (grown == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    host->instantiated = grown;
    grown[host->n_instantiated++] = entry;
    return FW_OK;
}

void host_each_instantiated(const struct host *host,
                            void (*visit)(void *argument, const struct registry_entry *entry),
                            void *argument) {
    for (size_t i = 0; i < host->n_instantiated; i++) visit(argument, host->instantiated[i]);
}

static fw_status service_instantiate(const fw_host *table, uint32_t kind, const char *id,
                                     const fw_setting *settings, uint32_t n_settings,
                                     fw_instance *instance, fw_error *error) {
    struct registry *registry = owner(table)->options.registry;
    if (instance == NULL || !FW_COVERS(instance, reserved))
        return fw_fail(error, FW_E_ARGUMENT,
                       "instantiate needs an fw_instance with its struct_size set, at least %zu",
                       offsetof(fw_instance, reserved) + sizeof instance->reserved);
    if (registry == NULL)
        return fw_fail(error, FW_E_UNSUPPORTED, "this host has no plugins to offer");
    const struct registry_entry *entry = NULL;
    FW_TRY(registry_find(registry, kind, id, &entry, error));
    struct settings *kept = calloc(1, sizeof *kept);
    if (kept == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    void *self = NULL;
    fw_status status = fill_settings(kept, entry->plugin, settings, n_settings, error);
    if (status == FW_OK) status = remember(owner(table), entry, error);
    if (status == FW_OK) status = create_instance(table, entry->plugin, kept->values, &self, error);
    if (status != FW_OK) {
        settings_free(kept);
        return status;
    }
    instance->kind = kind;
    instance->vtable = entry->plugin->vtable;
    instance->self = self;
    instance->reserved = kept;
    return FW_OK;
}

static void service_release_instance(const fw_host *table, fw_instance *instance) {
    (void)table;
    if (instance == NULL || instance->vtable == NULL) return;
    destroy_instance(instance);
    settings_free(instance->reserved);
    instance->vtable = NULL;
    instance->self = NULL;
    instance->reserved = NULL;
}

static const void *service_other(const fw_host *table, const char *id) {
    (void)table, (void)id;
    return NULL;
}

/* ---- The host itself ---- */

fw_status host_create(const struct host_options *options, struct host **host, fw_error *error) {
    struct host *created = calloc(1, sizeof *created);
    if (created == NULL) return fw_fail(error, FW_E_MEMORY, "out of memory");
    created->options = *options;
    (void)pthread_mutex_init(&created->effects_lock, NULL);
    created->threads = (uint32_t)omp_get_max_threads();
    created->table = (fw_host){.struct_size = sizeof created->table,
                               .abi_minor = FW_ABI_MINOR,
                               .context = created,
                               .log = service_log,
                               .allocate = service_allocate,
                               .release = service_release,
                               .seed = service_seed,
                               .parallel_for = service_parallel_for,
                               .threads = service_threads,
                               .progress = service_progress,
                               .seconds_left = service_seconds_left,
                               .instantiate = service_instantiate,
                               .release_instance = service_release_instance,
                               .service = service_other,
                               .effect = service_effect};
    *host = created;
    return FW_OK;
}

void host_destroy(struct host *host) {
    if (host == NULL) return;
    if (host->table.device != NULL) host->driver->destroy(host->table.device);
    free(host->instantiated);
    free(host->effects);
    (void)pthread_mutex_destroy(&host->effects_lock);
    free(host);
}

const fw_host *host_table(struct host *host) { return &host->table; }

/* A device plugin with several devices has a parameter `ordinal`; others offer the first. */
int32_t host_device_ordinal(const struct plugin_choice *choice) {
    const fw_plugin *plugin = choice->entry->plugin;
    for (uint32_t i = 0; i < plugin->n_params; i++) {
        const fw_param *param = param_at(plugin->params, i);
        if (param->type == FW_PARAM_INT && strcmp(param->key, "ordinal") == 0)
            return (int32_t)choice->values[i].integer;
    }
    return 0;
}

/* What every user of a device relies on; the ops each part needs are asked for by that part. */
static fw_status check_device(const fw_device *device, const char *id, fw_error *error) {
    if (device == NULL) return fw_fail(error, FW_E_UNSUPPORTED, "device %s: it made none", id);
    if (!FW_COVERS(device, ops))
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "device %s: its description has %u bytes; %zu are the least", id,
                       device->struct_size, offsetof(fw_device, ops) + sizeof device->ops);
    if (device->allocate == NULL || device->release == NULL || device->copy_from_host == NULL ||
        device->copy_to_host == NULL || device->copy == NULL || device->zero == NULL ||
        device->synchronize == NULL)
        return fw_fail(error, FW_E_UNSUPPORTED,
                       "device %s: it lacks allocate, release, a copy, zero or synchronize", id);
    if (device->ops == NULL)
        return fw_fail(error, FW_E_UNSUPPORTED, "device %s: it has no ops", id);
    if (device->compute_dtype == FW_F32 || device->compute_dtype == FW_BF16) return FW_OK;
    return fw_fail(error, FW_E_UNSUPPORTED,
                   "device %s: it computes in data type %u; float32 or bfloat16 is right", id,
                   device->compute_dtype);
}

fw_status host_open_device(struct host *host, const struct plugin_choice *choice, fw_error *error) {
    if (choice->entry == NULL)
        return fw_fail(error, FW_E_INTERNAL, "the device %s is not bound", choice->name);
    if (host->table.device != NULL)
        return fw_fail(error, FW_E_INTERNAL, "the device %s is opened twice", choice->name);
    const fw_device_driver *driver = choice->entry->plugin->vtable;
    uint32_t count = 0;
    fw_error why = {.struct_size = sizeof why};
    fw_status status = driver->count(&count, &why);
    if (status != FW_OK) return choice_fail(choice, status, why.message, error);
    if (count == 0)
        return fw_fail(error, FW_E_NOT_FOUND,
                       "there is no %s device%s%.600s; run.device = auto takes what is there",
                       choice->entry->plugin->id, why.message[0] != '\0' ? ": " : "", why.message);
    fw_device *device = NULL;
    status =
        driver->create(&host->table, choice->values, host_device_ordinal(choice), &device, &why);
    if (status != FW_OK) return choice_fail(choice, status, why.message, error);
    status = check_device(device, choice->entry->plugin->id, error);
    if (status != FW_OK) {
        if (device != NULL) driver->destroy(device);
        return status;
    }
    host->driver = driver;
    host->table.device = device;
    return FW_OK;
}
