fairway_add_test(batches SOURCES test_batches.c workspace.c LIBRARIES fairway_core)
