/* What a module says of its caches, as bytes: so that a host can know all of a cache, parameters
 * included, without loading the module into its own process. */
#ifndef FAIRWAY_PLUGIN_RECORD_H
#define FAIRWAY_PLUGIN_RECORD_H

#include <fairway/plugin.h>

#include "bytes.h"

/* Of the module's plugins those of kind cache; of each vtable what it declares and which optional
 * functions it has. */
void plugin_record_write(struct bytes *bytes, const fw_module *module);

/* A module as described, to be checked like one that was loaded. The functions of its vtables are
 * there, but say only that they cannot be called here (E_INTERNAL). E_FORMAT, E_MEMORY. */
struct plugin_record;
fw_status plugin_record_read(const void *data, size_t size, struct plugin_record **record,
                             fw_error *error);
void plugin_record_free(struct plugin_record *record); /* NULL is fine */
const fw_module *plugin_record_module(const struct plugin_record *record);

#endif
