/* A module is one shared object; it exports one constant symbol and lists one or more plugins.
 *
 *     FW_EXPORT extern const fw_module fairway_module_v0;
 *
 * The host loads it with RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE, never unloads it, and refuses it
 * only for its magic, its pointer size, or because it needs a newer host (min_host_minor). */
#ifndef FAIRWAY_PLUGIN_H
#define FAIRWAY_PLUGIN_H

#include "param.h"

FW_BEGIN_DECLS

typedef struct fw_plugin {
    uint32_t struct_size;
    uint32_t kind;       /* fw_kind */
    const char *id;      /* the name in `plugin = ...`: lower case, digits, underscores */
    const char *version; /* the plugin's own, "1.0.0" */
    const char *summary; /* one line */
    const char *vendor;
    const char *license; /* SPDX identifier */
    uint32_t devices;    /* FW_CPU | FW_CUDA: where it can run */
    uint32_t n_params;
    const fw_param *params; /* n_params entries, each params[0].struct_size bytes long */
    const void *vtable;     /* fw_attention, fw_optimizer, ... by kind; struct_size first */
    /* Optional: a table for an extension such as "fairway.x/1" or "com.vendor.y/1", or NULL. */
    const void *(*extension)(const char *id);
} fw_plugin;

typedef struct fw_module {
    uint64_t magic; /* FW_MODULE_MAGIC */
    uint32_t struct_size;
    uint32_t pointer_size;   /* sizeof(void *) */
    uint32_t abi_minor;      /* FW_ABI_MINOR of the headers it was built with */
    uint32_t min_host_minor; /* the oldest host minor version that it can run under */
    uint32_t n_plugins;
    uint32_t reserved;
    const fw_plugin *const *plugins;
} fw_module;

/* The name that the host looks up. */
#define FW_MODULE_SYMBOL "fairway_module_v0"

FW_EXPORT extern const fw_module fairway_module_v0;

/* Define the module of a `.so`: FW_DEFINE_MODULE(&plugin_a, &plugin_b); at file scope. */
#define FW_DEFINE_MODULE(...)                                                                      \
    static const fw_plugin *const fw_module_plugins_[] = {__VA_ARGS__};                            \
    const fw_module fairway_module_v0 = {FW_MODULE_MAGIC,                                          \
                                         sizeof(fw_module),                                        \
                                         sizeof(void *),                                           \
                                         FW_ABI_MINOR,                                             \
                                         0,                                                        \
                                         sizeof fw_module_plugins_ / sizeof fw_module_plugins_[0], \
                                         0,                                                        \
                                         fw_module_plugins_}

FW_END_DECLS

#endif
