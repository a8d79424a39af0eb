/* The registry against modules that are wrong, old or new in one way each (modules/). */
#include "registry.h"

#include <sys/stat.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "params.h"
#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};
static struct registry *registry;

static int open_registry(void **state) {
    (void)state;
    static const char *const directories[] = {TEST_MODULES};
    (void)unsetenv("FAIRWAY_PLUGIN_PATH");
    (void)setenv("HOME", "/nonexistent", 1);
    assert_ok(registry_create(directories, 1, &registry, &error), &error);
    return 0;
}

static int close_registry(void **state) {
    (void)state;
    registry_destroy(registry);
    registry = NULL;
    return 0;
}

static const struct registry_entry *found(uint32_t kind, const char *name) {
    const struct registry_entry *entry = NULL;
    assert_ok(registry_find(registry, kind, name, &entry, &error), &error);
    return entry;
}

#define refused(name, status, ...)                                                                 \
    do {                                                                                           \
        const struct registry_entry *entry_ = NULL;                                                \
        assert_fails(registry_find(registry, FW_CACHE, name, &entry_, &error), status, &error,     \
                     __VA_ARGS__);                                                                 \
        assert_null(entry_);                                                                       \
    } while (0)

static void not_a_module(void **state) {
    (void)state;
    const struct registry_entry *entry = NULL;
    assert_fails(registry_find(registry, FW_COMPRESSOR, "foreign", &entry, &error), FW_E_ABI,
                 &error, "compressor-foreign.so", "fairway_module_v0");
    refused("magic", FW_E_ABI, "magic", "0059415752494147", "0059415752494146");
    refused("pointer", FW_E_ABI, "pointers of 4 bytes", "8");
}

static void needs_a_newer_host(void **state) {
    (void)state;
    char own[32];
    (void)snprintf(own, sizeof own, "this host has %d.%d", FW_ABI_MAJOR, FW_ABI_MINOR);
    refused("newer", FW_E_ABI, "0.999", own);
}

static void wrong_descriptions(void **state) {
    (void)state;
    refused("mislabeled", FW_E_NOT_FOUND, "no cache mislabeled", "cache othername");
    refused("kind", FW_E_ABI, "unknown kind 99");
    refused("id", FW_E_ABI, "'../Id'");
    refused("params", FW_E_ABI, "cache params", "order = 12 is out of range: 1 to 9 tokens");
    refused("incomplete", FW_E_ABI, "predict()");
    refused("short", FW_E_ABI, "ends before update()");
}

static void older_modules_load(void **state) {
    (void)state;
    const fw_plugin *plugin = found(FW_CACHE, "older")->plugin;
    assert_string_equal(plugin->id, "older");
    const fw_cache *cache = plugin->vtable;
    assert_false(FW_HAS(cache, snapshot));
    assert_false(FW_HAS(plugin, extension));
    assert_true(FW_HAS(cache, update));
}

static void newer_modules_load(void **state) {
    (void)state;
    const fw_plugin *plugin = found(FW_CACHE, "longer")->plugin;
    assert_string_equal(param_at(plugin->params, 1)->key, "fold");
    assert_int_equal(param_at(plugin->params, 0)->type, FW_PARAM_INT);
}

static void lists_every_path(void **state) {
    (void)state;
    (void)setenv("FAIRWAY_PLUGIN_PATH", "/no/such/place::/nor/this", 1);
    (void)setenv("HOME", "/home/nobody", 1);
    struct registry *other = NULL;
    assert_ok(registry_create(NULL, 0, &other, &error), &error);
    const struct registry_entry *entry = NULL;
    assert_fails(registry_find(other, FW_CACHE, "ngramm", &entry, &error), FW_E_NOT_FOUND, &error,
                 "no cache plugin 'ngramm'", "/no/such/place/cache-ngramm.so: no such file",
                 "/nor/this/cache-ngramm.so", "/home/nobody/.local/lib/fairway/v0/cache-ngramm.so");
    registry_destroy(other);
    const struct registry_entry *none = NULL;
    assert_fails(registry_find(registry, FW_CACHE, "severel", &none, &error), FW_E_NOT_FOUND,
                 &error, "did you mean 'several'?", TEST_MODULES "/cache-severel.so");
}

static void names_and_paths(void **state) {
    (void)state;
    refused("Not An Id", FW_E_CONFIG, "Not An Id", "lower case");
    refused("", FW_E_CONFIG, "path");
    refused("./cache-several.so", FW_E_CONFIG, "not absolute");
    refused("/no/such/file.so", FW_E_NOT_FOUND, "/no/such/file.so: no such file");
    refused("/etc/passwd", FW_E_IO, "/etc/passwd: cannot be loaded");
    refused("/tmp", FW_E_IO, "/tmp");
    refused(TEST_MODULES "/cache-several.so", FW_E_CONFIG, ":ID", "cache alpha");
    refused(TEST_MODULES "/cache-several.so:gamma", FW_E_NOT_FOUND, "cache gamma", "cache several");
    assert_string_equal(found(FW_CACHE, TEST_MODULES "/cache-several.so:alpha")->plugin->id,
                        "alpha");
    assert_string_equal(found(FW_CACHE, TEST_MODULES "/cache-longer.so")->plugin->id, "longer");
    const struct registry_entry *entry = NULL;
    assert_fails(
        registry_find(registry, FW_COMPRESSOR, TEST_MODULES "/cache-longer.so", &entry, &error),
        FW_E_NOT_FOUND, &error, "no compressor", "cache longer");
}

