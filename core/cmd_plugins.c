/* fairway plugins: what can be named in an INI, with every key; broken modules and their reasons.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "commands.h"
#include "config.h"
#include "params.h"

enum { MAX_BROKEN = 256 };

static const char help[] =
    "usage: fairway plugins [-v] [--kind KIND] [--plugin-dir DIRECTORY]...\n"
    "       fairway plugins --reference\n\n"
    "Lists the plugins that an INI can name, and modules that cannot be loaded.\n\n"
    "  -v, --verbose          also every key: type, default, range, unit, meaning\n"
    "  -k, --kind KIND        only attention, optimizer, averager, quantizer, compressor,\n"
    "                         cache, device, collective or tokenizer\n"
    "  --plugin-dir DIRECTORY search here first; may be repeated\n"
    "  --reference            the reference of all INI keys, as Markdown\n"
    "  -h, --help             this text\n";

struct listing {
    bool verbose, reference;
    uint32_t kind; /* 0: all */
};

struct broken {
    char *lines[MAX_BROKEN];
    size_t n;
};

static fw_status parse_kind(const char *name, uint32_t *kind, fw_error *error) {
    static const char *const names[] = {
#define KIND_TEXT(name_, value, text) text,
        FW_KIND_MAP(KIND_TEXT)
#undef KIND_TEXT
    };
    *kind = kind_from_name(name);
    if (*kind != 0) return FW_OK;
    const char *near = nearest_name(name, names, sizeof names / sizeof names[0]);
    if (near != NULL)
        return fw_fail(error, FW_E_CONFIG, "there is no kind '%s'; did you mean '%s'?", name, near);
    return fw_fail(error, FW_E_CONFIG, "there is no kind '%s'; --help lists them", name);
}

static fw_status parse(int argc, char **argv, struct arguments *arguments, struct listing *listing,
                       fw_error *error) {
    const char *kind = NULL;
    const struct option options[] = {{"--verbose", NULL, &listing->verbose},
                                     {"-v", NULL, &listing->verbose},
                                     {"--reference", NULL, &listing->reference},
                                     {"--kind", &kind, NULL},
                                     {"-k", &kind, NULL},
                                     {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, options, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; fairway plugins takes options alone",
                       arguments->input);
    if (arguments->n_overrides > 0)
        return fw_fail(error, FW_E_CONFIG, "--set means nothing to fairway plugins");
    return kind != NULL ? parse_kind(kind, &listing->kind, error) : FW_OK;
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

/* Columns as wide as what stands in them: printed twice, the first time only measured. */
enum { MAX_COLUMNS = 4 };
struct columns {
    int width[MAX_COLUMNS];
    bool measuring;
};

static void put_cells(struct columns *columns, const char *indent, const char *const *cells,
                      const char *last) {
    for (int i = 0; i < MAX_COLUMNS && columns->measuring; i++)
        if ((int)strlen(cells[i]) > columns->width[i]) columns->width[i] = (int)strlen(cells[i]);
    if (columns->measuring) return;
    (void)fputs(indent, stdout);
    for (int i = 0; i < MAX_COLUMNS; i++) (void)printf("%-*s  ", columns->width[i], cells[i]);
    (void)puts(last);
}

static void put_param(struct columns *columns, const fw_param *param) {
    char range[256], shown[300];
    const char *unit = param->unit != NULL ? param->unit : "";
    (void)param_range(param, range, sizeof range);
    (void)snprintf(shown, sizeof shown, "%s%s%s", range,
                   range[0] != '\0' && unit[0] != '\0' ? " " : "", unit);
    const char *value = param->default_text;
    const char *const cells[MAX_COLUMNS] = {param->key, param_type_name(param->type),
                                            value == NULL      ? "(required)"
                                            : value[0] == '\0' ? "\"\""
                                                               : value,
                                            shown};
    put_cells(columns, "    ", cells, param->doc);
}

static void print_params(const fw_plugin *plugin) {
    struct columns columns = {.measuring = true};
    (void)printf("    %s (%s, %s)\n", plugin->summary, plugin->vendor, plugin->license);
    for (int pass = 0; pass < 2; pass++, columns.measuring = false)
        for (uint32_t i = 0; i < plugin->n_params; i++)
            put_param(&columns, param_at(plugin->params, i));
    (void)putchar('\n');
}

static size_t print_table(const struct registry *registry, const struct listing *listing) {
    static const char *const head[MAX_COLUMNS] = {"KIND", "ID", "VERSION", "DEVICES"};
    struct columns columns = {.measuring = true};
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++, columns.measuring = false) {
        if (pass == 0 || n > 0) put_cells(&columns, "", head, "PATH");
        for (size_t i = 0; i < registry_count(registry); i++) {
            const struct registry_entry *entry = registry_get(registry, i);
            const fw_plugin *plugin = entry->plugin;
            if (listing->kind != 0 && plugin->kind != listing->kind) continue;
            n++;
            const char *const cells[MAX_COLUMNS] = {kind_name(plugin->kind), plugin->id,
                                                    plugin->version, devices_text(plugin->devices)};
            put_cells(&columns, "", cells, entry->path);
            if (listing->verbose && !columns.measuring) print_params(plugin);
        }
    }
    return n;
}

static fw_status print_list(struct registry *registry, const struct listing *listing,
                            fw_error *error) {
    struct broken broken = {.n = 0};
    FW_TRY(registry_scan(registry, remember_broken, &broken, error));
    if (print_table(registry, listing) == 0) {
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

static fw_status list(const struct arguments *arguments, const struct listing *listing,
                      fw_error *error) {
    struct registry *registry = NULL;
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &registry, error));
    const fw_status status = listing->reference ? print_reference(registry, error)
                                                : print_list(registry, listing, error);
    registry_destroy(registry);
    return status;
}

int cmd_plugins(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct listing listing = {.kind = 0};
    fw_status status = parse(argc, argv, &arguments, &listing, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = list(&arguments, &listing, &error);
    return report_failure(status, &error);
}
