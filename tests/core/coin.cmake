# Uniformly random tokens, and what a score on them says.
fairway_add_test(coin SOURCES test_coin.c workspace.c LIBRARIES fairway_core)
fairway_add_test(coin_test SOURCES test_coin_test.c evaluate_fixture.c script_cache.c tiny_model.c
  wrapped_device.c workspace.c LIBRARIES fairway_core DEPENDS device-cpu attention-gqa)
