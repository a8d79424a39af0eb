/* Resolving: defaults, checks across keys, binding of plugins (stand-ins), canonical text, hash. */
#include "config.h"

#include <unistd.h>

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

static const struct experiment *resolve(const char *text, const char *const *overrides,
                                        struct config **config) {
    size_t n = 0;
    while (overrides != NULL && overrides[n] != NULL) n++;
    const struct experiment *experiment = NULL;
    assert_ok(config_load("x.ini", text, overrides, n, config, &error), &error);
    assert_ok(config_resolve(*config, registry, CONFIG_BIND_ALL, &experiment, &error), &error);
    return experiment;
}

static fw_status attempt(const char *text) {
    struct config *config = NULL;
    const struct experiment *experiment = NULL;
    fw_status status = config_load("x.ini", text, NULL, 0, &config, &error);
    if (status == FW_OK)
        status = config_resolve(config, registry, CONFIG_BIND_ALL, &experiment, &error);
    assert_true(status != FW_OK || experiment != NULL);
    config_destroy(config);
    return status;
}

#define refused(text, status, ...) assert_fails(attempt(text), status, &error, __VA_ARGS__)

#define STEPS "[run]\nsteps = 5\n"

static const char *here(void) {
    static char directory[256];
    assert_non_null(getcwd(directory, sizeof directory));
    return directory;
}

static void defaults(void **state) {
    (void)state;
    struct config *config;
    const struct experiment *e = resolve(STEPS, NULL, &config);
    assert_string_equal(e->run.name, "x");
    assert_string_equal(e->run.device, "cpu"); /* auto: the cuda stand-in counts no device */
    assert_int_equal(e->run.seed, 1337);
    assert_int_equal(e->run.steps, 5);
    assert_int_equal(e->run.batch_tokens, 8192);
    assert_true(e->run.gradient_clip == 0.3 && e->data.shuffle == SHUFFLE_SEQUENCES);
    assert_int_equal(e->run.size_limit, 16000000);
    assert_int_equal(e->model.layers, 4);
    assert_true(e->model.embedding_init == 0.005);
    assert_int_equal(e->eval.mode, EVAL_SLIDING);
    assert_int_equal(e->eval.on_violation, EVAL_VIOLATION_ERROR);
    assert_string_equal(e->data.train, "");
    assert_string_equal(e->optimizer[OPTIMIZER_MATRIX].name, "muon");
    assert_string_equal(e->optimizer[OPTIMIZER_SCALAR].section, "optimizer.scalar");
    assert_string_equal(e->cache.entry->plugin->id, "ngram");
    assert_int_equal(e->cache.values[0].integer, 3);
    for (int i = 0; i < 4; i++) assert_string_equal(e->attention[i].entry->plugin->id, "gqa");
    assert_int_equal(strlen(e->hash), 64);
    char expected[1100];
    (void)snprintf(expected, sizeof expected, "%s/runs/x", here());
    assert_string_equal(e->run.output, expected);
    config_destroy(config);
}

static void core_values(void **state) {
    (void)state;
    refused("[run]\nsteps = many\n", FW_E_CONFIG, "x.ini:2: [run] steps = many is not an integer");
    refused("[run]\nsteps = -1\n", FW_E_RANGE, "x.ini:2: [run] steps = -1", "0 to 2147483647");
    refused(STEPS "reproducible = yes\n", FW_E_CONFIG, "x.ini:3", "'reproducible'");
    refused(STEPS "seed = -1\n", FW_E_RANGE, "x.ini:3", "0 to 999999999999999");
    refused(STEPS "[model]\nlayers = 257\n", FW_E_RANGE, "x.ini:4", "1 to 256");
    refused(STEPS "[eval]\nmode = slide\n", FW_E_CONFIG, "x.ini:4", "plain|sliding");
    refused(STEPS "name = a/b\n", FW_E_CONFIG, "x.ini:3", "directory");
    refused("[run]\nsteps = 0\n", FW_E_CONFIG, "x.ini", "steps", "seconds");
    refused("[run]\nsteps =\n", FW_E_CONFIG, "x.ini:2", "no value");
    struct config *config;
    const struct experiment *e =
        resolve("[run]\nseconds = 1e2\nbatch_tokens = 64K\n[data]\nsequence = 1K\n", NULL, &config);
    assert_true(e->run.seconds == 100.0);
    assert_int_equal(e->run.batch_tokens, 64000);
    config_destroy(config);
}

