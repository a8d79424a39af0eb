/* core/tokenizer_check: what an honest tokenizer may do to a text (normal forms, white space, signs
 * for what it does not know) passes; counting bytes that are not there, other tokens for the same
 * text, and tokens of another text do not. */
#include <stdio.h>
#include <tokenizer_check.h>

#include "byte_tokenizer.h"
#include "support.h"

static fw_error error = {.struct_size = sizeof error};

/* Tokens are bytes; `change` is what the tokenizer makes of a text before, into `out` with room for
 * 4 times as much. Token 255 is for unknown characters: it counts no byte and is decoded as " ? "
 * with U+2047 in the middle. */
static size_t (*change)(const char *text, size_t n, char *out);
enum { UNKNOWN = 255 };
static const char sign[] = " \xe2\x81\x87 ";

static size_t bound(void *self, size_t bytes) { return (void)self, 4 * bytes + 8; }

static fw_status encode(void *self, const char *text, size_t bytes, uint16_t *tokens, size_t *n,
                        fw_error *why) {
    (void)self, (void)why;
    char *changed = malloc(4 * bytes + 8);
    *n = change(text, bytes, changed);
    for (size_t i = 0; i < *n; i++) tokens[i] = (uint8_t)changed[i];
    free(changed);
    return FW_OK;
}

static void token(void *self, uint32_t id, fw_token_info *info) {
    (void)self;
    info->base_bytes = id != UNKNOWN;
    info->boundary = id == UNKNOWN;
    info->leading_space = 0;
}

static fw_status decode(void *self, const uint16_t *tokens, size_t n, char *text, size_t *bytes,
                        fw_error *why) {
    (void)self;
    const size_t room = *bytes;
    size_t used = 0;
    for (size_t i = 0; i < n; i++) used += tokens[i] == UNKNOWN ? sizeof sign - 1 : 1;
    *bytes = used;
    if (used > room) return fw_fail(why, FW_E_BUFFER, "too small");
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] == UNKNOWN)
            for (size_t s = 0; s + 1 < sizeof sign; s++) *text++ = sign[s];
        else
            *text++ = (char)tokens[i];
    }
    return FW_OK;
}

static fw_status check(const char *text) {
    struct byte_tokenizer self = {.begin = false};
    fw_tokenizer table = byte_tokenizer;
    struct tokenizer_check *made = NULL;
    uint16_t *tokens = malloc((4 * strlen(text) + 8) * sizeof *tokens);
    size_t n = 0;
    table.bound = bound;
    table.encode = encode;
    table.decode = decode;
    table.token = token;
    error.message[0] = '\0';
    assert_int_equal(tokenizer_check_open(&table, &self, NULL, &made, &error), FW_OK);
    assert_int_equal(encode(&self, text, strlen(text), tokens, &n, &error), FW_OK);
    fw_status status = tokenizer_check_document(made, text, strlen(text), tokens, n, &error);
    if (status == FW_OK) status = tokenizer_check_total(made, &error);
    tokenizer_check_close(made);
    free(tokens);
    return status;
}

static void expect(const char *text, fw_status status, const char *words) {
    const fw_status found = check(text);
    if (found != status || strstr(error.message, words) == NULL)
        fail_msg("status %d instead of %d: %s", found, status, error.message);
}

/* `part` over and over, as long as a few pieces of the comparison; ends with `tail`. */
static const char *long_text(const char *part, const char *tail) {
    static char text[20000];
    text[0] = '\0';
    size_t n = 0;
    while (n + strlen(part) + strlen(tail) + 1 < sizeof text) {
        memcpy(text + n, part, strlen(part) + 1);
        n += strlen(part);
    }
    memcpy(text + n, tail, strlen(tail) + 1);
    return text;
}

static const char prose[] = "The quick brown fox jumps over 13 lazy dogs; it rests, then goes on. ";

/* ---- honest ---- */

static size_t keep(const char *text, size_t n, char *out) {
    memcpy(out, text, n);
    return n;
}

/* One space for each run of blanks, none at the ends. */
static size_t squeeze(const char *text, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const bool blank = text[i] == ' ' || text[i] == '\n' || text[i] == '\t';
        if (!blank) out[used++] = text[i];
        if (blank && used > 0 && out[used - 1] != ' ') out[used++] = ' ';
    }
    return used > 0 && out[used - 1] == ' ' ? used - 1 : used;
}

/* U+2026 becomes three dots, U+00B2 a 2; and blanks are squeezed. */
static size_t normalise(const char *text, size_t n, char *out) {
    size_t used = 0;
    char *made = malloc(2 * n + 1);
    for (size_t i = 0; i < n; i++) {
        if (i + 2 < n && memcmp(text + i, "\xe2\x80\xa6", 3) == 0) {
            memcpy(made + used, "...", 3);
            used += 3, i += 2;
        } else if (i + 1 < n && memcmp(text + i, "\xc2\xb2", 2) == 0) {
            made[used++] = '2', i++;
        } else {
            made[used++] = text[i];
        }
    }
    used = squeeze(made, used, out);
    free(made);
    return used;
}

/* A run of what is unknown is one sign: braces, underscores and all that is not ASCII. */
static size_t sign_unknown(const char *text, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        const bool known = (unsigned char)text[i] < 0x80 && strchr("{}_\\#", text[i]) == NULL;
        if (known)
            out[used++] = text[i];
        else if (used == 0 || (uint8_t)out[used - 1] != UNKNOWN)
            out[used++] = (char)UNKNOWN;
    }
    return used;
}

