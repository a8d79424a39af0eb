/* Entries of an experiment, collected section by section and merged layer over layer. */
#ifndef FAIRWAY_CONFIG_ENTRIES_H
#define FAIRWAY_CONFIG_ENTRIES_H

#include "config_private.h"

/* One file or the command line while it is read: its entries, and the section that is open. */
struct scope {
    struct config *config;
    struct entry_list entries; /* free items after merging */
    const char *directory;     /* for relative paths in the values */
    const char *section;       /* NULL before the first */
    const char *base, *base_where;
    bool in_layers;                    /* the section is [attention.LAYERS] */
    uint8_t layers[CONFIG_MAX_LAYERS]; /* and applies to these */
};

/* Open a section; the name is the config's. Errors without location, as those of scope_set:
 * E_CONFIG for what is unknown, malformed or set twice, with the nearest known name. */
fw_status scope_enter(struct scope *scope, const char *section, fw_error *error);

/* Set a key of the open section; `where` names its place and is the config's. */
fw_status scope_set(struct scope *scope, const char *name, const char *text, const char *where,
                    fw_error *error);

fw_status entry_push(struct entry_list *list, struct config_entry entry, fw_error *error);
struct config_entry *entry_find(const struct entry_list *list, const char *section,
                                const char *key);

/* Lay `layer` over the config's entries. */
fw_status config_merge(struct config *config, const struct entry_list *layer, fw_error *error);

/* Read "section.key=value" overrides as the topmost layer. */
fw_status config_read_overrides(struct config *config, const char *const *overrides, size_t n,
                                fw_error *error);

#endif