/* Numbers whose products would not fit into 64 bits are refused by name. */
static void bounds(void **state) {
    (void)state;
    static const char *const counts[] = {
        "run.steps",          "run.batch_tokens",    "run.micro_batch", "run.warmup_steps",
        "run.warmdown_steps", "run.validate_every",  "run.log_every",   "run.size_limit",
        "data.sequence",      "data.hold_out_every", "model.layers",    "model.width",
        "model.mlp_width",    "eval.window",         "eval.stride",     "eval.batch",
        "eval.max_tokens",    "eval.ladder_tokens"};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char override[64];
        const char *const list[] = {override};
        struct config *config = NULL;
        const struct experiment *experiment = NULL;
        (void)snprintf(override, sizeof override, "%s=4611686018427387904", counts[i]);
        assert_ok(config_load("x.ini", STEPS, list, 1, &config, &error), &error);
        assert_fails(config_resolve(config, registry, CONFIG_BIND_ALL, &experiment, &error),
                     FW_E_RANGE, &error, "command line", strchr(counts[i], '.') + 1,
                     "= 4611686018427387904 is out of range");
        config_destroy(config);
    }
    refused(STEPS "[eval]\nbatch = 65536\nwindow = 32768\n", FW_E_RANGE, "x.ini:4",
            "eval.batch = 65536", "at most 65535");
}

static void cross_checks(void **state) {
    (void)state;
    refused(STEPS "batch_tokens = 1000\n", FW_E_CONFIG, "x.ini:3", "run.batch_tokens = 1000",
            "data.sequence = 512", "1024 would be");
    refused(STEPS "[data]\nsequence = 500\n", FW_E_CONFIG, "x.ini:4", "8192 (default)");
    refused(STEPS "[eval]\nstride = 600\n", FW_E_CONFIG, "x.ini:4", "window of 512",
            "data.sequence");
    refused(STEPS "[eval]\nwindow = 32\n", FW_E_CONFIG, "x.ini:4", "64 (default)", "eval.window");
    refused(STEPS "[attention.2-4]\nlevel = 2\n", FW_E_CONFIG, "x.ini:4", "layer 4", "0 to 3");
    refused(STEPS "[eval]\nmode = plain\nfaithful = yes\n", FW_E_CONFIG, "x.ini:5", "eval.faithful",
            "eval.mode = plain");
    struct config *config; /* without overlap the stride means nothing */
    (void)resolve(STEPS "[eval]\nmode = plain\nwindow = 32\n", NULL, &config);
    config_destroy(config);
}

/* What the model's switches need of each other. */
static void model_checks(void **state) {
    (void)state;
    refused(STEPS "[model]\nlayers = 1\nskips = yes\n", FW_E_CONFIG, "x.ini:5", "2 layers");
    refused(STEPS "[model]\nbigram_slots = 1\n", FW_E_CONFIG, "x.ini:4", "no slot for pairs");
    refused(STEPS "[model]\nbigram_slots = 9\nbigram_scale = 0\n", FW_E_CONFIG, "x.ini:5",
            "model.bigram_scale = 0", "neither would ever learn");
    refused(STEPS "[model]\nvalue_layers = 1\nvalue_scale = 0\nvalue_init = 0\n", FW_E_CONFIG,
            "x.ini:5", "model.value_scale = 0", "neither would ever learn");
    refused(STEPS "[model]\nvalue_layers = 2,9\n", FW_E_CONFIG, "x.ini:4", "names layer 9",
            "0 to 3");
    refused(STEPS "[model]\nvalue_layers = 1,1\n", FW_E_CONFIG, "x.ini:4", "layer 1 twice");
    refused(STEPS "[model]\nvalue_layers = last\n", FW_E_CONFIG, "x.ini:4", "does not name layers");
    struct config *config;
    const struct experiment *experiment =
        resolve(STEPS "[model]\nvalue_layers = 0,2-3\n", NULL, &config);
    assert_memory_equal(experiment->value_layers, "\1\0\1\1", 4);
    config_destroy(config);
}