static void the_honest_pass(void **state) {
    (void)state;
    change = keep;
    expect("", FW_OK, "");
    expect(long_text(prose, "\xc3\xa9t\xc3\xa9"), FW_OK, "");
    change = squeeze;
    expect(long_text("  The \t quick\n\n brown fox ", " \n"), FW_OK, "");
    change = normalise;
    expect(
        long_text("Wait\xe2\x80\xa6 for x\xc2\xb2  and the rest of a line of words. ", "x\xc2\xb2"),
        FW_OK, "");
}

/* What is unknown may be much of a text, as underscores are of code, also at its end. */
static void what_is_unknown_may_be_missing(void **state) {
    (void)state;
    change = sign_unknown;
    expect(long_text("if (__x_of_it) { y = __builtin_z(__x); } caf\xc3\xa9 ", "{_{_{_{_"), FW_OK,
           "");
    expect(long_text("x ", "#endif // ____________________________________\n\nnoet ts=8 sts=2 tw"),
           FW_OK, "");
    expect("{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{", FW_OK, "");
}

/* Signs that are longer than what stands between them, up to a multiple of 4,096 bytes, where a
 * piece of the comparison ends; and a little more text. It must be met behind them, not given up.
 */
static void a_short_end_behind_many_signs_is_met(void **state) {
    (void)state;
    static char text[8192];
    char *at = text;
    for (int i = 0; i < 4096 - 400; i++) *at++ = (char)('a' + i * i % 23);
    for (int i = 0; i < 100; i++) at = stpcpy(at, "__ab");
    for (int i = 0; i < 470; i++) *at++ = (char)('a' + i * i % 23);
    *at = '\0';
    change = sign_unknown;
    expect(text, FW_OK, "");
}

/* ---- cheats ---- */

static size_t lower(const char *text, size_t n, char *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i];
    return n;
}

static size_t flatten(const char *text, size_t n, char *out) {
    for (size_t i = 0; i < n; i++) out[i] = text[i] == ' ' ? ' ' : 'e';
    return n;
}

static size_t drop_digits(const char *text, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
        if (text[i] < '0' || text[i] > '9') out[used++] = text[i];
    return used;
}

static int compare_bytes(const void *a, const void *b) {
    return *(const unsigned char *)a - *(const unsigned char *)b;
}

static size_t sort(const char *text, size_t n, char *out) {
    memcpy(out, text, n);
    qsort(out, n, 1, compare_bytes);
    return n;
}

/* As flatten, with a sign in each text that would excuse what is missing. */
static size_t flatten_with_sign(const char *text, size_t n, char *out) {
    out[0] = (char)UNKNOWN;
    return 1 + flatten(text, n, out + 1);
}

static size_t append(const char *text, size_t n, char *out) {
    memcpy(out, text, n);
    memset(out + n, 'e', n);
    return 2 * n;
}

static size_t append_with_sign(const char *text, size_t n, char *out) {
    out[0] = (char)UNKNOWN;
    return 1 + append(text, n, out + 1);
}

static size_t remember(const char *text, size_t n, char *out) {
    static int calls;
    memcpy(out, text, n);
    if (n > 0) out[0] = (char)('a' + calls++ % 26);
    return n;
}

/* Each blank twice: it decodes to what it encodes, and counts more than there is. */
static size_t double_blanks(const char *text, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ' || i == 0 || text[i - 1] != ' ') out[used++] = text[i];
        if (text[i] == ' ' && (i == 0 || text[i - 1] != ' ')) out[used++] = ' ';
    }
    return used;
}

static void cheats_are_named(void **state) {
    (void)state;
    static const struct {
        size_t (*change)(const char *text, size_t n, char *out);
        const char *words;
    } cheats[] = {{lower, "decode to another text"},
                  {flatten, "decode to another text"},
                  {drop_digits, "decode to another text"},
                  {sort, "decode to another text"},
                  {append, "decode to another text"},
                  {flatten_with_sign, "decode to another text"},
                  {append_with_sign, "decode to another text"},
                  {remember, "function of the text"},
                  {double_blanks, "bytes where the text has"}};
    for (size_t i = 0; i < sizeof cheats / sizeof cheats[0]; i++) {
        change = cheats[i].change;
        expect(long_text(prose, "THE END 1999."), FW_E_PROTOCOL, cheats[i].words);
    }
}

/* A text shorter than the edits that are free, and much more behind it. */
static size_t append_much(const char *text, size_t n, char *out) {
    memcpy(out, text, n);
    memset(out + n, 'e', 3 * n);
    return 4 * n;
}

static void what_is_put_behind_short_texts_is_seen(void **state) {
    (void)state;
    change = append_much;
    expect("hi there", FW_E_PROTOCOL, "decode to another text");
    expect("a man a plan", FW_E_PROTOCOL, "decode to another text");
}

static void bytes_have_a_little_slack(void **state) {
    (void)state;
    assert_int_equal(tokenizer_check_bytes(1000000, 1000000, &error), FW_OK);
    assert_int_equal(tokenizer_check_bytes(1001064, 1000000, &error), FW_OK);
    assert_int_equal(tokenizer_check_bytes(1001065, 1000000, &error), FW_E_PROTOCOL);
    assert_int_equal(tokenizer_check_bytes(10, 1000000, &error), FW_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_honest_pass),
                                       cmocka_unit_test(what_is_unknown_may_be_missing),
                                       cmocka_unit_test(a_short_end_behind_many_signs_is_met),
                                       cmocka_unit_test(cheats_are_named),
                                       cmocka_unit_test(what_is_put_behind_short_texts_is_seen),
                                       cmocka_unit_test(bytes_have_a_little_slack)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
