/* The process that a cache of its own sits in: `fairway cache-child`, started by the host with a
 * channel (seat_channel.h) or, to describe a module, with a file to write to (plugin_record.h).
 *
 * It goes to jail before it loads the plugin and gives up the rest before it creates the cache. It
 * ends when the host does. */
#ifndef FAIRWAY_CACHE_CHILD_H
#define FAIRWAY_CACHE_CHILD_H

/* argv[0] is the verb. "serve": answer requests until told to leave. "describe PATH": write what
 * the module says of its caches: a status, then a message or a record. */
int cache_child_main(int argc, char **argv);

#endif
