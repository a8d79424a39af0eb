/* Reading INI files: syntax, locations, suggestions, bases, overrides, hostile bytes. */
#include "config.h"
#include "workspace.h"

static fw_error error = {.struct_size = sizeof error};

static fw_status load_with(const char *path, const char *const *overrides, size_t n,
                           struct config **config) {
    *config = NULL;
    return config_load(path, NULL, overrides, n, config, &error);
}

/* Write x.ini and load it. */
static fw_status load(const char *text, struct config **config) {
    write_text("x.ini", text);
    return load_with("x.ini", NULL, 0, config);
}

#define refused(text, ...)                                                                         \
    do {                                                                                           \
        struct config *config_;                                                                    \
        assert_fails(load(text, &config_), FW_E_CONFIG, &error, __VA_ARGS__);                      \
        assert_null(config_);                                                                      \
    } while (0)

#define override_refused(text, ...)                                                                \
    do {                                                                                           \
        struct config *config_;                                                                    \
        const char *const list_[] = {text};                                                        \
        write_text("x.ini", "[run]\nsteps = 1\n");                                                 \
        assert_fails(load_with("x.ini", list_, 1, &config_), FW_E_CONFIG, &error, "command line",  \
                     __VA_ARGS__);                                                                 \
        assert_null(config_);                                                                      \
    } while (0)

static void assert_where(const char *text, const char *section, const char *key,
                         const char *expected) {
    struct config *config;
    assert_ok(load(text, &config), &error);
    assert_string_equal(config_where(config, section, key), expected);
    config_destroy(config);
}

static void locations(void **state) {
    (void)state;
    static const char text[] = "; comment\n# another\n\n[run]\n  steps = 5 ; inline\n\n[model]\n"
                               "layers=2\nwidth: 64\n[optimizer.matrix]\nmomentum = 0.9\n"
                               "[attention.0-1,3]\nheads = 2";
    assert_where(text, "run", "steps", "x.ini:5");
    assert_where(text, "model", "layers", "x.ini:8");
    assert_where(text, "model", "width", "x.ini:9");
    assert_where(text, "optimizer.matrix", "momentum", "x.ini:11");
    assert_where(text, "attention.1", "heads", "x.ini:13");
    assert_where(text, "attention.3", "heads", "x.ini:13");
    assert_where(text, "attention.2", "heads", "default");
    assert_where(text, "eval", "stride", "default");
    assert_where("\xef\xbb\xbf[run]\r\nsteps = 5\r\n", "run", "steps", "x.ini:2");
    assert_where("", "run", "steps", "default");
    assert_where("[run]\n[model]\nlayers = 1", "model", "layers", "x.ini:3");
}

static void syntax(void **state) {
    (void)state;
    refused("[run]\nsteps 5\n", "x.ini:2: expected [section]");
    refused("[run\nsteps = 5\n", "x.ini:1: expected");
    refused("steps = 5\n", "x.ini:1: 'steps' stands before the first [section]");
    refused("[run]\nsteps = 5\n\nsteps = 6\n", "x.ini:4: [run] steps is already set at x.ini:2");
    refused("[run] steps = 5\n", "x.ini:1", "nothing but a comment");
    refused("[run]\ngarbage\nstepss = 5\n", "x.ini:2"); /* the first error is reported */
    refused("[run]\nstepss = 5\ngarbage\n", "x.ini:2");
}

static void unknown_names(void **state) {
    (void)state;
    refused("[run]\nstesp = 5\n", "x.ini:2: [run] has no key 'stesp'; did you mean 'steps'?");
    refused("[run]\nwidth = 5\n", "x.ini:2", "belongs to [model]");
    refused("[model]\nzebra = 5\n", "x.ini:2", "'zebra'", "--reference");
    refused("[modle]\nwidth = 5\n", "x.ini:1: there is no section [modle]; did you mean [model]?");
    refused("[optimiser.matrix]\n", "x.ini:1", "did you mean [optimizer.matrix]?");
    refused("[zebra]\n", "x.ini:1", "known are run, data");
    refused("[Run]\nsteps = 5\n", "x.ini:1", "did you mean [run]?");
    refused("[run]\nSteps = 5\n", "x.ini:2", "did you mean 'steps'?");
    refused("[device]\nplugin = cpu\n", "x.ini:2", "set device in [run]");
}

static void layers(void **state) {
    (void)state;
    refused("[attention.]\n", "x.ini:1", "does not name layers");
    refused("[attention.x]\n", "x.ini:1");
    refused("[attention.3-1]\n", "x.ini:1");
    refused("[attention.0-]\n", "x.ini:1");
    refused("[attention.0,]\n", "x.ini:1");
    refused("[attention.256]\n", "x.ini:1", "below 256");
    refused("[attention.99999999999999999999]\n", "x.ini:1", "below 256");
    refused("[attention.0-2,1]\n", "x.ini:1", "layer 1 twice");
    refused("[attention.0-6]\nheads = 2\n[attention.6]\nheads = 4\n",
            "x.ini:4: [attention.6] heads is already set at x.ini:2");
    assert_where("[attention.0-6]\nheads = 2\n[attention.6]\nwindow = 4\n", "attention.6", "window",
                 "x.ini:4");
}

