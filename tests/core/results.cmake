fairway_add_test(statistics SOURCES test_statistics.c LIBRARIES fairway_core)
fairway_add_test(seeds SOURCES test_seeds.c workspace.c LIBRARIES fairway_core)