static void plugin_keys(void **state) {
    (void)state;
    refused(STEPS "[cache]\nlevle = 3\n", FW_E_CONFIG,
            "x.ini:4: [cache] cache ngram has no key 'levle'; did you mean 'level'?");
    refused(STEPS "[cache]\nzebra = 3\n", FW_E_CONFIG, "x.ini:4", "it has level, rate, fold");
    refused(STEPS "[cache]\nlevel = 10\n", FW_E_RANGE, "x.ini:4: [cache] level = 10",
            "1 to 9 steps");
    refused(STEPS "[cache]\nshape = rond\n", FW_E_CONFIG, "x.ini:4", "did you mean 'round'?");
    refused(STEPS "[cache]\nplugin = ngrm\n", FW_E_NOT_FOUND, "x.ini:4: [cache]",
            "no cache plugin 'ngrm'; did you mean 'ngram'?", TEST_STAND_INS "/cache-ngrm.so");
    refused(STEPS "[cache]\nplugin = gqa\n", FW_E_NOT_FOUND, "x.ini:4", "there are 'ngram', ");
    refused(STEPS "[cache]\nplugin =\n", FW_E_CONFIG, "x.ini:4", "no value");
    refused(STEPS "[tokenizer]\nplugin = needy\n", FW_E_CONFIG, "x.ini:4", "needs the key 'model'");
    refused(STEPS "device = gpu\n", FW_E_NOT_FOUND, "x.ini:3: [device]", "'gpu'");
    refused(STEPS "[device]\nlevle = 3\n", FW_E_CONFIG, "x.ini:4", "device cpu has no key");
    refused(STEPS "[attention]\nplugin = gpu\n", FW_E_UNSUPPORTED, "x.ini:4",
            "attention gpu does not run on the device cpu");
    refused(STEPS "[attention.1]\nplugin = xsa\nextra = 5\n", FW_E_RANGE, "x.ini:5",
            "[attention.1] extra = 5");
    refused(STEPS "[cache]\nplugin = " TEST_STAND_INS "/tokenizer-bytes.so\n", FW_E_NOT_FOUND,
            "x.ini:4", "no cache", "tokenizer bytes");
}

static void layers(void **state) {
    (void)state;
    struct config *config;
    const struct experiment *e =
        resolve(STEPS "[attention]\nlevel = 5\n[attention.0-1]\nrate = 0.25\n"
                      "[attention.3]\nplugin = xsa\nextra = 4\n",
                NULL, &config);
    assert_int_equal(e->attention[0].values[0].integer, 5);
    assert_true(e->attention[1].values[1].real == 0.25);
    assert_true(e->attention[2].values[1].real == 0.5);
    assert_string_equal(e->attention[3].entry->plugin->id, "xsa");
    assert_int_equal(e->attention[3].values[0].integer, 5); /* kept although the plugin differs */
    assert_int_equal(e->attention[3].values[6].integer, 4);
    config_destroy(config);
}

static void paths(void **state) {
    (void)state;
    assert_int_equal(system("mkdir -p sub/deep"), 0);
    write_text("sub/deep/y.ini", STEPS "[data]\ntrain = a*.bin, text:../b/*.txt /c.bin\t"
                                       "jsonl:./d.jsonl list:../../e\n"
                                       "[cache]\nfile = f.bin\n[tokenizer]\nfile = /g\n");
    struct config *config;
    const struct experiment *e = NULL;
    static const char *const overrides[] = {"data.validation=text:v.txt", "compress.file=h",
                                            "run.output=o"};
    assert_ok(config_load("sub/deep/y.ini", NULL, overrides, 3, &config, &error), &error);
    assert_ok(config_resolve(config, registry, CONFIG_BIND_ALL, &e, &error), &error);
    char expected[4096];
    const char *d = here();
    (void)snprintf(expected, sizeof expected,
                   "%s/sub/deep/a*.bin text:%s/sub/b/*.txt /c.bin jsonl:%s/sub/deep/d.jsonl "
                   "list:%s/e",
                   d, d, d, d);
    assert_string_equal(e->data.train, expected);
    (void)snprintf(expected, sizeof expected, "text:%s/v.txt", d);
    assert_string_equal(e->data.validation, expected);
    (void)snprintf(expected, sizeof expected, "%s/sub/deep/f.bin", d);
    assert_string_equal(e->cache.values[5].text, expected);
    (void)snprintf(expected, sizeof expected, "%s/h", d);
    assert_string_equal(e->compress.values[5].text, expected);
    (void)snprintf(expected, sizeof expected, "%s/o", d);
    assert_string_equal(e->run.output, expected);
    assert_string_equal(e->tokenizer.values[5].text, "/g");
    assert_string_equal(e->run.name, "y");
    config_destroy(config);
    refused(STEPS "[data]\ntrain = text:\n", FW_E_CONFIG, "x.ini:4", "names no file");
    refused(STEPS "[data]\ntrain = a.bin, txt:foo\n", FW_E_CONFIG, "x.ini:4: [data]",
            "no source is called txt", "text:GLOB");
}

