/* fairway coin: shards of uniformly random tokens, verdicts on scores of such shards, and caches
 * that play alone. */
#include <math.h>
#include <string.h>

#include "arguments.h"
#include "clock.h"
#include "coin.h"
#include "coin_cache.h"
#include "commands.h"
#include "interrupt.h"
#include "progress.h"
#include "seeds.h"
#include "shard.h"
#include "shard_set.h"
#include "text.h"

static const char help[] =
    "usage: fairway coin --output PREFIX --tokens N --vocab V [--seed S] [--shard-tokens N] "
    "[--force]\n"
    "       fairway coin --verdict NATS_PER_TOKEN --tokens N --vocab V\n"
    "       fairway coin --cache NAME --tokens N --vocab V [--seed S] [--set "
    "SECTION.KEY=VALUE]...\n"
    "                    [--plugin-dir DIR]...\n"
    "\n"
    "A token drawn uniformly at random from V costs ln V nats, and no program can do better than "
    "by\n"
    "luck: gaining k bits has a probability of at most 2^-k, for whatever states probabilities "
    "that\n"
    "sum to one, from the tokens before alone. So a score below ln V on such tokens is void. "
    "docs/\n"
    "fairness.md says why.\n"
    "\n"
    "With --output it writes such tokens as shards of the challenge's format, PREFIX_000000.bin "
    "and\n"
    "so on, for any program to score.\n"
    "  --tokens N        how many (K, M, G: thousands, millions, billions)\n"
    "  --vocab V         each uniform below V, 2 to 65536\n"
    "  --seed S          which ones: SplitMix64 from S, up to 15 digits; default: a fresh one\n"
    "  --shard-tokens N  most tokens in a shard (default 100M)\n"
    "  --force           replace PREFIX's shards, all of them\n"
    "\n"
    "With --verdict it judges the score of another program on such a shard.\n"
    "  NATS_PER_TOKEN    its mean cross-entropy, with all digits that it prints: the last one is\n"
    "                    taken as rounded, so few digits allow for few conclusions\n"
    "  --tokens N        how many tokens that mean is over, each counted once\n"
    "  --vocab V         as the shard was written\n"
    "A gain of more than 40 bits is INVALID, exit code 1. Otherwise there is no evidence against "
    "the\n"
    "score, exit code 0; that never makes it valid. Bad input is exit code 2.\n"
    "\n"
    "With --cache one of Fairway's caches plays alone: it is told such tokens and given rows in\n"
    "which each has the probability 1/V; --set changes [cache], [counterpart] and [eval]. The "
    "exit\n"
    "codes are those of --verdict. `[eval] coin = N` tests cache and model of a run.\n"
    "\n"
    "examples\n"
    "  fairway coin --output data/coin --tokens 1M --vocab 1024 --seed 7\n"
    "  fairway coin --verdict 5.0231 --tokens 800K --vocab 1024\n"
    "  fairway coin --cache ngram_hashed --tokens 800K --vocab 1024 --set "
    "cache.table_size=524288\n";

struct settings {
    const char *output, *verdict, *cache, *tokens_text, *vocabulary_text, *seed_text, *shard_text;
    bool force;
    uint64_t tokens, vocabulary, seed, shard_tokens;
};

/* ---- arguments ---- */

static fw_status parse_counts(struct settings *s, fw_error *error) {
    FW_TRY(
        arguments_count("--tokens", s->tokens_text, 1, (double)LARGEST_SEED, 0, &s->tokens, error));
    FW_TRY(arguments_count("--vocab", s->vocabulary_text, 2, COIN_MOST_SIDES, 0, &s->vocabulary,
                           error));
    FW_TRY(arguments_count("--shard-tokens", s->shard_text, 1, (double)SHARD_MAX_TOKENS, 100000000,
                           &s->shard_tokens, error));
    if (s->seed_text == NULL && s->verdict == NULL) return coin_fresh_seed(&s->seed, error);
    return arguments_count("--seed", s->seed_text, 0, (double)LARGEST_SEED, 0, &s->seed, error);
}

static fw_status unheeded(const char *option, const char *form, fw_error *error) {
    return fw_fail(error, FW_E_CONFIG, "%s means nothing to %s; `fairway coin --help` has examples",
                   option, form);
}