static void hostile_files(void **state) {
    (void)state;
    struct config *config;
    assert_fails(load_with("absent.ini", NULL, 0, &config), FW_E_IO, &error, "absent.ini");
    assert_fails(load_with("/tmp", NULL, 0, &config), FW_E_IO, &error, "/tmp");
    write_bytes("x.ini", "[run]\nsteps = \0\x01", 16);
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_FORMAT, &error, "x.ini:2", "0x00");
    static char big[1 << 21];
    memset(big, ';', sizeof big);
    write_bytes("x.ini", big, sizeof big);
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_LIMIT, &error, "x.ini");
    write_bytes("x.ini", big, 1 << 18);
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_LIMIT, &error, "x.ini:1", "262144");
    assert_null(config);
}

/* Whatever the bytes, there is an answer and no crash. */
static void random_bytes(void **state) {
    (void)state;
    test_random random = {.state = 7};
    static const char *const pieces[] = {
        "[run]", "[attention.", "0-3]",   "\n",      "=", "steps", "base",  "x.ini",
        ";",     "#",           " ",      "[",       "]", "\r\n",  "5",     "\xff",
        "\"",    ":",           "plugin", "[cache]", ",", "-",     "\x7f=", "[data]"};
    for (int round = 0; round < 3000; round++) {
        char text[400] = "";
        const uint64_t n = test_below(&random, 30);
        for (uint64_t i = 0; i < n; i++)
            strcat(text, pieces[test_below(&random, sizeof pieces / sizeof pieces[0])]);
        struct config *config = NULL;
        error.message[0] = '\0';
        if (config_load("x.ini", text, NULL, 0, &config, &error) != FW_OK)
            assert_true(error.message[0] != '\0');
        config_destroy(config);
    }
}

static void bases(void **state) {
    (void)state;
    struct config *config;
    assert_int_equal(system("mkdir -p deep"), 0);
    write_text("deep/base.ini", "[run]\nsteps = 7\nseed = 1\n[model]\nwidth = 64\n");
    write_text("middle.ini", "[run]\nbase = deep/base.ini\nseed = 2\n");
    write_text("x.ini", "[model]\nlayers = 2\n[run]\nbase = middle.ini\n");
    assert_ok(load_with("x.ini", NULL, 0, &config), &error);
    assert_string_equal(config_where(config, "run", "steps"), "deep/base.ini:2");
    assert_string_equal(config_where(config, "run", "seed"), "middle.ini:3");
    assert_string_equal(config_where(config, "model", "layers"), "x.ini:2");
    assert_string_equal(config_where(config, "run", "base"), "default");
    config_destroy(config);
    write_text("deep/base.ini", "[run]\nstepss = 7\n");
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_CONFIG, &error, "deep/base.ini:2");
    write_text("deep/base.ini", "[run]\nbase = ../x.ini\n");
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_CONFIG, &error, "deep/base.ini:2",
                 "leads back to x.ini");
    refused("[run]\nbase = x.ini\n", "x.ini:2", "leads back to x.ini");
    refused("[run]\nbase = a\nbase = b\n", "x.ini:3: [run] base is already set at x.ini:2");
    refused("[run]\nbase =\n", "x.ini:2", "no value");
    write_text("x.ini", "\n\n[run]\nbase = gone.ini\n");
    assert_fails(load_with("x.ini", NULL, 0, &config), FW_E_IO, &error, "x.ini:4", "gone.ini");
    assert_null(config);
}

static void overrides(void **state) {
    (void)state;
    struct config *config;
    static const char *const list[] = {"run.steps=9", "optimizer.matrix.momentum = 0.5",
                                       "attention.0-1.heads=2", "run.steps=10", "data.train="};
    write_text("x.ini", "[run]\nsteps = 1\n");
    assert_ok(load_with("x.ini", list, 5, &config), &error);
    assert_string_equal(config_where(config, "run", "steps"), "command line");
    assert_string_equal(config_where(config, "optimizer.matrix", "momentum"), "command line");
    assert_string_equal(config_where(config, "attention.1", "heads"), "command line");
    config_destroy(config);
    override_refused("run.steps", "SECTION.KEY=VALUE");
    override_refused("=5", "SECTION.KEY=VALUE");
    override_refused("run.=5", "SECTION.KEY=VALUE");
    override_refused(".steps=5", "SECTION.KEY=VALUE");
    override_refused("steps=5", "did you mean run.steps?");
    override_refused("run.stesp=5", "did you mean 'steps'?");
    override_refused("runn.steps=5", "did you mean [run]?");
    override_refused("run.base=y.ini", "only be set in a file");
    override_refused("run.name=a ;b", "';'");
    override_refused("run.name=a\nb", "one line");
    override_refused("attention.5-2.heads=5", "does not name layers");
}

#define in_workspace(test)                                                                         \
    cmocka_unit_test_setup_teardown(test, workspace_setup, workspace_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        in_workspace(locations), in_workspace(syntax),        in_workspace(unknown_names),
        in_workspace(layers),    in_workspace(hostile_files), in_workspace(random_bytes),
        in_workspace(bases),     in_workspace(overrides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
