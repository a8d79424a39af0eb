# Evaluation: the protocol with a cache, and the score of a stream.
fairway_add_test(cache_stream SOURCES test_cache_stream.c script_cache.c workspace.c
  LIBRARIES fairway_core)
fairway_add_test(evaluate SOURCES test_evaluate.c script_cache.c tiny_model.c workspace.c
  LIBRARIES fairway_core DEPENDS device-cpu attention-gqa)
