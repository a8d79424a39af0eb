/* What streams would take when coded byte by byte with the adaptive binary probabilities that LZMA
 * and its kin code literals with: 11 bits, moved by 1/32 of the way at each bit, one set for each
 * byte of an element. A second for 27 M weights; unlike an entropy it sees that neighbouring rows
 * differ, and how fast a compressor learns it. Source: Pavlov, LZMA specification, 2015. */
#ifndef FAIRWAY_ESTIMATE_H
#define FAIRWAY_ESTIMATE_H

#include <fairway/host.h>
#include <fairway/quantizer.h>

/* The sum over all streams, in bytes. E_MEMORY. [deterministic] */
fw_status estimate_bytes(const fw_host *host, const fw_stream *streams, uint32_t n_streams,
                         double *estimate, fw_error *error);

#endif
