/* fairway doctor: what this machine has, and which package to install for what is missing. */
#include <cjson/cJSON.h>
#include <fairway/device.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "arguments.h"
#include "commands.h"
#include "config_keys.h"
#include "registry.h"

static const char help[] =
    "usage: fairway doctor [--plugin-dir DIRECTORY]...\n\n"
    "Reports the machine, the devices and the plugins, and what to install for\n"
    "whatever is missing. Exit code 0: a run on the CPU is possible, 2: it is not.\n";

enum { MAX_ADVICE = 32, ADVICE_BYTES = 256 };

/* Lines for the end: what is missing and what to do about it. */
struct checkup {
    struct registry *registry;
    char advice[MAX_ADVICE][ADVICE_BYTES];
    size_t n_advice;
    bool complete; /* a run on the CPU with the default plugins is possible */
    size_t n_broken;
};

static void advise(struct checkup *checkup, const char *format, ...) FW_PRINTF(2, 3);
static void advise(struct checkup *checkup, const char *format, ...) {
    if (checkup->n_advice == MAX_ADVICE) return;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(checkup->advice[checkup->n_advice++], ADVICE_BYTES, format, arguments);
    va_end(arguments);
}

static void print_line(const char *what, const char *value) {
    (void)printf("  %-14s %s\n", what, value);
}

/* The text after `key`, whitespace and ':' or '=' in a file of such lines. */
static bool read_field(const char *path, const char *key, char *value, size_t size) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        const size_t n = strlen(key);
        if (strncmp(line, key, n) != 0 || strchr(" \t:=", line[n]) == NULL) continue;
        const char *text = line + n + strspn(line + n, " \t:=\"");
        (void)snprintf(value, size, "%.*s", (int)strcspn(text, "\"\n"), text);
        found = true;
    }
    (void)fclose(file);
    return found;
}

