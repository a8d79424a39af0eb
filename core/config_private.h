/* Shared by the config_*.c files; nobody else's. */
#ifndef FAIRWAY_CONFIG_PRIVATE_H
#define FAIRWAY_CONFIG_PRIVATE_H

#include "config.h"
#include "config_keys.h"

/* The longest line that is read or written. */
enum { CONFIG_LINE_BYTES = 65536, CONFIG_MAX_LAYERS = 256 };

/* One key as the user gave it. [attention.0-6] is stored as [attention.0] ... [attention.6]. */
struct config_entry {
    const char *section, *key, *value;
    const char *where;     /* "FILE:LINE" or "command line" */
    const char *directory; /* absolute; relative paths in the value start here */
    int layer;             /* counts the files and the command line in the order of merging */
    bool hand_me_down;     /* set for another plugin that a later layer replaced */
};

struct entry_list {
    struct config_entry *items;
    size_t n, capacity;
};

struct kept; /* one block of memory that lives as long as the config */

struct config {
    const char *path;      /* of the INI, as given */
    const char *directory; /* its directory, absolute */
    struct entry_list entries;
    int layers; /* merged so far */
    struct kept *kept;
    bool resolved;
    struct experiment experiment;
    struct plugin_choice attention; /* [attention] itself */
};

/* Zeroed memory and formatted text owned by the config; NULL when there is none. */
void *config_keep(struct config *config, size_t bytes);
const char *config_keep_text(struct config *config, const char *format, ...) FW_PRINTF(2, 3);

/* Read the file (or `text`) with its bases into config->entries; then the overrides. */
fw_status config_read(struct config *config, const char *text, const char *const *overrides,
                      size_t n_overrides, fw_error *error);

/* NULL when the key was not given. */
const struct config_entry *config_find(const struct config *config, const char *section,
                                       const char *key);

/* FILE:LINE of a key as given, else the INI: where a complaint about it points. */
const char *config_place(const struct config *config, const char *section, const char *key);

/* "3", "0-6", "0-2,5" -> layers[i] = 1. E_CONFIG: what is wrong with the list, without the list. */
fw_status config_layer_list(const char *text, uint8_t layers[CONFIG_MAX_LAYERS], fw_error *error);

/* Keys that each table allows alone but not together; fills experiment.value_layers. */
fw_status config_check(struct config *config, uint32_t bind, fw_error *error);

/* True when the entry comes from --set. */
bool config_is_override(const struct config_entry *entry);

/* The choice that a plugin section sets; for [attention] the common one. */
struct plugin_choice *config_choice(struct config *config, const struct plugin_section *section);

/* True when inih would read the value back unchanged: one line, trimmed, no " ;", not too long. */
bool config_value_writable(const char *value);

/* What a text is for: to be read again as an INI, to be hashed (with run.seed or without), to
 * travel in an artifact. */
enum config_purpose {
    CONFIG_FOR_INI,
    CONFIG_FOR_HASH,
    CONFIG_FOR_SEEDLESS_HASH,
    CONFIG_FOR_ARTIFACT
};

fw_status config_write(const struct config *config, const char *const *sections,
                       enum config_purpose purpose, char **text, fw_error *error);

#endif
