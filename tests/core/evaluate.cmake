# Evaluation: the protocol with a cache, and the score of a stream.
fairway_add_test(relay SOURCES test_relay.c LIBRARIES fairway_core)
fairway_add_test(evaluate_threads SOURCES test_evaluate_threads.c evaluate_fixture.c script_cache.c
  tiny_model.c wrapped_device.c workspace.c LIBRARIES fairway_core
  DEPENDS device-cpu attention-gqa cache-ngram cache-ngram_counts cache-none)
fairway_add_test(elementary SOURCES test_elementary.c LIBRARIES fairway_core)
fairway_add_test(cache_stream SOURCES test_cache_stream.c script_cache.c workspace.c
  LIBRARIES fairway_core)
foreach(part evaluate evaluate_stream evaluate_void audit probe_decode)
  fairway_add_test(${part} SOURCES test_${part}.c evaluate_fixture.c script_cache.c tiny_model.c
    wrapped_device.c workspace.c LIBRARIES fairway_core DEPENDS device-cpu attention-gqa)
endforeach()
fairway_add_test(probe_model SOURCES test_probe_model.c LIBRARIES fairway_core)
fairway_add_test(synthetic SOURCES test_synthetic.c LIBRARIES fairway_core)
