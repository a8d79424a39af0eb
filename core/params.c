/* Parameters: text <-> typed values, by a table of fw_param. Used alike for the host's own keys and
 * for those of plugins, so that both read, complain and print in the same way. */
#include "params.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What every host must find in a table's entry; the fields after these are optional. */
#define PARAM_MIN_SIZE (offsetof(fw_param, doc) + sizeof(const char *))
#define PARAM_MAX_SIZE 4096

static fw_status parse_bool(const fw_param *param, const char *text, fw_value *value,
                            fw_error *error) {
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) != 0) continue;
        value->integer = (int64_t)(i % 2);
        return FW_OK;
    }
    return fw_fail(error, FW_E_CONFIG, "%s = %s is neither yes nor no", param->key, text);
}

static fw_status check_range(const fw_param *param, double number, const char *text,
                             fw_error *error) {
    if (param->min > param->max || (number >= param->min && number <= param->max)) return FW_OK;
    char range[96];
    (void)param_range(param, range, sizeof range);
    return fw_fail(error, FW_E_RANGE, "%s = %s is out of range: %s%s%s", param->key, text, range,
                   param->unit != NULL && param->unit[0] != '\0' ? " " : "",
                   param->unit != NULL ? param->unit : "");
}

static bool multiply(int64_t *number, int64_t factor) {
    if (*number > INT64_MAX / factor || *number < INT64_MIN / factor) return false;
    *number *= factor;
    return true;
}

static fw_status parse_int(const fw_param *param, const char *text, fw_value *value,
                           fw_error *error) {
    char *end = NULL;
    errno = 0;
    int64_t number = strtoll(text, &end, 10);
    bool fits = errno == 0;
    const bool digits = end != text && isdigit((unsigned char)end[-1]);
    if (*end == 'K' || *end == 'M' || *end == 'G') {
        fits = fits && multiply(&number, *end == 'K' ? 1000 : *end == 'M' ? 1000000 : 1000000000);
        end++;
    }
    if (!digits || *end != '\0' || isspace((unsigned char)text[0]))
        return fw_fail(error, FW_E_CONFIG,
                       "%s = %s is not an integer (decimal, with K, M or G for 10^3, 10^6, 10^9)",
                       param->key, text);
    if (!fits)
        return fw_fail(error, FW_E_RANGE, "%s = %s does not fit into 64 bits", param->key, text);
    FW_TRY(check_range(param, (double)number, text, error));
    value->integer = number;
    return FW_OK;
}

static fw_status parse_float(const fw_param *param, const char *text, fw_value *value,
                             fw_error *error) {
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || !isfinite(number))
        return fw_fail(error, FW_E_CONFIG, "%s = %s is not a finite number", param->key, text);
    FW_TRY(check_range(param, number, text, error));
    value->real = number;
    return FW_OK;
}

static fw_status parse_enum(const fw_param *param, const char *text, fw_value *value,
                            fw_error *error) {
    size_t n = 0;
    while (param->choices[n] != NULL) n++;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, param->choices[i]) != 0) continue;
        value->integer = (int64_t)i;
        return FW_OK;
    }
    char range[256];
    (void)param_range(param, range, sizeof range);
    const char *near = nearest_name(text, param->choices, n);
    return fw_fail(error, FW_E_CONFIG, "%s = %s is none of %s%s%s%s", param->key, text, range,
                   near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
}

fw_status param_parse(const fw_param *param, const char *text, fw_value *value, fw_error *error) {
    const bool is_text = param->type == FW_PARAM_STRING || param->type == FW_PARAM_PATH;
    if (text[0] == '\0' && !is_text)
        return fw_fail(error, FW_E_CONFIG, "%s has no value", param->key);
    switch (param->type) {
    case FW_PARAM_BOOL: return parse_bool(param, text, value, error);
    case FW_PARAM_INT: return parse_int(param, text, value, error);
    case FW_PARAM_FLOAT: return parse_float(param, text, value, error);
    case FW_PARAM_ENUM: return parse_enum(param, text, value, error);
    case FW_PARAM_STRING:
    case FW_PARAM_PATH: value->text = text; return FW_OK;
    default: return fw_fail(error, FW_E_ABI, "%s has the unknown type %u", param->key, param->type);
    }
}

/* Whole numbers in full, others in the fewest digits that read back as the same double. */
static int format_real(double number, char *out, size_t size) {
    if (fabs(number) < 1e15 && number == floor(number)) return snprintf(out, size, "%.0f", number);
    int length = 0;
    for (int digits = 1; digits <= 17; digits++) {
        length = snprintf(out, size, "%.*g", digits, number);
        char whole[40];
        (void)snprintf(whole, sizeof whole, "%.*g", digits, number);
        if (strtod(whole, NULL) == number) break;
    }
    return length;
}

int param_format(const fw_param *param, const fw_value *value, char *out, size_t size) {
    switch (param->type) {
    case FW_PARAM_BOOL: return snprintf(out, size, "%s", value->integer != 0 ? "yes" : "no");
    case FW_PARAM_INT: return snprintf(out, size, "%" PRId64, value->integer);
    case FW_PARAM_FLOAT: return format_real(value->real, out, size);
    case FW_PARAM_ENUM: return snprintf(out, size, "%s", param->choices[value->integer]);
    default: return snprintf(out, size, "%s", value->text != NULL ? value->text : "");
    }
}

static int join_choices(const char *const *choices, char *out, size_t size) {
    size_t length = 0;
    if (size > 0) out[0] = '\0';
    for (size_t i = 0; choices[i] != NULL; i++) {
        const int n =
            snprintf(length < size ? out + length : NULL, length < size ? size - length : 0, "%s%s",
                     i > 0 ? "|" : "", choices[i]);
        length += (size_t)n;
    }
    return (int)length;
}

