fairway_add_test(prediction SOURCES test_prediction.c LIBRARIES fairway_core)
