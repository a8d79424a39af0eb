/* Where time goes inside a device: its table of ops replaced by one that times every call. */
#ifndef OP_TIMES_H
#define OP_TIMES_H

#include <fairway/fairway.h>

typedef struct op_time {
    const char *name;
    uint64_t calls;
    double seconds;
    double flops; /* 0: not counted */
} op_time;

/* Replace the table, before anything keeps a pointer to it; one device at a time. Nothing is timed
 * yet. */
void op_times_install(fw_device *device);
void op_times_remove(void);

/* Time every op from here on, waiting for the device around each. */
void op_times_start(void);

/* Stop; the ops that were called, the longest first. The array is valid until the next start. */
const op_time *op_times_stop(size_t *n);

#endif
