/* The configuration in an artifact: what is written, and that reading one from a stranger opens no
 * file, loads no module and allocates no model that the file cannot hold. */
#include <sys/stat.h>
#include <unistd.h>

#include "scorer.h"
#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};
static struct registry *registry;

static int setup(void **state) {
    static const char *const directories[] = {TEST_STAND_INS};
    if (workspace_setup(state) != 0) return -1;
    assert_ok(registry_create(directories, 1, &registry, &error), &error);
    return 0;
}

static int teardown(void **state) {
    registry_destroy(registry);
    return workspace_teardown(state);
}

static struct config *resolve(const char *text, const char *override, uint32_t kinds) {
    struct config *config = NULL;
    const struct experiment *experiment = NULL;
    assert_ok(config_load("x.ini", text, &override, override != NULL, &config, &error), &error);
    assert_ok(config_resolve(config, registry, kinds, &experiment, &error), &error);
    return config;
}

#define INI                                                                                        \
    "[run]\nsteps = 5\n[data]\ntrain = text:secret.txt\nsequence = 256\n"                          \
    "[eval]\nmax_tokens = 77\nladder_tokens = 88\nstride = 32\n[attention.1]\nlevel = 7\n"

static void what_travels(void **state) {
    (void)state;
    struct config *config =
        resolve(INI, "cache.plugin=" TEST_STAND_INS "/cache-none.so", CONFIG_BIND_ALL);
    char *text = NULL, *again = NULL;
    assert_ok(config_artifact_text(config, &text, &error), &error);
    static const char *const present[] = {"[data]\nsequence = 256\n\n[model]\nlayers = 4\n",
                                          "stride = 32\n",
                                          "[attention]\n",
                                          "[attention.1]\nplugin = gqa\nlevel = 7\n",
                                          "[quantize]\n",
                                          "[compress]\n",
                                          "[cache]\nplugin = none\n"};
    static const char *const absent[] = {"[run]",     "secret",      "max_tokens", "ladder_tokens",
                                         "tokenizer", "[optimizer.", "[average]",  "/"};
    for (size_t i = 0; i < sizeof present / sizeof present[0]; i++)
        assert_non_null(strstr(text, present[i]));
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        assert_null(strstr(text, absent[i]));
    assert_ok(config_check_artifact("m.fairway", text, &error), &error);
    struct config *read = resolve(text, NULL, SCORER_KINDS);
    assert_ok(config_check_artifact_paths(read, &error), &error);
    assert_ok(config_artifact_text(read, &again, &error), &error);
    assert_string_equal(text, again);
    free(text);
    free(again);
    config_destroy(read);
    config_destroy(config);
}

static void paths_do_not_travel(void **state) {
    (void)state;
    struct config *config = resolve(INI "[cache]\nfile = f\n", NULL, CONFIG_BIND_ALL);
    char *text = NULL;
    assert_fails(config_artifact_text(config, &text, &error), FW_E_CONFIG, &error, "[cache] file",
                 "is a path");
    assert_null(text);
    config_destroy(config);
    config = resolve("[cache]\nfile = /etc/passwd\n", NULL, SCORER_KINDS);
    assert_fails(config_check_artifact_paths(config, &error), FW_E_FORMAT, &error,
                 "[cache] file the path /etc/passwd");
    config_destroy(config);
    config = resolve("[attention]\nfile = x\n", NULL, SCORER_KINDS);
    assert_fails(config_check_artifact_paths(config, &error), FW_E_FORMAT, &error,
                 "[attention] file");
    config_destroy(config);
    config = resolve("[cache]\nlevel = 4\n", "cache.file=/mine", SCORER_KINDS);
    assert_ok(config_check_artifact_paths(config, &error), &error);
    config_destroy(config);
}

/* What a run passes on to the scorer, so that it finds the modules that the INI named by path. */
static void overrides_for_paths(void **state) {
    (void)state;
    struct config *config =
        resolve("[run]\nsteps = 5\n[cache]\nplugin = " TEST_STAND_INS "/cache-none.so\n"
                "[attention.2]\nplugin = " TEST_STAND_INS "/attention-xsa.so\n"
                "[average]\nplugin = " TEST_STAND_INS "/averager-ema.so\n",
                NULL, CONFIG_BIND_ALL);
    const char *list[4] = {"run.threads=1"};
    size_t n = 1;
    assert_ok(config_plugin_overrides(config, list, &n, 4, &error), &error);
    assert_int_equal(n, 3);
    assert_string_equal(list[0], "run.threads=1");
    assert_string_equal(list[1], "cache.plugin=" TEST_STAND_INS "/cache-none.so");
    assert_string_equal(list[2], "attention.2.plugin=" TEST_STAND_INS "/attention-xsa.so");
    n = 3;
    assert_fails(config_plugin_overrides(config, list, &n, 4, &error), FW_E_LIMIT, &error, "4");
    config_destroy(config);
}