/* Found twice is loaded once; the path is absolute and the hash is the file's. */
static void entries_are_shared(void **state) {
    (void)state;
    const struct registry_entry *entry = found(FW_CACHE, "several");
    assert_ptr_equal(entry, found(FW_CACHE, TEST_MODULES "/cache-several.so:several"));
    assert_int_equal(entry->path[0], '/');
    uint8_t zero[32] = {0};
    assert_memory_not_equal(entry->sha256, zero, 32);
}

static size_t n_broken;
static void count_broken(void *argument, const char *path, const char *why) {
    assert_ptr_equal(argument, &n_broken);
    assert_int_equal(path[0], '/');
    assert_true(strlen(why) > 10);
    n_broken++;
}

/* The library's constructor runs only once in a process, so the refusal must be remembered. */
static void refuse_floating_point(void) {
#if defined(__SSE__)
    const unsigned before = _mm_getcsr();
    refused("mxcsr", FW_E_ABI, "floating-point environment", "-ffast-math");
    assert_int_equal(_mm_getcsr() & 0xffc0, before & 0xffc0);
    refused("mxcsr", FW_E_ABI, "floating-point environment");
#endif
}

static void scan(void **state) {
    (void)state;
    refuse_floating_point();
    n_broken = 0;
    assert_ok(registry_scan(registry, count_broken, &n_broken, &error), &error);
#if defined(__SSE__)
    assert_int_equal(n_broken, 10);
#endif
    size_t ours = 0;
    for (size_t i = 0; i < registry_count(registry); i++) {
        const struct registry_entry *entry = registry_get(registry, i);
        ours += strncmp(entry->path, TEST_MODULES "/", sizeof TEST_MODULES) == 0;
        if (i == 0) continue;
        const fw_plugin *a = registry_get(registry, i - 1)->plugin, *b = entry->plugin;
        assert_true(a->kind < b->kind || (a->kind == b->kind && strcmp(a->id, b->id) < 0));
    }
    assert_int_equal(ours, 5); /* alpha, longer, older, othername, several */
    assert_null(registry_get(registry, registry_count(registry)));
}

static void bad_directories(void **state) {
    (void)state;
    struct registry *other = NULL;
    const char *const missing[] = {"/no/such/directory"}, *const file[] = {"/etc/passwd"};
    assert_fails(registry_create(missing, 1, &other, &error), FW_E_NOT_FOUND, &error,
                 "/no/such/directory");
    assert_fails(registry_create(file, 1, &other, &error), FW_E_NOT_FOUND, &error,
                 "not a directory");
    (void)setenv("FAIRWAY_PLUGIN_PATH", "plugins", 1);
    assert_fails(registry_create(NULL, 0, &other, &error), FW_E_CONFIG, &error,
                 "FAIRWAY_PLUGIN_PATH", "absolute");
    assert_null(other);
}

/* A file of the right name in the working directory is never loaded. */
static void working_directory_is_not_searched(void **state) {
    (void)state;
    assert_int_equal(chdir(TEST_MODULES), 0);
    struct registry *other = NULL;
    assert_ok(registry_create(NULL, 0, &other, &error), &error);
    const struct registry_entry *entry = NULL;
    assert_int_equal(registry_find(other, FW_CACHE, "several", &entry, &error), FW_E_NOT_FOUND);
    registry_destroy(other);
}

static void kinds(void **state) {
    (void)state;
    assert_string_equal(kind_name(FW_ATTENTION), "attention");
    assert_string_equal(kind_name(77), "unknown");
    assert_int_equal(kind_from_name("tokenizer"), FW_TOKENIZER);
    assert_int_equal(kind_from_name("tokeniser"), 0);
}

#define with_registry(test) cmocka_unit_test_setup_teardown(test, open_registry, close_registry)

int main(void) {
    const struct CMUnitTest tests[] = {
        with_registry(not_a_module),
        with_registry(needs_a_newer_host),
        with_registry(wrong_descriptions),
        with_registry(older_modules_load),
        with_registry(newer_modules_load),
        with_registry(lists_every_path),
        with_registry(names_and_paths),
        with_registry(entries_are_shared),
        with_registry(scan),
        with_registry(bad_directories),
        with_registry(working_directory_is_not_searched),
        cmocka_unit_test(kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
