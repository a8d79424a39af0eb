#include "evaluate_coin.h"

#include "coin_test.h"
#include "evaluate_audit.h"

fw_status evaluate_coin(const struct evaluate_options *options, struct coin_result *coin,
                        fw_error *error) {
    const struct eval_keys *keys = &options->experiment->eval;
    struct verdicts verdicts = {.n = 0};
    uint64_t seed = (uint64_t)keys->coin_seed;
    *coin = (struct coin_result){.seed = 0};
    if (keys->coin == 0) return FW_OK;
    if (keys->coin_seed < 0) FW_TRY(coin_fresh_seed(&seed, error));
    FW_TRY(coin_test(options, (uint64_t)keys->coin, seed, coin, error));
    coin_add_verdicts(coin, &verdicts);
    return evaluate_judge(options, &verdicts, error);
}
