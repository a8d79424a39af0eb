#include "tokenizer_check.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "coin.h"
#include "random.h"
#include "tokenize.h"

enum {
    LOOKED_AT_FIRST = 256 * 1024, /* bytes of the first documents */
    LOOKED_AT_EVERY = 16,         /* of the later ones */
    PIECE = 4096,                 /* bytes compared at a time */
    MOST_OF_A_PIECE = 4 * PIECE,  /* that it may become */
    EDITS_FREE = 16,              /* in a piece */
    EDITS_OF_FOREIGN = 2,         /* and for each byte that is not ASCII on either side */
    GROWTH_OF_FOREIGN = 4,        /* bytes that one may become */
    REWRITTEN_SHARE = 4,          /* a quarter of a document */
    REWRITTEN_FREE = 64,
    SLACK_SHARE = 1000,
    SLACK_FREE = 64
};

struct tokenizer_check {
    const fw_tokenizer *tokenizer;
    void *self;
    const struct token_table *table;
    struct token_table *own; /* when none was given */
    uint64_t documents, looked_at;
    uint64_t counted, raw;
    struct random chance;
    struct token_buffer again;
    char *decoded;
    size_t capacity;
};

fw_status tokenizer_check_open(const fw_tokenizer *tokenizer, void *self,
                               const struct token_table *table, struct tokenizer_check **check,
                               fw_error *error) {
    if (table != NULL && table->vocabulary < tokenizer->vocabulary(self))
        return fw_fail(error, FW_E_PROTOCOL,
                       "the tokenizer knows %u tokens, and the table that counts their bytes %u",
                       tokenizer->vocabulary(self), table->vocabulary);
    struct tokenizer_check *made = calloc(1, sizeof *made);
    char *decoded = malloc(1); /* so that a text of no bytes has an address, too */
    if (made == NULL || decoded == NULL) {
        free(made);
        free(decoded);
        return fw_fail(error, FW_E_MEMORY, "no memory to check the tokenizer");
    }
    *made = (struct tokenizer_check){
        .tokenizer = tokenizer, .self = self, .table = table, .decoded = decoded, .capacity = 1};
    uint64_t seed = 0;
    fw_status status = coin_fresh_seed(&seed, error);
    made->chance = random_seeded(seed);
    if (status == FW_OK && table == NULL)
        status = token_table_from_tokenizer(tokenizer, self, &made->own, error);
    if (status != FW_OK) {
        tokenizer_check_close(made);
        return status;
    }
    if (table == NULL) made->table = made->own;
    *check = made;
    return FW_OK;
}

void tokenizer_check_close(struct tokenizer_check *check) {
    if (check == NULL) return;
    token_table_destroy(check->own);
    free(check->again.tokens);
    free(check->decoded);
    free(check);
}

/* ---- what tokens stand for ---- */

/* Bytes by the table; what begins a document follows a boundary. `silent`: some count none. */
static uint64_t count_bytes(const struct token_table *table, const uint16_t *tokens, size_t n,
                            bool *silent) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const fw_token_info *info = &table->tokens[tokens[i]];
        const bool inner = i > 0 && !table->tokens[tokens[i - 1]].boundary;
        const uint32_t own = info->base_bytes + (info->leading_space && inner ? 1u : 0u);
        const bool begins = i == 0 && table->begin_token == (int64_t)tokens[0];
        *silent = *silent || (info->boundary && !begins);
        bytes += own;
    }
    return bytes;
}

static fw_status decode(struct tokenizer_check *c, const uint16_t *tokens, size_t n, size_t *bytes,
                        fw_error *error) {
    const size_t most = 1024 + 256 * n;
    *bytes = c->capacity;
    fw_status status = c->tokenizer->decode(c->self, tokens, n, c->decoded, bytes, error);
    if (status == FW_E_BUFFER && *bytes > c->capacity && *bytes <= most) {
        free(c->decoded);
        c->capacity = *bytes;
        c->decoded = malloc(c->capacity);
        if (c->decoded == NULL) {
            c->capacity = 0;
            return fw_fail(error, FW_E_MEMORY, "no memory for a document of %zu bytes", *bytes);
        }
        status = c->tokenizer->decode(c->self, tokens, n, c->decoded, bytes, error);
    }
    if (status == FW_OK && *bytes > c->capacity)
        return fw_fail(error, FW_E_PROTOCOL, "it decodes more bytes than there is room for");
    return status;
}

