#include "coin.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "seeds.h"

void coin_toss(struct random *random, uint32_t sides, uint64_t n, uint16_t *tokens) {
    for (uint64_t i = 0; i < n; i++) tokens[i] = (uint16_t)random_below(random, sides);
}

fw_status coin_fresh_seed(uint64_t *seed, fw_error *error) {
    uint64_t bits;
    if (getentropy(&bits, sizeof bits) != 0)
        return fw_fail(error, FW_E_IO, "the kernel gives no random seed: %s", strerror(errno));
    *seed = bits % ((uint64_t)LARGEST_SEED + 1);
    return FW_OK;
}

double coin_cost(uint64_t n, uint32_t sides) { return (double)n * log2((double)sides); }

double coin_gain(double nats, uint64_t n, uint32_t sides) {
    return coin_cost(n, sides) - nats / log(2.0);
}

bool coin_is_evidence(double gain) { return !(gain <= COIN_BITS); }

/* ---- the score of another program ---- */

/* The length of the digits of `text`, with how many of them stand behind its point; 0: no number.
 */
static size_t scan_digits(const char *text, int *behind) {
    size_t length = 0, digits = 0;
    bool point = false;
    *behind = 0;
    for (; isdigit((unsigned char)text[length]) || (text[length] == '.' && !point); length++) {
        if (text[length] == '.')
            point = true;
        else
            digits++;
        if (point && text[length] != '.') ++*behind;
    }
    return digits > 0 ? length : 0;
}

/* The power of ten behind the digits; false when something else stands there. */
static bool scan_exponent(const char *text, long *exponent) {
    *exponent = 0;
    if (*text == '\0') return true;
    if (*text != 'e' && *text != 'E') return false;
    const char *digits = text + 1;
    if (*digits == '-' || *digits == '+') digits++;
    if (!isdigit((unsigned char)*digits) || strlen(digits) > 4) return false;
    char *end;
    *exponent = strtol(text + 1, &end, 10);
    return *end == '\0';
}

fw_status coin_parse_score(const char *text, struct coin_score *score, fw_error *error) {
    int behind;
    long exponent = 0;
    const size_t length = scan_digits(text, &behind);
    const double value = length > 0 ? strtod(text, NULL) : NAN;
    if (length == 0 || !scan_exponent(text + length, &exponent) || !isfinite(value))
        return fw_fail(error, FW_E_CONFIG,
                       "\"%s\" is no score; write its nats per token with all digits there are, "
                       "such as 6.931472",
                       text);
    *score = (struct coin_score){value, 0.5 * pow(10, (double)exponent - behind)};
    return FW_OK;
}

struct coin_verdict coin_judge(struct coin_score score, uint64_t n, uint32_t sides) {
    const double total = (double)n, lowest = fmax(score.value - score.half_unit, 0);
    const double least = coin_gain(total * (score.value + score.half_unit), n, sides);
    return (struct coin_verdict){.gain = coin_gain(total * score.value, n, sides),
                                 .least = least,
                                 .most = coin_gain(total * lowest, n, sides),
                                 .invalid = coin_is_evidence(least)};
}
