/* The host's own INI keys, as tables: what fw_param says of each, and where its value goes; and the
 * sections that choose plugins. */
#ifndef FAIRWAY_CONFIG_KEYS_H
#define FAIRWAY_CONFIG_KEYS_H

#include "config.h"

/* What a text value means, beyond its fw_param type. */
enum key_text {
    KEY_PLAIN = 0,
    KEY_SOURCES, /* a list of corpus sources (corpus.h): each made absolute */
    KEY_PLUGIN,  /* a plugin's name or path */
    KEY_NAME,    /* default: the INI's name without directory and .ini */
    KEY_OUTPUT   /* a path; default runs/NAME in the working directory */
};

struct core_key {
    fw_param param;
    size_t offset; /* in struct experiment: int64_t, bool, double or const char * by type */
    enum key_text text;
};

struct core_section {
    const char *name;
    const char *doc;
    const struct core_key *keys;
    size_t n_keys;
};

struct plugin_section {
    const char *name;
    uint32_t kind;
    const char *default_plugin; /* NULL for [device], which [run] device names */
    const char *doc;
    size_t
        offset; /* of its plugin_choice in struct experiment; for [attention] see config_private.h
                 */
};

enum { N_CORE_SECTIONS = 4, N_PLUGIN_SECTIONS = 11 };
extern const struct core_section core_sections[N_CORE_SECTIONS];
extern const struct plugin_section plugin_sections[N_PLUGIN_SECTIONS];

/* True when the key may stand in the text of an artifact; with key NULL, when any of the section
 * may. "attention.3" counts as "attention". */
bool key_in_artifact(const char *section, const char *key);

/* NULL when there is none. */
const struct core_section *core_section_find(const char *name);
const struct core_key *core_key_find(const struct core_section *section, const char *key);
const struct plugin_section *plugin_section_find(const char *name);

#endif
