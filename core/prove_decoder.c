/* `fairway prove` as decoder: a fresh process that finds a proof's tokens and text.
 *
 *   1. read the artifact and the proof, load the code of the plugins, compare the pins;
 *   2. close the jail: no file, no network, no other process from here on (jail.h);
 *   3. create device, model, cache and tokenizer, and decode.
 *
 * Before 2 no plugin has been called, but the constructors of its library ran when it was loaded,
 * in a jail where each file is opened by who started the process, and only if it is a library or
 * what else loading needs (on the CPU: a GPU's driver would not open there). What cannot be created
 * without files is created before 2 as well: a device other than the CPU, and a tokenizer with a
 * model file. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "files.h"
#include "jail.h"
#include "params.h"
#include "proof_code.h"
#include "proof_pins.h"
#include "prove_process.h"
#include "prove_readable.h"
#include "scored_source.h"
#include "tokenize.h"

#define TEXT_OF(number) #number
#define PATH_OF(number) "/proc/self/fd/" TEXT_OF(number)
static const char artifact_path[] = PATH_OF(3), proof_path[] = PATH_OF(4);
_Static_assert(PROVE_ARTIFACT == 3 && PROVE_PROOF == 4, "the paths above");

enum { TOKENS_AT_ONCE = 4096 };

struct decoding {
    struct arguments arguments;
    struct scored_source source;
    uint8_t *data; /* the proof's bytes */
    size_t size;
    struct proof_file file;
    struct scorer scorer;
    struct session text;
    struct distribution_state *state;
    uint16_t *tokens; /* all of them, for the text */
    uint64_t n_tokens, n_sent;
    double last_sent;
};

/* ---- before the jail ---- */

/* A cache of this process sits in it: the jail lets it start no other, and is no looser. */
static fw_status sit_here(struct arguments *arguments, fw_error *error) {
    if (arguments->n_overrides == MAX_ARGUMENTS)
        return fw_fail(error, FW_E_LIMIT, "more than %d --set", MAX_ARGUMENTS - 1);
    arguments->overrides[arguments->n_overrides++] = "eval.isolate=no";
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct decoding *d, fw_error *error) {
    const struct option table[] = {{"--tokenizer", &d->source.tokenizer, NULL},
                                   {"--model", &d->source.model, NULL},
                                   {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, table, &d->arguments, error));
    return sit_here(&d->arguments, error);
}

/* A driver is opened for more than reading, which the first jail does not allow. */
static bool may_have_driver(const struct decoding *d) {
    const char *device = "auto";
    static const char key[] = "run.device=";
    for (size_t i = 0; i < d->arguments.n_overrides; i++)
        if (strncmp(d->arguments.overrides[i], key, sizeof key - 1) == 0)
            device = d->arguments.overrides[i] + sizeof key - 1;
    return strcmp(device, "cpu") != 0 && access("/dev/nvidiactl", F_OK) == 0;
}

/* The jail asks who started this process for each file; on a kernel that does not know how, files
 * can be read, those of the list alone where it has Landlock. */
static fw_status enter_first_jail(const struct decoding *d, fw_error *error) {
    static struct prove_readable readable;
    int listener = -1;
    if (may_have_driver(d)) return FW_OK;
    FW_TRY(prove_readable_list(&d->arguments, d->source.model, &readable, error));
    if (jail_enter_asking(&listener, NULL) != FW_OK)
        return jail_enter(JAIL_LOADING, readable.paths, error);
    prove_say_asks(listener);
    return FW_OK;
}

static fw_status read_proof(struct decoding *d, fw_error *error) {
    FW_TRY(file_read(proof_path, 0, &d->data, &d->size, error));
    FW_TRY(proof_file_read(d->data, d->size, &d->file, error));
    d->tokens = calloc(d->file.spans * d->file.span_tokens, sizeof *d->tokens);
    return d->tokens != NULL ? FW_OK : fw_fail(error, FW_E_MEMORY, "no memory for its tokens");
}

/* A model file can be opened before the jail alone. */
static bool tokenizer_has_file(const struct session *text) {
    const struct plugin_choice *choice = &text->experiment->tokenizer;
    const fw_plugin *plugin = choice->entry->plugin;
    for (uint32_t i = 0; i < plugin->n_params; i++)
        if (param_at(plugin->params, i)->type == FW_PARAM_PATH && choice->values[i].text != NULL &&
            choice->values[i].text[0] != '\0')
            return true;
    return false;
}

static fw_status start_tokenizer(struct decoding *d, fw_error *error) {
    const struct host_options options = {.registry = d->text.registry};
    FW_TRY(host_create(&options, &d->text.host, error));
    return scored_tokenizer_start(&d->text, d->text.host, d->scorer.artifact.table, error);
}

