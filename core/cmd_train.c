/* fairway train: training alone; leaves the weights for `fairway pack`. */
#include <string.h>

#include "commands.h"
#include "pipeline.h"

static const char help[] =
    "usage: fairway train FILE.ini [--resume] [--set SECTION.KEY=VALUE]... [--plugin-dir DIR]...\n"
    "\n"
    "Trains as FILE.ini says and saves the raw and the averaged weights to weights.fw in the run\n"
    "directory (run.output). `fairway pack` makes an artifact of them.\n\n"
    "--resume goes on from the run directory's checkpoint (run.checkpoint_every).\n\n"
    "examples\n"
    "  fairway train configs/quickstart.ini --set run.output=runs/try\n"
    "  fairway pack runs/try --set quantize.plugin=none\n";

/* A list that is ignored must not look as if it had been heeded. */
static void warn_of_seeds(const struct session *session) {
    const struct run_keys *run = &session->experiment->run;
    char message[256];
    if (run->seeds[strspn(run->seeds, " \t")] == '\0') return;
    (void)snprintf(
        message, sizeof message,
        "train makes one run, of run.seed = %lld; run.seeds = %.100s is for `fairway run`",
        (long long)run->seed, run->seeds);
    session->services->log(session->services, FW_LOG_WARNING, message);
}

static fw_status train_and_save(struct pipeline *pipeline, fw_error *error) {
    warn_of_seeds(&pipeline->session);
    FW_TRY(pipeline_train(pipeline, "train.jsonl", error));
    FW_TRY(pipeline_save_weights(pipeline, error));
    const struct train_result *result = &pipeline->report.training;
    (void)printf("trained %lld parameters for %lld steps in %.1f s; loss %.4f nats per token\n"
                 "%s holds the weights\n",
                 (long long)pipeline->report.parameters, (long long)result->steps, result->seconds,
                 result->loss, session_path(&pipeline->session, "weights.fw"));
    return pipeline_check_effects(pipeline, error);
}

int cmd_train(int argc, char **argv) {
    bool resume = false;
    const struct option options[] = {{"--resume", NULL, &resume}, {NULL, NULL, NULL}};
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    fw_status status = arguments_parse(argc, argv, options, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    struct pipeline pipeline;
    if (status == FW_OK) status = pipeline_open(&arguments, false, &pipeline, &error);
    if (status != FW_OK) return report_failure(status, &error);
    pipeline.resume = resume;
    status = train_and_save(&pipeline, &error);
    progress_end(&pipeline.session.progress);
    pipeline_close(&pipeline);
    return report_failure(status, &error);
}
