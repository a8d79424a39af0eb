#include "coin_cache.h"

#include <stdlib.h>
#include <string.h>

#include "coin_test.h"
#include "host.h"

struct table_of_bytes {
    struct token_table table;
    fw_token_info tokens[COIN_MOST_SIDES];
};

/* What playing holds. */
struct play {
    const struct coin_cache_options *options;
    struct registry *registry;
    struct config *config;
    const struct experiment *experiment;
    struct host *host;
    struct table_of_bytes *table;
    struct progress progress;
};

/* ---- opening ---- */

static fw_status check_overrides(const struct arguments *arguments, fw_error *error) {
    static const char *const used[] = {"cache.", "counterpart.", "eval."};
    for (size_t i = 0; i < arguments->n_overrides; i++) {
        bool known = false;
        for (size_t u = 0; u < sizeof used / sizeof used[0]; u++)
            known = known || strncmp(arguments->overrides[i], used[u], strlen(used[u])) == 0;
        if (!known)
            return fw_fail(error, FW_E_CONFIG,
                           "--set %.128s: a cache that plays alone has [cache], [counterpart] and "
                           "[eval], and nothing else",
                           arguments->overrides[i]);
    }
    return FW_OK;
}

/* Windows are those of record 993, which matter to caches that wait for a window's end; and what
 * cannot be verified is what one wants to see here. */
static fw_status load_config(struct play *play, fw_error *error) {
    const struct arguments *arguments = play->options->arguments;
    char plugin[4096];
    const char *overrides[MAX_ARGUMENTS + 3] = {"eval.window=2048", "eval.on_violation=report",
                                                plugin};
    size_t n = 3;
    (void)snprintf(plugin, sizeof plugin, "cache.plugin=%s", play->options->cache);
    FW_TRY(check_overrides(arguments, error));
    for (size_t i = 0; i < arguments->n_overrides; i++) overrides[n++] = arguments->overrides[i];
    return config_load("command line", "", overrides, n, &play->config, error);
}

static fw_status open_play(struct play *play, fw_error *error) {
    const struct arguments *arguments = play->options->arguments;
    FW_TRY(registry_create(arguments->plugin_directories, arguments->n_plugin_directories,
                           &play->registry, error));
    FW_TRY(load_config(play, error));
    FW_TRY(config_resolve(play->config, play->registry, CONFIG_BIND(FW_CACHE), &play->experiment,
                          error));
    if (!choice_is_on(&play->experiment->cache))
        return fw_fail(
            error, FW_E_CONFIG,
            "cache %s does nothing, so there is nothing to test; `fairway plugins --kind "
            "cache` lists others",
            play->experiment->cache.name);
    /* As a run has it: the verdict is on the cache that scores. */
    const struct host_options options = {.registry = play->registry,
                                         .seed = (uint64_t)play->experiment->run.seed};
    return host_create(&options, &play->host, error);
}

/* Tokens of a byte each; what they stand for does not matter. */
static fw_status make_table(struct play *play, fw_error *error) {
    struct table_of_bytes *made = calloc(1, sizeof *made);
    if (made == NULL) return fw_fail(error, FW_E_MEMORY, "no memory for a table of tokens");
    made->table = (struct token_table){
        .vocabulary = play->options->vocabulary, .begin_token = -1, .tokens = made->tokens};
    for (uint32_t i = 0; i < COIN_MOST_SIDES; i++)
        made->tokens[i] = (fw_token_info){.struct_size = sizeof *made->tokens, .base_bytes = 1};
    play->table = made;
    return FW_OK;
}

static void close_play(struct play *play) {
    free(play->table);
    host_destroy(play->host);
    config_destroy(play->config);
    registry_destroy(play->registry);
}

/* ---- playing ---- */

static fw_status play_once(struct play *play, bool *invalid, fw_error *error) {
    FW_TRY(open_play(play, error));
    FW_TRY(make_table(play, error));
    progress_begin(&play->progress);
    const struct evaluate_options score = {.experiment = play->experiment,
                                           .host = host_table(play->host),
                                           .table = &play->table->table,
                                           .mode = play->experiment->eval.mode,
                                           .with_cache = true,
                                           .progress = &play->progress};
    struct coin_result result;
    FW_TRY(coin_test(&score, play->options->tokens, play->options->seed, &result, error));
    coin_print(&result, play->experiment);
    (void)printf("  %.1f s, %.0f tokens/s\n", result.seconds,
                 (double)play->options->tokens / result.seconds);
    *invalid = coin_is_evidence(result.passes[COIN_UNIFORM].cache.gain);
    return FW_OK;
}

fw_status coin_cache(const struct coin_cache_options *options, bool *invalid, fw_error *error) {
    struct play play = {.options = options};
    const fw_status status = play_once(&play, invalid, error);
    close_play(&play);
    return status;
}
