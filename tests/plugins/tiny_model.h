/* A SentencePiece model of 320 pieces, trained when first asked for, so that the plugin is tested
 * without a model file in the repository. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#ifdef __cplusplus
extern "C" {
#endif

/* Path of the model: BPE, byte fallback, NFKC; BOS is token 1. It is removed at exit. NULL when
 * training failed. In static memory. */
const char *tiny_model_path(void);

#ifdef __cplusplus
}
#endif

#endif
