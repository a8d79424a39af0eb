/* Plugin sections: find the plugins, type their keys; and paths made absolute. */
#ifndef FAIRWAY_CONFIG_BIND_H
#define FAIRWAY_CONFIG_BIND_H

#include "config_private.h"

/* Fill every plugin_choice of the experiment; look up and bind those whose kind is in `bind`. */
fw_status config_bind_all(struct config *config, struct registry *registry, uint32_t bind,
                          fw_error *error);

/* Replace a path by its absolute form; "" stays. `directory` is absolute and real. */
fw_status config_absolute(struct config *config, const char *directory, const char **path,
                          fw_error *error);
/* The same for each item of a list of sources, and for plugin names with a '/'. */
fw_status config_absolute_sources(struct config *config, const char *directory, const char **list,
                                  fw_error *error);
fw_status config_absolute_plugin(struct config *config, const char *directory, const char **name,
                                 fw_error *error);

#endif
