/* fairway compare: finished runs against a reference, and whether the difference is significant. */
#include "arguments.h"
#include "commands.h"
#include "compare.h"

static const char help[] =
    "usage: fairway compare RESULT... REFERENCE\n\n"
    "Compares finished runs with a reference: mean and deviation of each, their difference, and\n"
    "the one-sided p-value (Welch's t-test) by the challenge's rule, that a record must be better\n"
    "by at least 0.005 nats with p < 0.01. It does so per token and per byte, for the model alone\n"
    "and with its cache. A score marked INVALID never counts.\n\n"
    "Each of the two is a run directory, its results.json (all seeds) or a receipt.json (one\n"
    "run); several RESULTs are taken together when they differ in nothing but the seed. A test\n"
    "needs at least 2 runs on each side. A reference may also be written by hand:\n"
    "  {\"name\": \"record\", \"bytes_per_token\": 2.4359,\n"
    "   \"model\": {\"mode\": \"sliding\", \"bpb\": [1.1212, 1.1213, 1.1204]},\n"
    "   \"cached\": {\"bpb\": [0.9631, 0.9634, 0.9627], \"valid\": false, \"why\": \"sums to "
    "522\"}}\n"
    "where bytes_per_token turns bits per byte into nats per token, and \"cached\", \"mode\" and\n"
    "\"nats_per_token\": [...] may be left out. configs/reference-pr993.json is one.\n\n"
    "examples\n"
    "  fairway compare runs/mine configs/reference-pr993.json\n"
    "  fairway compare runs/mine/seed-42 runs/mine/seed-1337 runs/theirs/results.json\n"
    "  fairway run mine.ini --set run.seeds=1337,42,2024 --reference "
    "configs/reference-pr993.json\n";

static fw_status read_both(const struct arguments *arguments, struct results *result,
                           struct results *reference, fw_error *error) {
    const size_t last = arguments->n_inputs - 1;
    FW_TRY(results_read(arguments->inputs[last], reference, error));
    for (size_t i = 0; i < last; i++) FW_TRY(results_read(arguments->inputs[i], result, error));
    if (result->n > 1) results_print(result);
    return compare_print(result, reference, error);
}

static fw_status compare(const struct arguments *arguments, fw_error *error) {
    struct results *result = NULL, *reference = NULL;
    if (arguments->n_inputs < 2)
        return fw_fail(error, FW_E_CONFIG,
                       "compare needs a result and a reference, such as `fairway compare runs/mine "
                       "configs/reference-pr993.json`");
    fw_status status = results_create(&result, error);
    if (status == FW_OK) status = results_create(&reference, error);
    if (status == FW_OK) status = read_both(arguments, result, reference, error);
    results_destroy(result);
    results_destroy(reference);
    return status;
}

int cmd_compare(int argc, char **argv) {
    static const struct option none[] = {{NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    fw_status status = arguments_parse_many(argc, argv, none, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = compare(&arguments, &error);
    return report_failure(status, &error);
}
