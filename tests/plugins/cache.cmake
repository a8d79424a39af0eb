fairway_conformance(cache conform_cache.c)
target_sources(conform_cache PRIVATE cache_player.c)
target_link_libraries(conform_cache PRIVATE fairway_core)
fairway_add_test(ngram SOURCES test_ngram.c ngram_reference.c cache_player.c
  LIBRARIES fairway_core DEPENDS cache-ngram cache-ngram_counts)
fairway_add_test(ngram_hashed SOURCES test_ngram_hashed.c cache_player.c golden.c
  ${CMAKE_SOURCE_DIR}/tests/golden/case_eval_stream.c
  LIBRARIES fairway_core DEPENDS cache-ngram_hashed cache-none device-cpu)
target_include_directories(test_ngram_hashed PRIVATE ${CMAKE_SOURCE_DIR}/tests/golden)
target_compile_definitions(test_ngram_hashed PRIVATE
  GOLDEN_DIRECTORY="${CMAKE_SOURCE_DIR}/tests/golden"
  SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
fairway_add_test(tilt
  SOURCES test_tilt.c tilt_reference.c ngram_reference.c cache_player.c
    ${CMAKE_SOURCE_DIR}/plugins/cache/tilt/curves.c
  LIBRARIES fairway_core DEPENDS cache-tilt cache-ngram)