static fw_status load(struct decoding *d, fw_error *error) {
    FW_TRY(scorer_bind(&d->arguments, artifact_path, &d->scorer, error));
    if (d->file.text) FW_TRY(scored_tokenizer_bind(&d->arguments, &d->source, &d->text, error));
    struct proof_pins pins;
    FW_TRY(proof_pins_collect(&d->scorer, d->file.text ? &d->text : NULL, &pins, error));
    FW_TRY(proof_pins_compare(&pins, &d->file, error));
    const uint32_t devices = d->scorer.session.experiment->device.entry->plugin->devices;
    if ((devices & FW_CPU) == 0) FW_TRY(session_start(&d->scorer.session, error));
    if (d->file.text && tokenizer_has_file(&d->text)) FW_TRY(start_tokenizer(d, error));
    return FW_OK;
}

/* ---- in the jail ---- */

static void send_tokens(struct decoding *d) {
    static uint8_t bytes[2 * TOKENS_AT_ONCE];
    const size_t n = (size_t)(d->n_tokens - d->n_sent);
    for (size_t i = 0; i < n; i++) {
        bytes[2 * i] = (uint8_t)d->tokens[d->n_sent + i];
        bytes[2 * i + 1] = (uint8_t)(d->tokens[d->n_sent + i] >> 8);
    }
    prove_say(PROVE_TOKENS, bytes, 2 * n);
    d->n_sent = d->n_tokens;
    d->last_sent = clock_seconds();
}

static fw_status found(void *self, uint64_t span, uint64_t index, uint32_t token,
                       double probability, fw_error *error) {
    struct decoding *d = self;
    (void)span, (void)index, (void)probability, (void)error;
    d->tokens[d->n_tokens++] = (uint16_t)token;
    if (d->n_tokens - d->n_sent == TOKENS_AT_ONCE || clock_seconds() - d->last_sent > 0.2)
        send_tokens(d);
    return FW_OK;
}

static fw_status send_text(struct decoding *d, fw_error *error) {
    if (!d->file.text) return FW_OK;
    struct bytes text = {0};
    for (uint64_t span = 0; span < d->file.spans; span++)
        FW_TRY(detokenize(d->text.tokenizer, d->text.tokenizer_self,
                          d->tokens + span * d->file.span_tokens, d->file.span_tokens, &text,
                          error));
    prove_say(PROVE_TEXT, text.data, text.size);
    bytes_free(&text);
    return FW_OK;
}

static fw_status build(struct decoding *d, fw_error *error) {
    FW_TRY(scorer_build(artifact_path, &d->scorer, error));
    if (d->file.text && d->text.tokenizer == NULL) FW_TRY(start_tokenizer(d, error));
    const struct distribution_options options = {.experiment = d->scorer.session.experiment,
                                                 .host = d->scorer.session.services,
                                                 .model = d->scorer.model,
                                                 .table = d->scorer.artifact.table,
                                                 .tokens = d->file.span_tokens};
    return distribution_open(&options, &d->state, error);
}

static fw_status decode(struct decoding *d, fw_error *error) {
    const struct proof_listener listener = {.self = d, .coded = found};
    const fw_status status =
        proof_decode(d->state, d->scorer.artifact.table->vocabulary, &d->file, &listener, error);
    send_tokens(d);
    return status == FW_OK ? send_text(d, error) : status;
}

/* ---- the whole ---- */

static fw_status seal(const struct decoding *d, fw_error *error) {
    const bool has_device = d->scorer.session.host != NULL;
    if (!has_device) jail_note_refusals(); /* a driver's threads may block the signal */
    FW_TRY(jail_enter(has_device ? JAIL_SEALED_WITH_DEVICE : JAIL_SEALED, NULL, error));
    prove_say(PROVE_SEALED, "", 0);
    return FW_OK;
}

static void say_refusals(void) {
    char refusals[512];
    (void)jail_refusals(refusals, sizeof refusals);
    prove_say(PROVE_REFUSED, refusals, strlen(refusals));
}

static fw_status run(int argc, char **argv, struct decoding *d, fw_error *error) {
    FW_TRY(parse(argc, argv, d, error));
    FW_TRY(enter_first_jail(d, error));
    FW_TRY(read_proof(d, error));
    FW_TRY(load(d, error));
    FW_TRY(seal(d, error));
    FW_TRY(build(d, error));
    return decode(d, error);
}

_Noreturn void prove_decoder(int argc, char **argv) {
    static struct decoding decoding;
    fw_error error = {.struct_size = sizeof error};
    const fw_status status = run(argc, argv, &decoding, &error);
    say_refusals();
    if (status == FW_OK) {
        prove_say(PROVE_DONE, "", 0);
        _exit(0);
    }
    struct bytes message = {0};
    bytes_put_u32(&message, (uint32_t)status);
    bytes_put(&message, error.message, strlen(error.message));
    prove_say(PROVE_FAILED, message.data, message.size);
    _exit(2);
}