/* A plugin given by a path relative to the INI file. */
static void plugin_paths(void **state) {
    (void)state;
    assert_int_equal(symlink(TEST_STAND_INS, "modules"), 0);
    struct config *config;
    const struct experiment *e =
        resolve(STEPS "[cache]\nplugin = ./modules/cache-none.so:none\n", NULL, &config);
    assert_string_equal(e->cache.entry->plugin->id, "none");
    assert_int_equal(e->cache.name[0], '/');
    config_destroy(config);
}

static char *text_of(const struct config *config) {
    char *text = NULL;
    assert_ok(config_text(config, NULL, &text, &error), &error);
    return text;
}

static void round_trip(void **state) {
    (void)state;
    struct config *config, *again;
    const struct experiment *e =
        resolve(STEPS "seed = 42\n[data]\ntrain = text:a.txt b.bin\n[attention]\nlevel = 5\n"
                      "[attention.1]\nrate = 0.3333333333333333\n[attention.2]\nlevel = 5\n"
                      "[attention.3]\nplugin = xsa\n[cache]\nplugin = none\nnote = a  b, c = d\n"
                      "[device]\nlevel = 2\n",
                NULL, &config);
    char *text = text_of(config);
    assert_non_null(strstr(text, "[run]\nname = x\noutput = /"));
    assert_non_null(strstr(text, "device = cpu\nseed = 42\n"));
    assert_non_null(strstr(text, "[device]\nlevel = 2\nrate = 0.5\n"));
    assert_non_null(strstr(text, "[attention]\nplugin = gqa\nlevel = 5\n"));
    assert_non_null(strstr(text, "[attention.1]\nplugin = gqa\nlevel = 5\nrate = 0.333333"));
    assert_null(strstr(text, "[attention.2]")); /* no different from [attention] */
    assert_non_null(strstr(text, "[attention.3]\nplugin = xsa\nlevel = 5\n"));
    assert_non_null(strstr(text, "note = a  b, c = d\n"));
    assert_non_null(strstr(text, "on_violation = error\n"));
    const struct experiment *f = NULL;
    assert_int_equal(chdir("/"), 0); /* the text must not depend on where it is read */
    assert_ok(config_load("elsewhere.fw", text, NULL, 0, &again, &error), &error);
    assert_ok(config_resolve(again, registry, CONFIG_BIND_ALL, &f, &error), &error);
    char *second = text_of(again);
    assert_string_equal(text, second);
    assert_string_equal(e->hash, f->hash);
    free(text);
    free(second);
    config_destroy(config);
    config_destroy(again);
}

static void selected_sections(void **state) {
    (void)state;
    struct config *config;
    (void)resolve(STEPS "[attention.1]\nlevel = 2\n", NULL, &config);
    static const char *const sections[] = {"model", "attention", NULL};
    char *text = NULL;
    assert_ok(config_text(config, sections, &text, &error), &error);
    assert_int_equal(strncmp(text, "[model]\n", 8), 0);
    assert_non_null(strstr(text, "\n[attention]\n"));
    assert_non_null(strstr(text, "\n[attention.1]\n"));
    assert_null(strstr(text, "[run]"));
    free(text);
    config_destroy(config);
}

static void hash_of(const char *text, char hash[65]) {
    struct config *config;
    memcpy(hash, resolve(text, NULL, &config)->hash, 65);
    config_destroy(config);
}