/* Each form with what it needs and nothing that it would not heed. */
static fw_status check_form(const struct settings *s, const struct arguments *arguments,
                            fw_error *error) {
    const char *form = s->output != NULL    ? "--output"
                       : s->verdict != NULL ? "--verdict"
                                            : "--cache";
    const int forms = (s->output != NULL) + (s->verdict != NULL) + (s->cache != NULL);
    if (forms != 1)
        return fw_fail(error, FW_E_CONFIG,
                       "%s --output PREFIX writes tokens, --verdict NATS_PER_TOKEN judges a score, "
                       "--cache NAME lets a cache play; `fairway coin --help` has examples",
                       forms > 1 ? "one of these:" : "what for?");
    if (s->tokens_text == NULL || s->vocabulary_text == NULL)
        return fw_fail(error, FW_E_CONFIG, "%s is missing; `fairway coin --help` has examples",
                       s->tokens_text == NULL ? "--tokens N" : "--vocab V");
    if (s->seed_text != NULL && s->verdict != NULL) return unheeded("--seed", form, error);
    if (s->shard_text != NULL && s->output == NULL) return unheeded("--shard-tokens", form, error);
    if (s->force && s->output == NULL) return unheeded("--force", form, error);
    if (arguments->n_overrides > 0 && s->cache == NULL) return unheeded("--set", form, error);
    if (arguments->n_plugin_directories > 0 && s->cache == NULL)
        return unheeded("--plugin-dir", form, error);
    return FW_OK;
}

static fw_status parse(int argc, char **argv, struct settings *s, struct arguments *arguments,
                       fw_error *error) {
    const struct option options[] = {{"--output", &s->output, NULL},
                                     {"--verdict", &s->verdict, NULL},
                                     {"--cache", &s->cache, NULL},
                                     {"--tokens", &s->tokens_text, NULL},
                                     {"--vocab", &s->vocabulary_text, NULL},
                                     {"--seed", &s->seed_text, NULL},
                                     {"--shard-tokens", &s->shard_text, NULL},
                                     {"--force", NULL, &s->force},
                                     {NULL, NULL, NULL}};
    FW_TRY(arguments_parse(argc, argv, options, arguments, error));
    if (arguments->help) return FW_OK;
    if (arguments->input != NULL)
        return fw_fail(error, FW_E_CONFIG, "%s: unexpected; the shards' prefix goes after --output",
                       arguments->input);
    FW_TRY(check_form(s, arguments, error));
    return parse_counts(s, error);
}

/* ---- writing ---- */

static fw_status toss_all(const struct settings *s, struct shard_set *set, fw_error *error) {
    enum { AT_ONCE = 1 << 16 };
    uint16_t tokens[4096];
    struct random random = random_seeded(s->seed);
    struct progress progress;
    fw_status status = FW_OK;
    const double start = clock_seconds();
    progress_begin(&progress);
    while (status == FW_OK && set->tokens < s->tokens) {
        const uint64_t left = s->tokens - set->tokens, room = sizeof tokens / sizeof *tokens;
        const uint64_t n = left < room ? left : room;
        coin_toss(&random, (uint32_t)s->vocabulary, n, tokens);
        status = shard_set_append_tokens(set, tokens, n, error);
        if (set->tokens % AT_ONCE == 0)
            progress_work(&progress, "tossing", (double)set->tokens, (double)s->tokens, "tokens",
                          start);
        if (status == FW_OK && interrupt_seen())
            status = fw_fail(error, FW_E_INTERRUPTED, "interrupted; nothing was written");
    }
    progress_end(&progress);
    return status;
}

static void print_written(const struct settings *s, const struct shard_set *set, double seconds) {
    char name[4200], tokens[TEXT_COMMAS_BYTES], vocabulary[TEXT_COMMAS_BYTES];
    (void)shard_set_name(set, 0, name, sizeof name);
    (void)printf("%s tokens, each uniform below %s, seed %llu: %s", //
                 text_with_commas(set->tokens, tokens), text_with_commas(s->vocabulary, vocabulary),
                 (unsigned long long)s->seed, name);
    if (set->n_shards > 1) (void)printf(" and %u more", set->n_shards - 1);
    (void)printf("\n%.2f s, %.0f tokens/s\n", seconds, (double)set->tokens / seconds);
    if (set->n_removed > 0)
        (void)printf("Removed %u older shard%s behind them.\n", set->n_removed,
                     set->n_removed > 1 ? "s" : "");
    (void)printf("\nEach costs ln %llu = %.10g nats. To judge a program's mean over the SCORED of "
                 "them:\n  fairway coin --verdict NATS_PER_TOKEN --tokens SCORED --vocab %llu\n",
                 (unsigned long long)s->vocabulary, log((double)s->vocabulary),
                 (unsigned long long)s->vocabulary);
}

