/* The host's services to plugins (fairway/host.h), and instances created with them. */
#ifndef FAIRWAY_CORE_HOST_H
#define FAIRWAY_CORE_HOST_H

#include <fairway/host.h>

#include "config.h"

struct host;

struct host_options {
    struct registry *registry;
    uint64_t seed;
    void (*log)(void *argument, uint32_t level, const char *message);
    void (*progress)(void *argument, const char *what, double done, double total);
    double (*seconds_left)(void *argument);
    void *argument;
};

/* The functions may be NULL: logs go to standard error, progress nowhere, time is unlimited. */
fw_status host_create(const struct host_options *options, struct host **host, fw_error *error);
void host_destroy(struct host *host); /* NULL is fine; destroys the device too */

/* The table to hand to create(). */
const fw_host *host_table(struct host *host);

/* Create the device of `choice` (bound) and offer it to instances created from now on.
 * E_UNSUPPORTED: what the plugin made lacks a member that every device has. */
fw_status host_open_device(struct host *host, const struct plugin_choice *choice, fw_error *error);

/* Which of its devices a bound device plugin is to open: its key `ordinal`, else 0. */
int32_t host_device_ordinal(const struct plugin_choice *choice);

/* Call visit(argument, entry) for each plugin that another plugin had instantiated so far, once
 * each, in order of first use: they are part of the run as much as those that the INI names. */
/* Call visit(argument, name, size) for each effect that a plugin stated so far, in order of first
 * mention. */
void host_each_effect(const struct host *host,
                      void (*visit)(void *argument, const char *name, double size), void *argument);

void host_each_instantiated(const struct host *host,
                            void (*visit)(void *argument, const struct registry_entry *entry),
                            void *argument);

#endif
