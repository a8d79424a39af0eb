fairway_add_test(fit SOURCES test_fit.c LIBRARIES fairway_core)
