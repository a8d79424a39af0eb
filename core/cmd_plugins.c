/* fairway plugins: what can be named in an INI, with every key; broken modules and their reasons.
 */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "config.h"
#include "params.h"

enum { MAX_DIRECTORIES = 64, MAX_BROKEN = 256 };

struct arguments {
    bool verbose, reference, help;
    uint32_t kind; /* 0: all */
    const char *directories[MAX_DIRECTORIES];
    size_t n_directories;
};

struct broken {
    char *lines[MAX_BROKEN];
    size_t n;
};

static void print_help(void) {
    (void)puts("usage: fairway plugins [-v] [--kind KIND] [--plugin-dir DIRECTORY]...\n"
               "       fairway plugins --reference\n\n"
               "Lists the plugins that an INI can name, and modules that cannot be loaded.\n\n"
               "  -v, --verbose          also every key: type, default, range, unit, meaning\n"
               "  -k, --kind KIND        only attention, optimizer, averager, quantizer, "
               "compressor,\n"
               "                         cache, device, collective or tokenizer\n"
               "  --plugin-dir DIRECTORY search here first; may be repeated\n"
               "  --reference            the reference of all INI keys, as Markdown\n"
               "  --help                 this text");
}

static bool parse_kind(const char *name, uint32_t *kind) {
    *kind = kind_from_name(name);
    if (*kind != 0) return true;
    static const char *const names[] = {
#define KIND_TEXT(name_, value, text) text,
        FW_KIND_MAP(KIND_TEXT)
#undef KIND_TEXT
    };
    const char *near = nearest_name(name, names, sizeof names / sizeof names[0]);
    (void)fprintf(stderr, "fairway plugins: there is no kind '%s'%s%s%s\n", name,
                  near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                  near != NULL ? "'?" : "");
    return false;
}

static bool parse_arguments(int argc, char **argv, struct arguments *arguments) {
    enum { OPTION_DIRECTORY = 256, OPTION_REFERENCE, OPTION_HELP };
    static const struct option options[] = {
        {"verbose", no_argument, NULL, 'v'},
        {"kind", required_argument, NULL, 'k'},
        {"plugin-dir", required_argument, NULL, OPTION_DIRECTORY},
        {"reference", no_argument, NULL, OPTION_REFERENCE},
        {"help", no_argument, NULL, OPTION_HELP},
        {NULL, 0, NULL, 0}};
    optind = 1;
    for (int option; (option = getopt_long(argc, argv, "vk:", options, NULL)) != -1;) {
        switch (option) {
        case 'v': arguments->verbose = true; break;
        case 'k':
            if (!parse_kind(optarg, &arguments->kind)) return false;
            break;
        case OPTION_DIRECTORY:
            if (arguments->n_directories == MAX_DIRECTORIES) return false;
            arguments->directories[arguments->n_directories++] = optarg;
            break;
        case OPTION_REFERENCE: arguments->reference = true; break;
        case OPTION_HELP: arguments->help = true; break;
        default: return false;
        }
    }
    if (optind == argc) return true;
    (void)fprintf(stderr, "fairway plugins: unexpected argument '%s'\n", argv[optind]);
    return false;
}

static void remember_broken(void *argument, const char *path, const char *why) {
    struct broken *broken = argument;
    if (broken->n == MAX_BROKEN) return;
    const size_t size = strlen(path) + strlen(why) + 3;
    char *line = malloc(size);
    if (line == NULL) return;
    (void)snprintf(line, size, "%s: %s", path, why);
    broken->lines[broken->n++] = line;
}

static const char *devices_text(uint32_t devices) {
    static const char *const texts[] = {"-", "cpu", "cuda", "cpu cuda"};
    return texts[devices & (FW_CPU | FW_CUDA)];
}

static void print_param(const fw_param *param) {
    char range[256], shown[300];
    const char *unit = param->unit != NULL ? param->unit : "";
    (void)param_range(param, range, sizeof range);
    (void)snprintf(shown, sizeof shown, "%s%s%s", range,
                   range[0] != '\0' && unit[0] != '\0' ? " " : "", unit);
    const char *value = param->default_text;
    (void)printf("    %-18s %-7s %-12s %-24s %s\n", param->key, param_type_name(param->type),
                 value == NULL      ? "(required)"
                 : value[0] == '\0' ? "\"\""
                                    : value,
                 shown, param->doc);
}

static void print_entry(const struct registry_entry *entry, bool verbose) {
    const fw_plugin *plugin = entry->plugin;
    (void)printf("%-11s %-14s %-8s %-9s %s\n", kind_name(plugin->kind), plugin->id, plugin->version,
                 devices_text(plugin->devices), entry->path);
    if (!verbose) return;
    (void)printf("    %s (%s, %s)\n", plugin->summary, plugin->vendor, plugin->license);
    for (uint32_t i = 0; i < plugin->n_params; i++) print_param(param_at(plugin->params, i));
    (void)putchar('\n');
}

static size_t print_table(const struct registry *registry, const struct arguments *arguments) {
    size_t n = 0;
    for (size_t i = 0; i < registry_count(registry); i++) {
        const struct registry_entry *entry = registry_get(registry, i);
        if (arguments->kind != 0 && entry->plugin->kind != arguments->kind) continue;
        if (n++ == 0)
            (void)printf("%-11s %-14s %-8s %-9s %s\n", "KIND", "ID", "VERSION", "DEVICES", "PATH");
        print_entry(entry, arguments->verbose);
    }
    return n;
}

static fw_status print_list(struct registry *registry, const struct arguments *arguments,
                            fw_error *error) {
    struct broken broken = {.n = 0};
    FW_TRY(registry_scan(registry, remember_broken, &broken, error));
    if (print_table(registry, arguments) == 0) {
        (void)puts("No plugins found. Searched:");
        for (const char *const *d = registry_directories(registry); *d != NULL; d++)
            (void)printf("  %s\n", *d);
    }
    if (broken.n > 0) (void)puts("\nThese modules cannot be used:");
    for (size_t i = 0; i < broken.n; i++) {
        (void)printf("  %s\n", broken.lines[i]);
        free(broken.lines[i]);
    }
    return FW_OK;
}

static fw_status print_reference(struct registry *registry, fw_error *error) {
    char *markdown = NULL;
    FW_TRY(config_reference(registry, &markdown, error));
    (void)fputs(markdown, stdout);
    free(markdown);
    return FW_OK;
}

int cmd_plugins(int argc, char **argv) {
    struct arguments arguments = {.kind = 0};
    if (!parse_arguments(argc, argv, &arguments)) {
        (void)fputs("`fairway plugins --help` explains the arguments\n", stderr);
        return 2;
    }
    if (arguments.help) {
        print_help();
        return 0;
    }
    struct registry *registry = NULL;
    fw_error error = {.struct_size = sizeof error};
    fw_status status =
        registry_create(arguments.directories, arguments.n_directories, &registry, &error);
    if (status == FW_OK)
        status = arguments.reference ? print_reference(registry, &error)
                                     : print_list(registry, &arguments, &error);
    registry_destroy(registry);
    if (status == FW_OK) return 0;
    (void)fprintf(stderr, "fairway plugins: %s\n", error.message);
    return 2;
}
