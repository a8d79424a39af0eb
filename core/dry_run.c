#include "dry_run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"
#include "model.h"
#include "pack.h"
#include "session.h"
#include "text.h"
#include "train.h"

static fw_status vocabulary_of(struct session *session, uint32_t *vocabulary, fw_error *error) {
    *vocabulary = (uint32_t)session->experiment->model.vocabulary;
    if (*vocabulary > 0) return FW_OK;
    FW_TRY(session_open_tokenizer(session, error));
    *vocabulary = session->table->vocabulary;
    return FW_OK;
}

static void print_group(const struct model *model, const char *name, uint32_t role,
                        const struct plugin_choice *choice) {
    uint64_t parameters = 0;
    uint32_t tensors = 0;
    for (uint32_t i = 0; i < model_n_weights(model); i++) {
        const fw_weight *weight = model_weight(model, i);
        if (weight->role != role) continue;
        tensors++;
        parameters +=
            (uint64_t)(weight->shape[0] * weight->shape[1] * weight->shape[2] * weight->shape[3]);
    }
    char count[TEXT_COMMAS_BYTES];
    (void)printf("  %-10s %12s in %3" PRIu32 " tensors, trained by %s\n", name,
                 text_with_commas(parameters, count), tensors, choice->entry->plugin->id);
}

static bool same_choice(const struct plugin_choice *a, const struct plugin_choice *b) {
    return a->entry == b->entry && a->section == b->section;
}

/* "xsa in layers 0-8, gqa in layers 9-10" */
static void print_attention(const struct experiment *experiment) {
    const int64_t layers = experiment->model.layers;
    (void)printf("  attention ");
    for (int64_t first = 0, next; first < layers; first = next) {
        for (next = first + 1; next < layers; next++)
            if (!same_choice(&experiment->attention[first], &experiment->attention[next])) break;
        (void)printf(" %s in layers %" PRId64 "-%" PRId64 "%s",
                     experiment->attention[first].entry->plugin->id, first, next - 1,
                     next < layers ? "," : "\n");
    }
}

static void print_step(const struct experiment *experiment, const struct model *model) {
    const struct run_keys *run = &experiment->run;
    const int64_t sequence = experiment->data.sequence, micro = train_micro_batch(experiment);
    const int64_t sequences = run->batch_tokens / sequence;
    char tokens[TEXT_COMMAS_BYTES];
    (void)printf("  a step     %s tokens in %" PRId64 " %s of %" PRId64 " x %" PRId64
                 ", %.3g TFLOP forward and backward\n",
                 text_with_commas((uint64_t)run->batch_tokens, tokens),
                 (sequences + micro - 1) / micro, sequences > micro ? "passes" : "pass", micro,
                 sequence, 3e-12 * model_forward_flops(model, 1, sequence) * (double)sequences);
    (void)printf("  length     ");
    if (run->steps > 0)
        (void)printf("%" PRId64 " steps%s", run->steps, run->seconds > 0 ? ", " : "");
    if (run->seconds > 0) (void)printf("%.0f s", run->seconds);
    (void)printf("; the last %" PRId64 " steps warm down\n", run->warmdown_steps);
    if (run->seeds[0] != '\0') (void)printf("  runs       one for each seed: %s\n", run->seeds);
}

static void print_plan(const struct session *session, const struct model *model) {
    const struct experiment *experiment = session->experiment;
    char count[TEXT_COMMAS_BYTES];
    (void)printf("%s: %s parameters in %" PRIu32 " tensors\n", experiment->run.name,
                 text_with_commas((uint64_t)model_parameters(model), count),
                 model_n_weights(model));
    print_group(model, "matrices", FW_ROLE_MATRIX, &experiment->optimizer[OPTIMIZER_MATRIX]);
    print_group(model, "embeddings", FW_ROLE_EMBED, &experiment->optimizer[OPTIMIZER_EMBED]);
    print_group(model, "scalars", FW_ROLE_SCALAR, &experiment->optimizer[OPTIMIZER_SCALAR]);
    print_attention(experiment);
    print_step(experiment, model);
    (void)printf("  then       average %s, quantize %s, compress %s, cache %s\n",
                 experiment->average.entry->plugin->id, experiment->quantize.entry->plugin->id,
                 experiment->compress.entry->plugin->id, experiment->cache.entry->plugin->id);
    (void)printf("Nothing was trained, and the data were not looked at.\n");
}

/* A cache that the run would refuse. Without a tokenizer the tokens count no bytes here. */
static fw_status check_cache(const struct session *session, uint32_t vocabulary, fw_error *error) {
    struct token_table stand_in = {.vocabulary = vocabulary, .begin_token = -1};
    const struct token_table *table = session->table;
    if (table == NULL) {
        stand_in.tokens = calloc(vocabulary, sizeof *stand_in.tokens);
        if (stand_in.tokens == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for tokens");
        table = &stand_in;
    }
    const fw_status status = evaluate_check(session->experiment, session->services, table, error);
    free(stand_in.tokens);
    return status;
}

static fw_status plan(struct session *session, fw_error *error) {
    uint32_t vocabulary = 0;
    FW_TRY(vocabulary_of(session, &vocabulary, error));
    const struct model_options options = {.experiment = session->experiment,
                                          .host = session->services,
                                          .vocabulary = vocabulary,
                                          .batch = 1,
                                          .tokens = session->experiment->data.sequence,
                                          .training = true,
                                          .compute_copies = session->experiment->run.qat_below > 0};
    struct model *model = NULL;
    FW_TRY(model_create(&options, &model, error));
    fw_status status = train_check(session->experiment, session->services, model, error);
    if (status == FW_OK) status = pack_check(session->experiment, session->services, model, error);
    if (status == FW_OK) status = check_cache(session, vocabulary, error);
    if (status == FW_OK) print_plan(session, model);
    model_destroy(model);
    return status;
}

fw_status dry_run(const struct arguments *arguments, fw_error *error) {
    struct session session;
    if (arguments->input == NULL)
        return fw_fail(error, FW_E_CONFIG,
                       "no INI file is given; try `fairway run configs/quickstart.ini --dry-run`");
    FW_TRY(session_open(arguments, arguments->input, NULL, CONFIG_BIND_ALL, &session, error));
    const fw_status status = plan(&session, error);
    session_close(&session);
    return status;
}
