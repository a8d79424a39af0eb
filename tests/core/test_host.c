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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_index_once), cmocka_unit_test(seeds),     cmocka_unit_test(memory),
        cmocka_unit_test(defaults),         cmocka_unit_test(instances),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
