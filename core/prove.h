/* Proof by decoding: what of a claim can be restored from a file of its size.
 *
 * The writer codes tokens with the distributions of next_distribution.h, and a decoder process
 * (prove_process.h) that has nothing but the artifact and the file finds them again; both are held
 * against the original here. A verifier has no original: it learns the text and its hash. */
#ifndef FAIRWAY_PROVE_H
#define FAIRWAY_PROVE_H

#include "prove_process.h"
#include "prove_spans.h"
#include "scored_source.h"

struct prove_options {
    const char *artifact, *proof; /* paths; `proof` is written, or read by a verifier */
    struct scored_source source;
    const struct arguments *arguments; /* --set and --plugin-dir */
    uint64_t spans, span_tokens, seed; /* spans 0: all */
    struct prove_environment environment;
    struct progress progress;
};

/* All that is printed. Bytes by the tokenizer's rule are those of the targets, as the scorer counts
 * them. */
struct prove_result {
    bool verified_only; /* nothing but the decoder's side is known */
    bool has_text;      /* a tokenizer was named: `text` is text, else only tokens were compared */
    uint64_t spans, span_tokens;
    uint64_t tokens, text_bytes, rule_bytes;
    uint8_t text_hash[32], tokens_hash[32]; /* SHA-256; tokens as uint16 */
    bool is_source;                         /* the text is that of the source, byte for byte */
    size_t file_bytes, header_bytes, artifact_bytes;
    double claimed_bpb;  /* by the scorer */
    double path_bits;    /* ideal code length of the distributions formed one by one */
    double largest_row;  /* largest difference of a probability to the scorer's row */
    double largest_bits; /* and of a target's code length, in bits */
    double decode_seconds;
    char refused[1100]; /* what the jail refused, harmless as it was */
    char bound_to[512]; /* what it can be decoded on, in words */
    struct bytes text;
    uint16_t *tokens_found; /* those of the decoder */
};

/* Encode, write the file, decode, compare. The file is there only if all went well. Errors:
 * those of scorer_open, scored_corpus_open, evaluate, proof_encode and prove_decode; E_PROTOCOL:
 * other tokens or another text were decoded, or the file is not as long as its code length. */
fw_status prove_write(struct prove_options *options, struct prove_spans *spans,
                      struct prove_result *result, fw_error *error);

/* Decode a file whose text is not known. E_PROTOCOL: it decodes to other tokens than were encoded.
 */
fw_status prove_verify(struct prove_options *options, struct prove_result *result, fw_error *error);

void prove_result_free(struct prove_result *result);

#endif
