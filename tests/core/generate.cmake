# Text that a model goes on with: choosing tokens, and writing what they say.
fairway_add_test(sampling SOURCES test_sampling.c LIBRARIES fairway_core)
fairway_add_test(text_output SOURCES test_text_output.c LIBRARIES fairway_core)
fairway_add_test(tokenize SOURCES test_tokenize.c byte_tokenizer.c LIBRARIES fairway_core)