int param_range(const fw_param *param, char *out, size_t size) {
    if (param->type == FW_PARAM_BOOL) return snprintf(out, size, "yes|no");
    if (param->type == FW_PARAM_ENUM) return join_choices(param->choices, out, size);
    if ((param->type != FW_PARAM_INT && param->type != FW_PARAM_FLOAT) || param->min > param->max)
        return snprintf(out, size, "%s", "");
    char low[40], high[40];
    (void)format_real(param->min, low, sizeof low);
    (void)format_real(param->max, high, sizeof high);
    if (param->max > 9e18 && param->min < -9e18) return snprintf(out, size, "%s", "");
    if (param->max > 9e18) return snprintf(out, size, "at least %s", low);
    if (param->min < -9e18) return snprintf(out, size, "at most %s", high);
    return snprintf(out, size, "%s to %s", low, high);
}

const char *param_type_name(uint32_t type) {
    static const char *const names[] = {"unknown", "bool", "int", "float",
                                        "string",  "enum", "path"};
    return type < sizeof names / sizeof names[0] ? names[type] : names[0];
}

const fw_param *param_at(const fw_param *params, uint32_t index) {
    return (const fw_param *)(const void *)((const char *)params +
                                            (size_t)index * params[0].struct_size);
}

static bool well_formed(const char *key) {
    if (key[0] < 'a' || key[0] > 'z') return false;
    for (; *key != '\0'; key++)
        if (!(*key >= 'a' && *key <= 'z') && !(*key >= '0' && *key <= '9') && *key != '_')
            return false;
    return true;
}

static fw_status check_one(const fw_param *params, uint32_t index, fw_error *error) {
    const fw_param *param = param_at(params, index);
    if (param->struct_size != params[0].struct_size)
        return fw_fail(error, FW_E_CONFIG, "parameter %u is %u bytes long, the first one %u", index,
                       param->struct_size, params[0].struct_size);
    if (param->key == NULL || !well_formed(param->key))
        return fw_fail(error, FW_E_CONFIG,
                       "the key of parameter %u, '%s', is not of lower case letters, digits and _",
                       index, param->key != NULL ? param->key : "");
    /* The section's own key chooses the plugin, so no parameter can be reached by that name. */
    if (strcmp(param->key, "plugin") == 0)
        return fw_fail(error, FW_E_CONFIG, "no parameter may be called 'plugin'");
    if (param->doc == NULL || param->doc[0] == '\0')
        return fw_fail(error, FW_E_CONFIG, "parameter '%s' lacks its description", param->key);
    if (param->type < FW_PARAM_BOOL || param->type > FW_PARAM_PATH)
        return fw_fail(error, FW_E_CONFIG, "parameter '%s' has the unknown type %u", param->key,
                       param->type);
    if (param->type == FW_PARAM_ENUM && (param->choices == NULL || param->choices[0] == NULL))
        return fw_fail(error, FW_E_CONFIG, "parameter '%s' lists no choices", param->key);
    for (uint32_t i = 0; i < index; i++)
        if (strcmp(param_at(params, i)->key, param->key) == 0)
            return fw_fail(error, FW_E_CONFIG, "parameter '%s' is listed twice", param->key);
    fw_value value;
    fw_error why = {.struct_size = sizeof why};
    if (param->default_text != NULL &&
        param_parse(param, param->default_text, &value, &why) != FW_OK)
        return fw_fail(error, FW_E_CONFIG, "a default does not parse: %s", why.message);
    return FW_OK;
}

fw_status params_check(const fw_param *params, uint32_t n, fw_error *error) {
    if (n == 0) return FW_OK;
    if (params == NULL || n > 1000)
        return fw_fail(error, FW_E_CONFIG, "it announces %u parameters but %s", n,
                       params == NULL ? "has no table" : "at most 1000 are possible");
    if (params[0].struct_size < PARAM_MIN_SIZE || params[0].struct_size > PARAM_MAX_SIZE)
        return fw_fail(error, FW_E_CONFIG, "parameters of %u bytes; %zu is the least",
                       params[0].struct_size, PARAM_MIN_SIZE);
    for (uint32_t i = 0; i < n; i++) FW_TRY(check_one(params, i, error));
    return FW_OK;
}

#define NAME_LIMIT 48

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Edit distance where a swap of two neighbours counts once (Damerau, restricted). */
static size_t distance(const char *a, const char *b) {
    size_t rows[3][NAME_LIMIT + 1];
    size_t *before = rows[0], *above = rows[1], *row = rows[2];
    const size_t n = strlen(a), m = strlen(b);
    for (size_t j = 0; j <= m; j++) above[j] = j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = smaller(row[j], smaller(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = smaller(row[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = above;
        above = row;
        row = oldest;
    }
    return above[m];
}

const char *nearest_name(const char *name, const char *const *known, size_t n_known) {
    const size_t length = strlen(name);
    if (length == 0 || length > NAME_LIMIT) return NULL;
    const char *best = NULL;
    size_t best_distance = 1 + length / 4; /* one typing error, and one more for every 4 letters */
    for (size_t i = 0; i < n_known; i++) {
        if (strlen(known[i]) > NAME_LIMIT) continue;
        const size_t d = distance(name, known[i]);
        if (d > best_distance || (best != NULL && d == best_distance) || d >= length) continue;
        best = known[i];
        best_distance = d;
    }
    return best;
}