/* Runs that differ in their seeds alone are one experiment. */
static void hashes_without_seeds(void **state) {
    (void)state;
    static const char *const texts[] = {"seed = 1\n", "seed = 2\n", "seed = 1\nseeds = 1, 2\n",
                                        "seed = 1\nlog_every = 7\n"};
    char whole[4][65], seedless[4][65];
    for (int i = 0; i < 4; i++) {
        char text[256];
        (void)snprintf(text, sizeof text, STEPS "%s", texts[i]);
        struct config *config = NULL;
        const struct experiment *e = resolve(text, NULL, &config);
        memcpy(whole[i], e->hash, 65);
        memcpy(seedless[i], e->seedless_hash, 65);
        config_destroy(config);
    }
    assert_string_not_equal(whole[0], whole[1]);
    assert_string_equal(seedless[0], seedless[1]);
    assert_string_equal(whole[0], whole[2]);
    assert_string_equal(seedless[0], seedless[2]);
    assert_string_not_equal(seedless[0], seedless[3]);
    assert_string_not_equal(whole[0], seedless[0]);
}

/* Folders do not count, names do. */
static void hashes_without_folders(void **state) {
    (void)state;
    char a[65], b[65], c[65], d[65], e[65];
    hash_of(STEPS "[data]\ntrain = text:/a/x*.txt s_*.bin\n[compress]\nfile = /a/f\n", a);
    hash_of(STEPS "[data]\ntrain = text:b/x*.txt /c/s_*.bin\n[compress]\nfile = ../f\n", b);
    hash_of(STEPS "[data]\ntrain = text:/a/y*.txt s_*.bin\n[compress]\nfile = /a/f\n", c);
    hash_of(STEPS "[data]\ntrain = jsonl:/a/x*.txt s_*.bin\n[compress]\nfile = /a/f\n", d);
    hash_of(STEPS "[data]\ntrain = text:/a/x*.txt s_*.bin\n[compress]\nfile = /a/g\n", e);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    assert_string_not_equal(a, d);
    assert_string_not_equal(a, e);
    hash_of(STEPS "[cache]\nplugin = none\n", a);
    hash_of(STEPS "[cache]\nplugin = " TEST_STAND_INS "/cache-none.so\n", b);
    hash_of(STEPS, c);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
}

/* Where to point when a plugin complains about what it was given. */
static void places(void **state) {
    (void)state;
    struct config *config;
    const struct experiment *e =
        resolve(STEPS "[cache]\nlevel = 4\nplugin = none\n[attention]\nlevel = 5\n"
                      "[attention.2]\nrate = 0.25\n",
                NULL, &config);
    assert_string_equal(e->cache.where, "x.ini:5");
    assert_string_equal(e->attention[0].where, "x.ini:7");
    assert_string_equal(e->attention[2].where, "x.ini:9");
    assert_string_equal(e->compress.where, "x.ini");
    assert_fails(choice_fail(&e->attention[2], FW_E_RANGE, "no.", &error), FW_E_RANGE, &error,
                 "x.ini:9: [attention.2] plugin gqa: no.");
    config_destroy(config);
    static const char *const overrides[] = {"cache.level=5", NULL};
    e = resolve(STEPS "[cache]\nlevel = 4\nplugin = none\n", overrides, &config);
    assert_string_equal(e->cache.where, "command line");
    config_destroy(config);
    write_text("base.ini", STEPS "[compress]\nplugin = lzma\nlevel = 4\nrate = 0.5\n");
    write_text("heir.ini", "[run]\nbase = base.ini\n[compress]\nrate = 1\n");
    assert_ok(config_load("heir.ini", NULL, NULL, 0, &config, &error), &error);
    assert_ok(config_resolve(config, registry, CONFIG_BIND_ALL, &e, &error), &error);
    assert_string_equal(e->compress.where, "heir.ini:4");
    config_destroy(config);
}

static void hashes(void **state) {
    (void)state;
    char plain[65], renamed[65], explicit[65], other[65];
    hash_of(STEPS, plain);
    hash_of(STEPS "name = other\noutput = /elsewhere\n", renamed);
    hash_of(STEPS "seed = 1337\n[cache]\nplugin = ngram\nlevel = 3\n", explicit);
    hash_of(STEPS "[cache]\nlevel = 4\n", other);
    assert_string_equal(plain, renamed);
    assert_string_equal(plain, explicit);
    assert_string_not_equal(plain, other);
}

