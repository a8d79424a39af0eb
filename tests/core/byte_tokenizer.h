/* A tokenizer of bytes that needs no plugin: token b is byte b, 256 begins a document if wanted. */
#ifndef TEST_BYTE_TOKENIZER_H
#define TEST_BYTE_TOKENIZER_H

#include <stdbool.h>

#include "support.h"

/* `self` of the table below. */
struct byte_tokenizer {
    bool begin;
    uint8_t fingerprint; /* repeated 32 times */
    uint16_t stray;      /* when not 0, what it wrongly makes of every byte 'X' */
};

extern const fw_tokenizer byte_tokenizer;

#endif
