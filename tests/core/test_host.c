/* The services that plugins get: ranges of parallel_for, seeds, memory, other plugins. */
#include "host.h"

#include <math.h>

#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};
static struct host *host;
static const fw_host *table;
static struct registry *registry;

static int setup(void **state) {
    (void)state;
    assert_ok(registry_create(NULL, 0, &registry, &error), &error);
    const struct host_options options = {.registry = registry, .seed = 5};
    assert_ok(host_create(&options, &host, &error), &error);
    table = host_table(host);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    host_destroy(host);
    registry_destroy(registry);
    return 0;
}

struct coverage {
    uint8_t seen[1000];
    int64_t smallest;
    int ranges;
};

static void mark(void *argument, int64_t begin, int64_t end) {
    struct coverage *coverage = argument;
    for (int64_t i = begin; i < end; i++) coverage->seen[i]++;
#pragma omp critical
    {
        coverage->ranges++;
        if (end - begin < coverage->smallest) coverage->smallest = end - begin;
    }
}

static void every_index_once(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 2, 7, 64, 999, 1000};
    static const int64_t grains[] = {0, 1, 3, 64, 5000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t g = 0; g < sizeof grains / sizeof grains[0]; g++) {
            struct coverage coverage = {.smallest = INT64_MAX};
            table->parallel_for(table, sizes[s], grains[g], mark, &coverage);
            for (int64_t i = 0; i < 1000; i++)
                assert_int_equal(coverage.seen[i], i < sizes[s] ? 1 : 0);
            assert_true(coverage.ranges <= (int)table->threads(table));
            if (sizes[s] >= grains[g] && sizes[s] > 0) assert_true(coverage.smallest >= grains[g]);
        }
}

static void seeds(void **state) {
    (void)state;
    assert_true(table->seed(table, "a") == table->seed(table, "a"));
    assert_true(table->seed(table, "a") != table->seed(table, "b"));
    struct host *other = NULL;
    const struct host_options options = {.seed = 6};
    assert_ok(host_create(&options, &other, &error), &error);
    assert_true(host_table(other)->seed(host_table(other), "a") != table->seed(table, "a"));
    host_destroy(other);
    host_destroy(NULL);
}

static void memory(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *bytes = table->allocate(table, sizes[i]);
        assert_non_null(bytes);
        assert_int_equal((uintptr_t)bytes % 64, 0);
        memset(bytes, 1, sizes[i]);
        table->release(table, bytes);
    }
    assert_null(table->allocate(table, SIZE_MAX));
}

static void defaults(void **state) {
    (void)state;
    assert_true(isinf(table->seconds_left(table)));
    table->progress(table, "steps", 1, 2);
    assert_null(table->service(table, "fairway.nothing/1"));
    assert_null(table->device);
    const struct plugin_choice unbound = {.kind = FW_DEVICE, .name = "cpu"};
    assert_fails(host_open_device(host, &unbound, &error), FW_E_INTERNAL, &error, "not bound");
}

static fw_status instantiate(uint32_t kind, const char *id, const fw_setting *settings, uint32_t n,
                             fw_instance *instance) {
    return table->instantiate(table, kind, id, settings, n, instance, &error);
}

/* With the real compressor `store`. */
static void instances(void **state) {
    (void)state;
    fw_instance instance = {.struct_size = sizeof instance};
    assert_ok(instantiate(FW_COMPRESSOR, "store", NULL, 0, &instance), &error);
    const fw_compressor *compressor = instance.vtable;
    uint8_t data[] = {1, 2, 3};
    const fw_stream stream = {.struct_size = sizeof stream,
                              .kind = FW_STREAM_OTHER,
                              .dtype = FW_U8,
                              .rows = 1,
                              .columns = 3,
                              .data = data};
    assert_true(compressor->bound(instance.self, &stream, 1) >= 3);
    table->release_instance(table, &instance);
    assert_null(instance.self);
    table->release_instance(table, &instance);

    const fw_setting wrong = {"zebra", "1"};
    assert_fails(instantiate(FW_COMPRESSOR, "store", &wrong, 1, &instance), FW_E_CONFIG, &error,
                 "compressor store has no key 'zebra'");
    assert_fails(instantiate(FW_COMPRESSOR, "absent", NULL, 0, &instance), FW_E_NOT_FOUND, &error,
                 "absent");
    assert_fails(instantiate(FW_CACHE, "none", NULL, 0, &instance), FW_E_UNSUPPORTED, &error,
                 "cache");
    assert_null(instance.vtable);
}

static void count_entry(void *argument, const struct registry_entry *entry) {
    int *n = argument;
    assert_string_equal(entry->plugin->id, "store");
    ++*n;
}

/* Once each, and only what was offered. */
static void instances_are_remembered(void **state) {
    (void)state;
    struct host *own = NULL;
    const struct host_options options = {.registry = registry};
    assert_ok(host_create(&options, &own, &error), &error);
    const fw_host *services = host_table(own);
    int n = 0;
    host_each_instantiated(own, count_entry, &n);
    assert_int_equal(n, 0);
    for (int i = 0; i < 2; i++) {
        fw_instance instance = {.struct_size = sizeof instance};
        assert_ok(
            services->instantiate(services, FW_COMPRESSOR, "store", NULL, 0, &instance, &error),
            &error);
        services->release_instance(services, &instance);
    }
    host_each_instantiated(own, count_entry, &n);
    assert_int_equal(n, 1);
    host_destroy(own);
}

