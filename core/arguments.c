#include "arguments.h"

#include <string.h>

#include "params.h"

static const struct option *find_option(const struct option *options, const char *name) {
    for (const struct option *option = options; option->name != NULL; option++)
        if (strcmp(option->name, name) == 0) return option;
    return NULL;
}

static fw_status unknown_option(const char *name, const struct option *options, fw_error *error) {
    const char *known[32] = {"--set", "--plugin-dir", "--help"};
    size_t n = 3;
    for (const struct option *option = options; option->name != NULL && n < 32; option++)
        known[n++] = option->name;
    const char *nearest = nearest_name(name, known, n);
    if (nearest != NULL)
        return fw_fail(error, FW_E_CONFIG, "unknown option %s; did you mean %s?", name, nearest);
    return fw_fail(error, FW_E_CONFIG, "unknown option %s; --help lists what there is", name);
}

static fw_status keep(const char **list, size_t *n, const char *value, fw_error *error) {
    if (*n == MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d options of one kind", MAX_ARGUMENTS);
    list[(*n)++] = value;
    return FW_OK;
}

static fw_status take_value(const char *name, const char *value, const struct option *option,
                            struct arguments *arguments, fw_error *error) {
    if (value == NULL) return fw_fail(error, FW_E_CONFIG, "%s needs a value after it", name);
    if (strcmp(name, "--set") == 0)
        return keep(arguments->overrides, &arguments->n_overrides, value, error);
    if (strcmp(name, "--plugin-dir") == 0)
        return keep(arguments->plugin_directories, &arguments->n_plugin_directories, value, error);
    *option->value = value;
    return FW_OK;
}

fw_status arguments_parse_many(int argc, char **argv, const struct option *options,
                               struct arguments *arguments, fw_error *error) {
    *arguments = (struct arguments){.inputs = argv + 1};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        const struct option *option = find_option(options, word);
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            arguments->help = true;
        } else if (option != NULL && option->flag != NULL) {
            *option->flag = true;
        } else if (option != NULL || strcmp(word, "--set") == 0 ||
                   strcmp(word, "--plugin-dir") == 0) {
            FW_TRY(take_value(word, argv[i + 1], option, arguments, error));
            i++;
        } else if (word[0] == '-' && word[1] != '\0') {
            return unknown_option(word, options, error);
        } else {
            arguments->inputs[arguments->n_inputs++] = argv[i];
        }
    }
    return FW_OK;
}

fw_status arguments_parse(int argc, char **argv, const struct option *options,
                          struct arguments *arguments, fw_error *error) {
    FW_TRY(arguments_parse_many(argc, argv, options, arguments, error));
    if (arguments->n_inputs > 1)
        return fw_fail(error, FW_E_CONFIG, "both %s and %s are given; one is right",
                       arguments->inputs[0], arguments->inputs[1]);
    arguments->input = arguments->n_inputs == 1 ? arguments->inputs[0] : NULL;
    return FW_OK;
}

fw_status arguments_count(const char *name, const char *text, double least, double most,
                          uint64_t otherwise, uint64_t *value, fw_error *error) {
    const fw_param param =
        FW_PARAM_RANGE(FW_PARAM_INT, name, NULL, least, most, "", "a whole number");
    fw_value parsed = {0};
    *value = otherwise;
    if (text == NULL) return FW_OK;
    FW_TRY(param_parse(&param, text, &parsed, error));
    *value = (uint64_t)parsed.integer;
    return FW_OK;
}

int report_failure(fw_status status, const fw_error *error) {
    if (status == FW_OK) return 0;
    (void)fprintf(stderr, "fairway: %s\n", error->message);
    const bool ours = status == FW_E_MEMORY || status == FW_E_DEVICE || status == FW_E_INTERNAL ||
                      status == FW_E_INTERRUPTED;
    return ours ? 1 : 2;
}