static fw_status encode_again(struct tokenizer_check *c, const char *text, size_t bytes,
                              const uint16_t *tokens, size_t n, const char *what, fw_error *error) {
    c->again.n = 0;
    FW_TRY(tokenize_document(c->tokenizer, c->self, text, bytes, &c->again, error));
    size_t same = 0;
    while (same < n && same < c->again.n && tokens[same] == c->again.tokens[same]) same++;
    if (same == n && n == c->again.n) return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "%s gives other tokens from token %zu on (%zu before, %zu now); tokens must be "
                   "a function of the text alone",
                   what, same, n, c->again.n);
}

/* ---- whether two texts are the same but for normal forms ---- */

static bool is_blank(char c) { return (unsigned char)c <= ' ' || c == 0x7f; }

/* Copy what is not blank; its length. */
static size_t strip(const char *text, size_t bytes, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++)
        if (!is_blank(text[i])) out[n++] = text[i];
    return n;
}

static size_t count_foreign(const char *text, size_t n) {
    size_t foreign = 0;
    for (size_t i = 0; i < n; i++) foreign += (unsigned char)text[i] >= 0x80;
    return foreign;
}

/* The least number of bytes to take away or to put in that turn `a` into a beginning of `b`, of
 * which `used` is the length; or into all of `b`, when that is `whole`. E. W. Myers, An O(ND)
 * difference algorithm, 1986: reach[k] is how far into `a` so many edits lead on the diagonal k.
 * The middle of `reach` has room for n + m + 1 on either side. */
static size_t count_edits(const char *a, size_t n, const char *b, size_t m, bool whole,
                          size_t *reach, size_t *used) {
    reach[1] = 0;
    for (ptrdiff_t d = 0;; d++)
        for (ptrdiff_t k = -d; k <= d; k += 2) {
            const bool inserted = k == -d || (k != d && reach[k - 1] < reach[k + 1]);
            size_t x = inserted ? reach[k + 1] : reach[k - 1] + 1;
            while (x < n && (size_t)((ptrdiff_t)x - k) < m && a[x] == b[(ptrdiff_t)x - k]) x++;
            reach[k] = x < n ? x : n;
            const ptrdiff_t y = (ptrdiff_t)x - k; /* below 0: more taken away than there is */
            if (x < n || (whole && y < (ptrdiff_t)m)) continue;
            *used = (size_t)y < m ? (size_t)y : m;
            return (size_t)d;
        }
}

struct comparison {
    char *text, *decoded; /* without blanks */
    size_t *reach;
    size_t n, m;
    bool silent; /* a run of unknown characters may be missing: it counts no bytes */
    size_t edits;
    size_t bad; /* where in `text` a piece is another one; SIZE_MAX: nowhere */
};

/* Edits are due to what is not ASCII: normal forms, and signs that stand for unknown characters.
 * edits = taken away + put in, and n - taken away = used - put in, so that both follow. */
static void compare(struct comparison *c) {
    c->bad = SIZE_MAX;
    for (size_t at = 0, other = 0; at < c->n || other < c->m;) {
        const size_t n = c->n - at < PIECE ? c->n - at : PIECE, left = c->m - other;
        const bool last = at + n == c->n;
        const size_t m = left < MOST_OF_A_PIECE ? left : MOST_OF_A_PIECE;
        size_t used = 0;
        const size_t edits = count_edits(c->text + at, n, c->decoded + other, m, last,
                                         c->reach + PIECE + MOST_OF_A_PIECE + 1, &used);
        const size_t foreign =
            count_foreign(c->text + at, n) + count_foreign(c->decoded + other, used);
        const size_t inserted = (used + edits - n) / 2;
        c->edits += edits;
        if ((c->silent ? inserted : edits) > EDITS_FREE + EDITS_OF_FOREIGN * foreign &&
            c->bad == SIZE_MAX)
            c->bad = at;
        at += n;
        other += used;
    }
}