static fw_status write_shards(const struct settings *s, fw_error *error) {
    struct shard_set set = {0};
    const double start = clock_seconds();
    fw_status status = shard_set_open(&set, s->output, s->shard_tokens, NULL, s->force, error);
    if (status == FW_OK) {
        interrupt_catch();
        status = toss_all(s, &set, error);
    }
    if (status == FW_OK) status = shard_set_commit(&set, error);
    if (status == FW_OK) status = shard_set_remove_older(&set, error);
    if (status == FW_OK) print_written(s, &set, clock_seconds() - start);
    shard_set_close(&set);
    return status;
}

/* ---- the verdict ---- */

static void print_invalid(const struct coin_verdict *verdict) {
    (void)printf("INVALID: what states probabilities that sum to one, from the tokens before "
                 "alone, gains\n%.0f bits with a probability of at most 2^-%.0f (Ville's "
                 "inequality).\n",
                 floor(verdict->least), floor(verdict->least));
}

static void print_no_evidence(const struct coin_verdict *verdict) {
    (void)printf("no evidence: more than %d bits would be, and luck gains that much once in 10^12 "
                 "times.\n",
                 COIN_BITS);
    if (coin_is_evidence(verdict->most))
        (void)printf("The digits given are too few to tell: up to %.0f bits may hide behind the "
                     "last one. Give more.\n",
                     floor(verdict->most));
    if (verdict->gain < -COIN_BITS)
        (void)printf("What the score lost here could hide as large a gain of one part of the "
                     "program over another;\ntest that part with a uniform model under it.\n");
    (void)printf("This says nothing for the score: no test of this kind can show that one is "
                 "valid.\n");
}

static fw_status judge(const struct settings *s, bool *invalid, fw_error *error) {
    struct coin_score score;
    char tokens[TEXT_COMMAS_BYTES];
    FW_TRY(coin_parse_score(s->verdict, &score, error));
    const struct coin_verdict verdict = coin_judge(score, s->tokens, (uint32_t)s->vocabulary);
    (void)printf("%s tokens of %llu cost ln %llu = %.10g nats each; the score is %s, give or take "
                 "%.1g.\n",
                 text_with_commas(s->tokens, tokens), (unsigned long long)s->vocabulary,
                 (unsigned long long)s->vocabulary, log((double)s->vocabulary), s->verdict,
                 score.half_unit);
    (void)printf("gain %.1f bits (from %.1f to %.1f, as the score is rounded)\n", verdict.gain,
                 verdict.least, verdict.most);
    *invalid = verdict.invalid;
    if (verdict.invalid)
        print_invalid(&verdict);
    else
        print_no_evidence(&verdict);
    return FW_OK;
}

static fw_status play(const struct settings *s, const struct arguments *arguments, bool *invalid,
                      fw_error *error) {
    const struct coin_cache_options options = {.arguments = arguments,
                                               .cache = s->cache,
                                               .tokens = s->tokens,
                                               .seed = s->seed,
                                               .vocabulary = (uint32_t)s->vocabulary};
    return coin_cache(&options, invalid, error);
}

static fw_status act(const struct settings *s, const struct arguments *arguments, bool *invalid,
                     fw_error *error) {
    if (s->verdict != NULL) return judge(s, invalid, error);
    return s->cache != NULL ? play(s, arguments, invalid, error) : write_shards(s, error);
}

int cmd_coin(int argc, char **argv) {
    fw_error error = {.struct_size = sizeof error};
    struct arguments arguments;
    struct settings settings = {0};
    bool invalid = false;
    fw_status status = parse(argc, argv, &settings, &arguments, &error);
    if (status == FW_OK && arguments.help) {
        (void)fputs(help, stdout);
        return 0;
    }
    if (status == FW_OK) status = act(&settings, &arguments, &invalid, &error);
    return status == FW_OK && invalid ? 1 : report_failure(status, &error);
}