/* ---- files from a stranger ---- */

static void write_artifact(const char *text) {
    struct artifact artifact = {.n_streams = 1, .payload_bytes = 10};
    artifact.config = strdup(text);
    artifact.streams = calloc(1, sizeof *artifact.streams);
    artifact.payload = calloc(1, artifact.payload_bytes);
    artifact.table = calloc(1, sizeof *artifact.table);
    assert_true(artifact.config != NULL && artifact.streams != NULL && artifact.payload != NULL &&
                artifact.table != NULL);
    artifact.streams[0] =
        (fw_stream){.struct_size = sizeof(fw_stream), .dtype = FW_I8, .rows = 100, .columns = 100};
    artifact.table->vocabulary = 256;
    artifact.table->tokens = calloc(256, sizeof *artifact.table->tokens);
    assert_non_null(artifact.table->tokens);
    for (int i = 0; i < 256; i++)
        artifact.table->tokens[i] = (fw_token_info){sizeof(fw_token_info), 1, 0, 0};
    assert_ok(artifact_write("evil.fairway", &artifact, &error), &error);
    artifact_free(&artifact);
}

static fw_status open_it(const char *text) {
    static const struct arguments none;
    struct scorer scorer;
    write_artifact(text);
    (void)alarm(20); /* a FIFO would be waited for until then */
    const fw_status status = scorer_open(&none, "evil.fairway", &scorer, &error);
    (void)alarm(0);
    if (status == FW_OK) scorer_close(&scorer);
    return status;
}

#define hostile(text, ...)                                                                         \
    assert_fails(open_it(text), FW_E_FORMAT, &error, "evil.fairway", __VA_ARGS__)

static bool is_mapped(const char *part) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4096];
    bool found = false;
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        found = found || strstr(line, part) != NULL;
    if (maps != NULL) (void)fclose(maps);
    return found;
}

static void no_module_is_loaded(void **state) {
    (void)state;
    assert_false(is_mapped("compressor-lzma.so"));
    hostile("[compress]\nplugin = " TEST_STAND_INS "/compressor-lzma.so\n", "[compress]",
            "by the path", "only --set");
    hostile("[attention.0-1]\nplugin = ./attention-gqa.so\n", "[attention.0]", "by the path");
    hostile("[run]\ndevice = " TEST_STAND_INS "/device-cpu.so\n", "[run] device");
    hostile("[tokenizer]\nplugin = bytes\n", "[tokenizer] plugin");
    assert_false(is_mapped("compressor-lzma.so"));
}

static void no_file_is_opened(void **state) {
    (void)state;
    assert_int_equal(mkfifo("pipe.ini", 0600), 0);
    hostile("[run]\nbase = pipe.ini\n", "evil.fairway:2", "base");
    hostile("[data]\ntrain = text:pipe.ini\n", "[data] train");
}

static void nothing_else_is_set(void **state) {
    (void)state;
    hostile("[run]\nthreads = 4096\n", "[run] threads");
    hostile("[eval]\nmax_tokens = 10\n", "[eval] max_tokens");
    hostile("[device]\nthreads = 1000\n", "[device] threads");
    hostile("[modle]\nwidth = 5\n", "evil.fairway:1", "modle");
    hostile("no section", "evil.fairway:1");
}

static void no_model_beyond_the_file(void **state) {
    (void)state;
    hostile("[attention]\nheads = 128\n"
            "[model]\nwidth = 65536\nlayers = 256\nmlp_width = 1048576\n",
            "more than 2^40");
    /* Large in one part alone: attention, the pairs' projection, the value embedding. */
    hostile("[model]\nwidth = 2048\nlayers = 1\nmlp_width = 1\n", "parameters",
            "streams hold 10000 bytes");
#define NARROW                                                                                     \
    "[attention]\nheads = 2\nkv_heads = 1\nrope_dims = 4\n"                                        \
    "[model]\nwidth = 16\nlayers = 1\nmlp_width = 1\n"
    hostile(NARROW "bigram_slots = 2\nbigram_width = 65536\n", "parameters",
            "streams hold 10000 bytes");
    hostile(NARROW "value_layers = 0\nvalue_width = 65536\n", "parameters",
            "streams hold 10000 bytes");
    hostile(NARROW, "stream");
}

#define in_workspace(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_workspace(what_travels),        in_workspace(paths_do_not_travel),
        in_workspace(overrides_for_paths), in_workspace(no_file_is_opened),
        in_workspace(nothing_else_is_set), in_workspace(no_model_beyond_the_file),
    };
    const struct CMUnitTest first[] = {in_workspace(no_module_is_loaded)};
    return cmocka_run_group_tests(first, NULL, NULL) + cmocka_run_group_tests(tests, NULL, NULL);
}