/* An instance whose allocator knows fewer fields is not written beyond them. */
static void short_instances_are_refused(void **state) {
    (void)state;
    fw_instance instance = {.struct_size = offsetof(fw_instance, self)};
    const fw_instance before = instance;
    assert_fails(instantiate(FW_COMPRESSOR, "store", NULL, 0, &instance), FW_E_ARGUMENT, &error,
                 "struct_size");
    assert_memory_equal(&instance, &before, sizeof instance);
}

/* ---- devices that are not whole ---- */

static fw_device half_device;
static int n_counted, n_destroyed;

static fw_status half_count(uint32_t *n, fw_error *why) {
    n_counted++;
    (void)fw_fail(why, FW_OK, "the driver is asleep");
    *n = half_device.struct_size > 0;
    return FW_OK;
}
static fw_status half_create(const fw_host *services, const fw_value *values, int32_t ordinal,
                             fw_device **device, fw_error *why) {
    (void)services, (void)values, (void)ordinal, (void)why;
    *device = &half_device;
    return FW_OK;
}
static void half_destroy(fw_device *device) {
    assert_ptr_equal(device, &half_device);
    n_destroyed++;
}
static const fw_device_driver half_driver = {.struct_size = sizeof half_driver,
                                             .count = half_count,
                                             .create = half_create,
                                             .destroy = half_destroy};

/* The device of `count` and `create` above, as it stands in half_device. */
static fw_status open_half(void) {
    static const fw_plugin plugin = {
        .struct_size = sizeof plugin, .kind = FW_DEVICE, .id = "half", .vtable = &half_driver};
    static const struct registry_entry entry = {.plugin = &plugin};
    const struct plugin_choice choice = {.kind = FW_DEVICE, .name = "half", .entry = &entry};
    return host_open_device(host, &choice, &error);
}

static fw_status no_copy(fw_device *device, void *to, const void *from, size_t n, fw_error *why) {
    (void)device, (void)to, (void)from, (void)n;
    return fw_fail(why, FW_E_INTERNAL, "never called");
}
static fw_status no_allocate(fw_device *device, size_t n, void **bytes, fw_error *why) {
    (void)device, (void)n, (void)bytes;
    return fw_fail(why, FW_E_INTERNAL, "never called");
}
static void no_release(fw_device *device, void *bytes) { (void)device, (void)bytes; }
static fw_status no_wait(fw_device *device, fw_error *why) {
    (void)device;
    return fw_fail(why, FW_E_INTERNAL, "never called");
}
static fw_status no_zero(fw_device *device, void *bytes, size_t n, fw_error *why) {
    (void)device, (void)bytes, (void)n;
    return fw_fail(why, FW_E_INTERNAL, "never called");
}

static void half_devices(void **state) {
    (void)state;
    half_device = (fw_device){.struct_size = 0};
    assert_fails(open_half(), FW_E_NOT_FOUND, &error, "no half device: the driver is asleep",
                 "run.device = auto");
    assert_int_equal(n_counted, 1);
    half_device.struct_size = offsetof(fw_device, ops);
    assert_fails(open_half(), FW_E_UNSUPPORTED, &error, "device half", "bytes");
    half_device = (fw_device){.struct_size = sizeof half_device,
                              .compute_dtype = FW_F32,
                              .allocate = no_allocate,
                              .release = no_release,
                              .copy_from_host = no_copy,
                              .copy_to_host = no_copy,
                              .copy = no_copy,
                              .zero = no_zero};
    assert_fails(open_half(), FW_E_UNSUPPORTED, &error, "synchronize");
    half_device.synchronize = no_wait;
    assert_fails(open_half(), FW_E_UNSUPPORTED, &error, "no ops");
    assert_int_equal(n_destroyed, 3);
    assert_null(table->device);
}

struct noted {
    size_t n;
    double sum;
};

static void add_effect(void *argument, const char *name, double size) {
    struct noted *noted = argument;
    assert_true(strlen(name) < 64);
    noted->n++;
    noted->sum += size;
}

/* However many a plugin states, the host does not grow without end: a name is what is kept of it,
 * and there is an end to names. */
static void effects(void **state) {
    (void)state;
    char name[200];
    struct noted noted = {0};
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 3; i++) table->effect(table, name, i);
    name[63] = '\0';
    table->effect(table, name, 3);
    host_each_effect(host, add_effect, &noted);
    assert_true(noted.n == 1 && noted.sum == 3);
    for (int i = 0; i < 100000; i++) {
        (void)snprintf(name, sizeof name, "effect_%d", i);
        table->effect(table, name, 0);
    }
    noted.n = 0;
    host_each_effect(host, add_effect, &noted);
    assert_int_equal(noted.n, 256);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once),
        cmocka_unit_test(seeds),
        cmocka_unit_test(memory),
        cmocka_unit_test(defaults),
        cmocka_unit_test(instances),
        cmocka_unit_test(instances_are_remembered),
        cmocka_unit_test(short_instances_are_refused),
        cmocka_unit_test(half_devices),
        cmocka_unit_test(effects),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
