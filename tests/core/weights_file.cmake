fairway_add_test(weights_file SOURCES test_weights_file.c workspace.c LIBRARIES fairway_core
  DEPENDS device-cpu attention-gqa)
