/* Parameters: text -> typed, range-checked values by a table of fw_param; and the nearest known
 * name. */
#ifndef FAIRWAY_PARAMS_H
#define FAIRWAY_PARAMS_H

#include <fairway/error.h>
#include <fairway/param.h>

/* Parse `text` for `param`. Text values point into `text`. E_RANGE / E_CONFIG: a sentence without
 * location, such as "heads = 99 is out of range: 1 to 64". */
fw_status param_parse(const fw_param *param, const char *text, fw_value *value, fw_error *error);

/* Canonical text of a value (as it is written to the resolved INI); snprintf conventions. Floats
 * round-trip. */
int param_format(const fw_param *param, const fw_value *value, char *out, size_t size);

/* "0.1 to 4", "yes|no", "a|b|c" or "" : for listings and messages. */
int param_range(const fw_param *param, char *out, size_t size);
const char *param_type_name(uint32_t type);

/* Entry `index` of a table whose entries may be longer than this host's fw_param. */
const fw_param *param_at(const fw_param *params, uint32_t index);

/* E_CONFIG when a table is broken (missing key or doc, default that does not parse, repeated key).
 */
fw_status params_check(const fw_param *params, uint32_t n, fw_error *error);

/* The known name nearest to `name` by edit distance, or NULL when none is near enough to suggest.
 */
const char *nearest_name(const char *name, const char *const *known, size_t n_known);

#endif
