/* The CPU device behind another table: with the optional members that it lacks, so that what the
 * host does with them can be tested, or without any work done, to count what is asked of memory.
 *
 * Ops run at once. What copy_to_host_async copies arrives when a fence behind it is waited for, and
 * what copy_from_host read from pinned memory must then still be there: a host that waits too
 * little fails its test; so must, in device memory, what copy_to_host_beside reads. Graphs record
 * ops and play them again. */
#ifndef TEST_WRAPPED_DEVICE_H
#define TEST_WRAPPED_DEVICE_H

#include <fairway/host.h>
#include <fairway/ops.h>
#include <stdbool.h>

enum {
    WRAP_LINEAR_ACTIVATION = 1, /* its `saved` is what the activation op reads */
    WRAP_PINNED = 2,            /* pinned memory, copies and fences */
    WRAP_CAPTURE = 4,
    WRAP_CAPTURE_REFUSED = 8, /* capture_begin: E_UNSUPPORTED */
    WRAP_CAPTURE_BROKEN = 16, /* capture_end: E_DEVICE, as after a plugin that waits */
    WRAP_COUNTING = 32,       /* nothing is computed, in bfloat16 */
    WRAP_BESIDE = 64          /* with pinned memory: copies beside later work */
};

struct wrapped_device {
    fw_device device; /* first: ops get it */
    fw_ops ops;
    fw_host services; /* the inner host's, with this device */
    fw_device *inner;
    bool counting;
    /* Called after each op that runs; `arguments` is its struct. */
    void (*after)(struct wrapped_device *wrapped, const char *op, const void *arguments);
    void *argument;          /* for `after` */
    size_t allocated;        /* bytes so far, when counting, */
    size_t most;             /* of this many; 0: any */
    int launches, refusals;  /* graphs launched, captures that came to nothing */
    int waits;               /* fences and others that the host waited for */
    struct recorded *record; /* while capturing */
    struct transfer *transfers;
    struct pinned *pinned;
    uint64_t position; /* of the last transfer */
    int64_t calls;     /* that can fail, so far; */
    int64_t fail_at;   /* the one that does, with E_DEVICE; 0: none */
    int live;          /* pieces of device memory, fences and graphs that are not released */
};

/* Wraps the host's device. `wrapped` must not move. */
void wrapped_device_open(struct wrapped_device *wrapped, const fw_host *host, unsigned features);

/* Fails the test when memory, a fence, a graph or a transfer is left. */
void wrapped_device_close(struct wrapped_device *wrapped);

#endif