/* Kinds that are not bound keep their keys unchecked, and their text survives. */
static void partial_binding(void **state) {
    (void)state;
    static const char text[] = "[tokenizer]\nplugin = gone\nanything = 7\n[cache]\nlevel = 4\n";
    struct config *config, *again;
    const struct experiment *e = NULL;
    const uint32_t kinds = CONFIG_BIND(FW_CACHE) | CONFIG_BIND(FW_DEVICE);
    assert_ok(config_load("x.ini", text, NULL, 0, &config, &error), &error);
    assert_ok(config_resolve(config, registry, kinds, &e, &error), &error);
    assert_null(e->tokenizer.entry);
    assert_null(e->attention[0].entry);
    assert_string_equal(e->tokenizer.name, "gone");
    assert_int_equal(e->cache.values[0].integer, 4);
    char *first = text_of(config);
    assert_non_null(strstr(first, "[tokenizer]\nplugin = gone\nanything = 7\n"));
    assert_ok(config_load("x.ini", first, NULL, 0, &again, &error), &error);
    assert_ok(config_resolve(again, registry, kinds, &e, &error), &error);
    char *second = text_of(again);
    assert_string_equal(first, second);
    free(first);
    free(second);
    config_destroy(config);
    config_destroy(again);
}

/* A counterpart is looked for only beside a cache that is unverified. */
static void counterparts(void **state) {
    (void)state;
    struct config *config;
    const struct experiment *e =
        resolve(STEPS "[counterpart]\nplugin = gone\nlevel = 7\n", NULL, &config);
    assert_false(choice_is_unverified(&e->cache));
    assert_null(e->counterpart.entry);
    assert_string_equal(e->counterpart.name, "gone");
    config_destroy(config);
    e = resolve(STEPS "[cache]\nplugin = void\n[counterpart]\nlevel = 7\n", NULL, &config);
    assert_true(choice_is_unverified(&e->cache));
    assert_string_equal(e->counterpart.entry->plugin->id, "ngram");
    assert_false(choice_is_unverified(&e->counterpart));
    assert_int_equal(e->counterpart.values[0].integer, 7);
    config_destroy(config);
    refused(STEPS "[cache]\nplugin = void\n[counterpart]\nplugin = gone\n", FW_E_NOT_FOUND,
            "x.ini:6", "gone");
    refused(STEPS "[cache]\nplugin = void\n[counterpart]\nlevle = 7\n", FW_E_CONFIG, "x.ini:6",
            "[counterpart]", "did you mean 'level'");
}

/* Swapping a plugin by one line keeps the keys that the new one knows and forgets the others. */
static void swap(void **state) {
    (void)state;
    static const char text[] = STEPS "[attention]\nplugin = xsa\nlevel = 7\nextra = 4\n"
                                     "[attention.0]\nextra = 1\n[cache]\nextra = 3\n";
    static const char *const overrides[] = {"attention.plugin=gqa", "cache.plugin=none", NULL};
    struct config *config;
    const struct experiment *e = resolve(text, overrides, &config);
    assert_string_equal(e->attention[0].entry->plugin->id, "gqa");
    assert_int_equal(e->attention[0].values[0].integer, 7);
    assert_string_equal(e->cache.name, "none");
    config_destroy(config);
    static const char *const wrong[] = {"attention.plugin=gqa", "attention.extra=2"};
    assert_ok(config_load("x.ini", text, wrong, 2, &config, &error), &error);
    assert_fails(config_resolve(config, registry, CONFIG_BIND_ALL, &e, &error), FW_E_CONFIG, &error,
                 "command line: [attention] attention gqa has no key 'extra'");
    config_destroy(config);
}