static void report_machine(void) {
    char text[600], name[256] = "unknown system", cpu[256] = "unknown processor";
    struct utsname system;
    (void)puts("Machine");
    if (read_field("/etc/os-release", "PRETTY_NAME", name, sizeof name) && uname(&system) == 0) {
        (void)snprintf(text, sizeof text, "%s, Linux %.64s, %.32s", name, system.release,
                       system.machine);
        print_line("system", text);
    }
    (void)read_field("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    (void)snprintf(text, sizeof text, "%s, %ld threads", cpu, sysconf(_SC_NPROCESSORS_ONLN));
    print_line("processor", text);
    const double pages = (double)sysconf(_SC_PHYS_PAGES), page = (double)sysconf(_SC_PAGE_SIZE);
    (void)snprintf(text, sizeof text, "%.1f GiB", pages * page / (1 << 30));
    print_line("memory", text);
}

static bool find_program(const char *name, char *path, size_t size) {
    const char *list = getenv("PATH");
    while (list != NULL && *list != '\0') {
        const size_t n = strcspn(list, ":");
        const int length = snprintf(path, size, "%.*s/%s", (int)n, list, name);
        if (n > 0 && length > 0 && (size_t)length < size && access(path, X_OK) == 0) return true;
        list += n + (list[n] == ':');
    }
    return false;
}

/* The first line that `cc --version` prints: what a plugin built here would be built with. */
static void report_own_compiler(void) {
    char path[1024], line[256] = "";
    if (!find_program("cc", path, sizeof path)) {
        print_line("cc here", "not on PATH");
        return;
    }
    FILE *output = popen("cc --version 2>/dev/null", "r");
    if (output != NULL) {
        if (fgets(line, sizeof line, output) != NULL) line[strcspn(line, "\n")] = '\0';
        char rest[256];
        while (fgets(rest, sizeof rest, output) != NULL) continue;
        (void)pclose(output);
    }
    print_line("cc here", line[0] != '\0' ? line : path);
}

/* A library that cannot be asked while running: what pkg-config said when this was built. */
static void report_built_with(const char *library, const char *version) {
    char text[64];
    (void)snprintf(text, sizeof text, "%.40s (at build time)", version);
    print_line(library, version[0] != '\0' ? text : "unknown to pkg-config at build time");
}

static void report_build(void) {
    (void)puts("\nBuild");
    print_line("fairway", FAIRWAY_VERSION);
#if defined(__clang__)
    print_line("built with", "clang " __clang_version__);
#elif defined(__GNUC__)
    print_line("built with", "GCC " __VERSION__);
#else
    print_line("built with", "an unknown compiler");
#endif
    report_own_compiler();
    char text[64];
    (void)snprintf(text, sizeof text, "%d.%d", FW_ABI_MAJOR, FW_ABI_MINOR);
    print_line("interface", text);
    print_line("liblzma", lzma_version_string());
    print_line("cJSON", cJSON_Version());
    report_built_with("inih", INIH_VERSION);
    report_built_with("libmd", LIBMD_VERSION);
    report_built_with("libseccomp", LIBSECCOMP_VERSION);
    report_built_with("SentencePiece", SENTENCEPIECE_VERSION);
}

static void report_device(struct checkup *checkup, const fw_plugin *plugin) {
    const fw_device_driver *driver = plugin->vtable;
    fw_error why = {.struct_size = sizeof why};
    uint32_t count = 0;
    const fw_status status = driver->count(&count, &why);
    if (status != FW_OK || count == 0) {
        print_line(plugin->id, why.message[0] != '\0' ? why.message : "no device");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        fw_device_info info = {.struct_size = sizeof info};
        if (driver->describe((int32_t)i, &info, &why) != FW_OK) {
            print_line(plugin->id, why.message);
            continue;
        }
        char text[400];
        (void)snprintf(text, sizeof text, "%.127s, %.1f GiB; %.127s", info.name,
                       (double)info.memory_bytes / (1 << 30), info.libraries);
        print_line(plugin->id, text);
        if (info.type == FW_CPU) checkup->complete = true;
    }
}

static void report_devices(struct checkup *checkup) {
    bool cuda = false;
    (void)puts("\nDevices");
    for (size_t i = 0; i < registry_count(checkup->registry); i++) {
        const fw_plugin *plugin = registry_get(checkup->registry, i)->plugin;
        if (plugin->kind != FW_DEVICE) continue;
        report_device(checkup, plugin);
        cuda = cuda || strcmp(plugin->id, "cuda") == 0;
    }
    if (!checkup->complete)
        advise(checkup, "no CPU device: install libopenblas-dev, then configure and build again");
    if (!cuda) print_line("cuda", "this build has no CUDA device; runs use the CPU");
}

static void report_broken(void *argument, const char *path, const char *why) {
    struct checkup *checkup = argument;
    checkup->n_broken++;
    (void)printf("  %-14s %s: %s\n", "broken", path, why);
}

static void report_kinds(struct checkup *checkup) {
    for (uint32_t kind = 1; strcmp(kind_name(kind), "unknown") != 0; kind++) {
        char text[1024] = "";
        size_t n = 0;
        for (size_t i = 0; i < registry_count(checkup->registry); i++) {
            const fw_plugin *plugin = registry_get(checkup->registry, i)->plugin;
            const size_t length = strlen(text);
            if (plugin->kind != kind) continue;
            (void)snprintf(text + length, sizeof text - length, "%s%s", n++ > 0 ? ", " : "",
                           plugin->id);
        }
        (void)printf("  %-14s %2zu  %s\n", kind_name(kind), n, text);
    }
}

static void check_defaults(struct checkup *checkup) {
    for (size_t i = 0; i < N_PLUGIN_SECTIONS; i++) {
        const struct plugin_section *section = &plugin_sections[i];
        const char *name = section->kind == FW_DEVICE ? "cpu" : section->default_plugin;
        const struct registry_entry *entry = NULL;
        if (registry_find(checkup->registry, section->kind, name, &entry, NULL) == FW_OK) continue;
        checkup->complete = false;
        advise(checkup, "the default %s plugin '%s' is missing: build and install all of Fairway",
               kind_name(section->kind), name);
    }
}

static fw_status report_plugins(struct checkup *checkup, fw_error *error) {
    (void)puts("\nPlugins");
    FW_TRY(registry_scan(checkup->registry, report_broken, checkup, error));
    report_kinds(checkup);
    if (checkup->n_broken > 0)
        advise(checkup, "%zu modules cannot be used; remove or rebuild them", checkup->n_broken);
    const struct registry_entry *entry = NULL;
    if (registry_find(checkup->registry, FW_TOKENIZER, "sentencepiece", &entry, NULL) != FW_OK)
        advise(checkup, "no tokenizer sentencepiece: install libsentencepiece-dev, then configure "
                        "and build again");
    return FW_OK;
}

static void report_tools(struct checkup *checkup) {
    static const struct {
        const char *name, *package, *purpose;
    } tools[] = {{"cc", "gcc", "builds plugins of your own"},
                 {"xz", "xz-utils", "unpacks by hand what the lzma compressor is compared with"}};
    (void)puts("\nOptional tools");
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++) {
        char path[1024];
        const bool found = find_program(tools[i].name, path, sizeof path);
        print_line(tools[i].name, found ? path : "not on PATH");
        if (!found)
            advise(checkup, "%s (%s) is missing: apt install %s", tools[i].name, tools[i].purpose,
                   tools[i].package);
    }
}

static fw_status examine(const struct arguments *arguments, struct checkup *checkup,
                         fw_error *error) {
    report_machine();
    report_build();
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &checkup->registry, error));
    FW_TRY(report_plugins(checkup, error));
    report_devices(checkup);
    check_defaults(checkup);
    report_tools(checkup);
    return FW_OK;
}

static void conclude(const struct checkup *checkup) {
    if (checkup->n_advice > 0) (void)puts("\nTo do");
    for (size_t i = 0; i < checkup->n_advice; i++) (void)printf("  %s\n", checkup->advice[i]);
    (void)printf("\n%s\n", checkup->complete
                               ? "Ready: runs on the CPU are complete."
                               : "Not ready: a run on the CPU lacks parts, see above.");
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, fw_error *error) {
    static const struct option none[] = {{NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, none, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; fairway doctor takes options alone",
                       arguments->input);
    if (arguments->n_overrides > 0)
        return fw_fail(error, FW_E_CONFIG, "--set means nothing to fairway doctor");
    return FW_OK;
}

int cmd_doctor(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    fw_status status = parse(argc, argv, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    struct checkup checkup = {.complete = false};
    if (status == FW_OK) status = examine(&arguments, &checkup, &error);
    if (status == FW_OK) conclude(&checkup);
    registry_destroy(checkup.registry);
    if (status != FW_OK) return report_failure(status, &error);
    return checkup.complete ? 0 : 2;
}
