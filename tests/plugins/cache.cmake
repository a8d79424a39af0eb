fairway_conformance(cache conform_cache.c)
target_sources(conform_cache PRIVATE cache_player.c)
target_link_libraries(conform_cache PRIVATE fairway_core)
fairway_add_test(ngram SOURCES test_ngram.c ngram_reference.c cache_player.c
  LIBRARIES fairway_core DEPENDS cache-ngram cache-ngram_counts)
