/* Parameters describe themselves: the host parses, range-checks and documents a plugin's INI keys
 * from its table, rejects unknown keys, and hands create() typed values in the order of the table.
 */
#ifndef FAIRWAY_PARAM_H
#define FAIRWAY_PARAM_H

#include "abi.h"

typedef enum fw_param_type {
    FW_PARAM_BOOL = 1,   /* yes/no, true/false, on/off, 1/0      -> fw_value.integer 1 or 0 */
    FW_PARAM_INT = 2,    /* decimal; suffix K, M, G = 10^3, 10^6, 10^9 -> fw_value.integer */
    FW_PARAM_FLOAT = 3,  /* as strtod reads it                    -> fw_value.real */
    FW_PARAM_STRING = 4, /* any text                              -> fw_value.text */
    FW_PARAM_ENUM = 5,   /* one of `choices`                      -> fw_value.integer, its index */
    FW_PARAM_PATH = 6    /* relative paths start at the INI file  -> fw_value.text */
} fw_param_type;

typedef struct fw_param {
    uint32_t struct_size;
    uint32_t type;              /* fw_param_type */
    const char *key;            /* INI key: lower case, digits, underscores */
    const char *default_text;   /* parsed as if typed by the user; NULL: the key is required */
    double min, max;            /* inclusive, for INT and FLOAT; ignored when min > max */
    const char *const *choices; /* NULL-terminated, for ENUM; else NULL */
    const char *unit;           /* "tokens", "nats", ...; NULL or "" when it has none */
    const char *doc;            /* one line, without a full stop */
} fw_param;

/* One parsed value; which member holds it follows from the parameter's type. Text is owned by the
 * host and lives as long as the instance it was given to. */
typedef union fw_value {
    int64_t integer;
    double real;
    const char *text;
} fw_value;

/* For tables: FW_PARAM_RANGE(FW_PARAM_INT, "heads", "8", 1, 1024, "", "query heads"). */
#define FW_PARAM_RANGE(type_, key_, default_, min_, max_, unit_, doc_)                             \
    { sizeof(fw_param), type_, key_, default_, min_, max_, NULL, unit_, doc_ }
#define FW_PARAM_PLAIN(type_, key_, default_, doc_)                                                \
    { sizeof(fw_param), type_, key_, default_, 1.0, 0.0, NULL, NULL, doc_ }
#define FW_PARAM_CHOICE(key_, default_, choices_, doc_)                                            \
    { sizeof(fw_param), FW_PARAM_ENUM, key_, default_, 1.0, 0.0, choices_, NULL, doc_ }

#endif
