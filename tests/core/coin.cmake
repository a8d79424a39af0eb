# Uniformly random tokens, and what a score on them says.
fairway_add_test(coin SOURCES test_coin.c workspace.c LIBRARIES fairway_core)