/* What a device would decide by timing is off, whatever [device] says, and the text says so. */
static void deterministic(void **state) {
    (void)state;
    static const struct {
        const char *overrides[5];
        int64_t timed;
    } cases[] = {{{"run.device=timed", NULL}, 1},
                 {{"run.device=timed", "device.time_products=no", NULL}, 0},
                 {{"run.device=timed", "run.deterministic=yes", NULL}, 0},
                 {{"run.device=timed", "run.deterministic=yes", "device.time_products=yes"}, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config *config;
        char *text = NULL;
        const struct experiment *e = resolve(STEPS, cases[i].overrides, &config);
        const fw_plugin *plugin = e->device.entry->plugin;
        assert_string_equal(plugin->params[plugin->n_params - 1].key, "time_products");
        assert_int_equal(e->device.values[plugin->n_params - 1].integer, cases[i].timed);
        assert_int_equal(e->device.values[2].integer, 1); /* `fold` has nothing to do with it */
        assert_int_equal(e->run.deterministic, i >= 2);
        assert_ok(config_text(config, NULL, &text, &error), &error);
        assert_non_null(
            strstr(text, cases[i].timed ? "\ntime_products = yes\n" : "\ntime_products = no\n"));
        assert_non_null(
            strstr(text, i >= 2 ? "\ndeterministic = yes\n" : "\ndeterministic = no\n"));
        free(text);
        config_destroy(config);
    }
    struct config *config; /* a device that times nothing repeats anyway */
    const char *overrides[] = {"run.deterministic=yes", NULL};
    assert_true(resolve(STEPS, overrides, &config)->run.deterministic);
    config_destroy(config);
}

/* A CUDA plugin that cannot be loaded is passed over, and why is known; one that is asked for by
 * name is an error. */
static void a_device_that_cannot_be_loaded(void **state) {
    (void)state;
    const char *const directories[] = {".", TEST_STAND_INS};
    struct registry *whole = registry;
    write_text("device-cuda.so", "no library");
    assert_ok(registry_create(directories, 2, &registry, &error), &error);
    struct config *config;
    const struct experiment *e = resolve(STEPS, NULL, &config);
    assert_string_equal(e->run.device, "cpu");
    assert_non_null(e->passed_over);
    assert_non_null(strstr(e->passed_over, "device-cuda.so: cannot be loaded"));
    config_destroy(config);
    refused(STEPS "device = cuda\n", FW_E_IO, "device-cuda.so: cannot be loaded");
    registry_destroy(registry);
    registry = whole;
    assert_null(resolve(STEPS, NULL, &config)->passed_over); /* no device is no fault */
    config_destroy(config);
}

static void text_needs_resolving(void **state) {
    (void)state;
    struct config *config;
    char *text = NULL;
    assert_ok(config_load("x.ini", STEPS, NULL, 0, &config, &error), &error);
    assert_fails(config_text(config, NULL, &text, &error), FW_E_INTERNAL, &error, "resolved");
    assert_null(text);
    config_destroy(config);
    config_destroy(NULL);
}

static void reference(void **state) {
    (void)state;
    char *markdown = NULL;
    assert_ok(config_reference(registry, &markdown, &error), &error);
    assert_non_null(
        strstr(markdown, "| `batch_tokens` | int | `8192` | 1 to 2147483647 | tokens |"));
    assert_non_null(strstr(markdown, "plain\\|sliding"));
    assert_non_null(strstr(markdown, "### tokenizer needy"));
    assert_non_null(strstr(markdown, "| `model` | path | required |"));
    assert_null(strstr(markdown, TEST_STAND_INS));
    free(markdown);
}

#define in_workspace(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    (void)unsetenv("FAIRWAY_PLUGIN_PATH");
    (void)setenv("HOME", "/nonexistent", 1);
    const struct CMUnitTest tests[] = {
        in_workspace(defaults),
        in_workspace(core_values),
        in_workspace(bounds),
        in_workspace(cross_checks),
        in_workspace(model_checks),
        in_workspace(plugin_keys),
        in_workspace(layers),
        in_workspace(paths),
        in_workspace(plugin_paths),
        in_workspace(round_trip),
        in_workspace(selected_sections),
        in_workspace(hashes),
        in_workspace(hashes_without_folders),
        in_workspace(hashes_without_seeds),
        in_workspace(places),
        in_workspace(partial_binding),
        in_workspace(deterministic),
        in_workspace(a_device_that_cannot_be_loaded),
        in_workspace(swap),
        in_workspace(text_needs_resolving),
        in_workspace(reference),
        in_workspace(counterparts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
