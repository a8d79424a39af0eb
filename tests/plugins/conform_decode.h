/* Conformance of attention plugins that decode: what is decoded is what forward gives. Each test
 * is skipped for a plugin that does not. */
#ifndef CONFORM_DECODE_H
#define CONFORM_DECODE_H

#include "conform_layer.h"

extern conform target; /* of conform_attention.c */

void decoding_is_whole_or_absent(void **state);
void decoding_gives_what_forward_gives(void **state);
void decoding_keeps_to_the_window(void **state);
void decoding_at_far_positions(void **state);
void states_take_turns(void **state);
void decoding_takes_more_than_forward(void **state);
void decoding_refuses(void **state);

#endif
