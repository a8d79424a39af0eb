/* fairway pack: saved weights -> artifact, with any quantizer and compressor. */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "pipeline.h"
#include "scorer.h"
#include "weights_file.h"

static const char help[] =
    "usage: fairway pack RUN [--weights raw|averaged] [--out FILE] [--set SECTION.KEY=VALUE]...\n"
    "                        [--plugin-dir DIR]...\n\n"
    "Packs RUN/weights.fw as RUN/resolved.ini says into an artifact (RUN/model.fairway unless "
    "--out\n"
    "says otherwise; the run's receipt, which speaks of the old artifact, is removed then). RUN "
    "is\n"
    "the directory of a `fairway run` or `fairway train`.\n\n"
    "examples\n"
    "  fairway pack runs/quickstart --set quantize.plugin=none --out /tmp/float16.fairway\n"
    "  fairway pack runs/quickstart --weights raw --set compress.plugin=store --out "
    "/tmp/raw.fairway\n"
    "  fairway eval --artifact /tmp/raw.fairway --data text:book.txt\n";

struct pack_request {
    const char *weights, *out;
};

static fw_status parse(int argc, char **argv, struct arguments *arguments,
                       struct pack_request *options, fw_error *error) {
    options->weights = "averaged";
    const struct option table[] = {
        {"--weights", &options->weights, NULL}, {"--out", &options->out, NULL}, {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input == NULL)
        return fw_fail(error, FW_E_CONFIG, "no run directory is given; --help shows how");
    if (strcmp(options->weights, "raw") != 0 && strcmp(options->weights, "averaged") != 0)
        return fw_fail(error, FW_E_CONFIG, "--weights %s: raw or averaged is right",
                       options->weights);
    return FW_OK;
}

static fw_status read_and_pack(struct pipeline *pipeline, const struct weights_file *file,
                               const struct pack_request *options, const char *out,
                               fw_error *error) {
    const struct token_table *table = weights_table(file);
    FW_TRY(pipeline_check_cache(&pipeline->session, table, error));
    FW_TRY(scoring_model(&pipeline->session, table->vocabulary, &pipeline->scoring, error));
    pipeline->raw = calloc((size_t)model_arena_count(pipeline->scoring), sizeof *pipeline->raw);
    if (pipeline->raw == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for the weights");
    FW_TRY(weights_read(file, pipeline->scoring, strcmp(options->weights, "averaged") == 0,
                        pipeline->raw, error));
    return pipeline_pack(pipeline, table, pipeline->raw, out, error);
}

static fw_status pack(const struct arguments *arguments, const struct pack_request *options,
                      fw_error *error) {
    char ini[4096], weights[4096], out[4096], receipt[4096];
    (void)snprintf(receipt, sizeof receipt, "%s/receipt.json", arguments->input);
    (void)snprintf(ini, sizeof ini, "%s/resolved.ini", arguments->input);
    (void)snprintf(weights, sizeof weights, "%s/weights.fw", arguments->input);
    (void)snprintf(out, sizeof out, "%s/model.fairway", arguments->input);
    struct pipeline pipeline = {0};
    /* All plugins of the run count as code. */
    FW_TRY(session_open(arguments, ini, NULL, CONFIG_BIND_ALL, &pipeline.session, error));
    struct weights_file *file = NULL;
    const char *path = options->out != NULL ? options->out : out;
    fw_status status = weights_open(weights, &file, error);
    if (status == FW_OK) status = read_and_pack(&pipeline, file, options, path, error);
    /* The receipt of the run speaks of the artifact that this one has replaced. */
    if (status == FW_OK && options->out == NULL) (void)remove(receipt);
    if (status == FW_OK)
        (void)printf("%s: %zu bytes, %s weights, quantizer %s, compressor %s, %.1f s\n", path,
                     pipeline.report.artifact_bytes, options->weights,
                     pipeline.session.experiment->quantize.entry->plugin->id,
                     pipeline.session.experiment->compress.entry->plugin->id,
                     pipeline.report.seconds[PHASE_PACK]);
    if (status == FW_OK) report_print_fit(&pipeline.report);
    weights_close(file);
    pipeline_close(&pipeline);
    return status;
}

int cmd_pack(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct pack_request options = {0};
    fw_status status = parse(argc, argv, &arguments, &options, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = pack(&arguments, &options, &error);
    return report_failure(status, &error);
}