static fw_status judge_text(const struct comparison *c, size_t bytes, size_t uncounted,
                            fw_error *error) {
    if (c->bad != SIZE_MAX)
        return fw_fail(error, FW_E_PROTOCOL,
                       "its tokens decode to another text, where the document has \"%.24s\" (white "
                       "space left out); a score would be of that text, not of this one",
                       c->text + c->bad);
    const size_t own = count_foreign(c->text, c->n), made = count_foreign(c->decoded, c->m);
    const size_t most = bytes / REWRITTEN_SHARE + REWRITTEN_FREE;
    if (made <= GROWTH_OF_FOREIGN * own + uncounted && (uncounted > 0 || c->edits <= most))
        return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "its tokens decode to another text: %zu bytes of %zu are written otherwise, "
                   "more than normal forms of Unicode need",
                   c->edits, bytes);
}

/* `uncounted`: bytes that stand for unknown characters, which the table counts as none. */
static fw_status check_text(const struct tokenizer_check *check, const char *text, size_t bytes,
                            size_t decoded, size_t uncounted, fw_error *error) {
    struct comparison c = {.silent = uncounted > 0,
                           .text = malloc(bytes + 1),
                           .decoded = malloc(decoded + 1),
                           .reach = malloc((2 * (PIECE + MOST_OF_A_PIECE) + 3) * sizeof *c.reach)};
    fw_status status = FW_OK;
    if (c.text == NULL || c.decoded == NULL || c.reach == NULL) {
        status = fw_fail(error, FW_E_MEMORY, "no memory to compare a text of %zu bytes", bytes);
    } else {
        c.n = strip(text, bytes, c.text);
        c.m = strip(check->decoded, decoded, c.decoded);
        c.text[c.n] = '\0';
        compare(&c);
        status = judge_text(&c, bytes, uncounted, error);
    }
    free(c.text);
    free(c.decoded);
    free(c.reach);
    return status;
}

/* ---- documents ---- */

static fw_status look_at(struct tokenizer_check *c, const char *text, size_t bytes,
                         const uint16_t *tokens, size_t n, fw_error *error) {
    const bool begins = n > 0 && c->table->begin_token == (int64_t)tokens[0];
    const size_t first = begins ? 1 : 0;
    size_t decoded;
    bool silent = false;
    const uint64_t counted = count_bytes(c->table, tokens, n, &silent);
    FW_TRY(encode_again(c, text, bytes, tokens, n, "encoding the same text again", error));
    FW_TRY(decode(c, tokens + first, n - first, &decoded, error));
    if (silent ? counted > decoded : counted != decoded)
        return fw_fail(error, FW_E_PROTOCOL,
                       "its table counts %" PRIu64 " bytes for %zu tokens that decode to %zu; bits "
                       "per byte would be off by a factor of %.4g",
                       counted, n, decoded, decoded > 0 ? (double)counted / (double)decoded : 0.0);
    FW_TRY(check_text(c, text, bytes, decoded, decoded - (size_t)counted, error));
    if (silent) return FW_OK;
    return encode_again(c, c->decoded, decoded, tokens, n, "encoding what the tokens decode to",
                        error);
}

/* By chance that no tokenizer can know beforehand. */
static bool is_chosen(struct tokenizer_check *c) {
    return c->looked_at < LOOKED_AT_FIRST || random_below(&c->chance, LOOKED_AT_EVERY) == 0;
}

fw_status tokenizer_check_document(struct tokenizer_check *c, const char *text, size_t bytes,
                                   const uint16_t *tokens, size_t n, fw_error *error) {
    bool silent = false;
    c->documents++;
    c->raw += bytes;
    c->counted += count_bytes(c->table, tokens, n, &silent);
    if (!is_chosen(c)) return FW_OK;
    c->looked_at += bytes;
    fw_error why = {.struct_size = sizeof why};
    const fw_status status = look_at(c, text, bytes, tokens, n, &why);
    if (status == FW_OK) return FW_OK;
    return fw_fail(error, status, "tokenizer, document %" PRIu64 ": %s", c->documents, why.message);
}

fw_status tokenizer_check_bytes(uint64_t counted, uint64_t raw, fw_error *error) {
    if (counted <= raw + raw / SLACK_SHARE + SLACK_FREE) return FW_OK;
    return fw_fail(error, FW_E_PROTOCOL,
                   "the tokenizer's table counts %" PRIu64 " bytes where the text has %" PRIu64
                   "; bits per byte would be off by a factor of %.4g",
                   counted, raw, (double)counted / (double)raw);
}

fw_status tokenizer_check_total(const struct tokenizer_check *c, fw_error *error) {
    return tokenizer_check_bytes(c->counted, c->raw, error);
}
