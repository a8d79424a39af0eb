fairway_add_test(jail SOURCES test_jail.c workspace.c LIBRARIES fairway_core)
