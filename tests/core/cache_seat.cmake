# A cache that breaks the protocol as it is told to: broken, and of the same source broken_unverified and
# broken_slow, which takes its time to be loaded. Used by the tests of the seat and, through the program, by
# e2e.isolation.
set(broken_caches ${CMAKE_BINARY_DIR}/lib/broken)
foreach(id broken broken_unverified broken_slow)
  add_library(test_cache_${id} MODULE broken_cache.c)
  set_target_properties(test_cache_${id} PROPERTIES PREFIX "" OUTPUT_NAME cache-${id}
    LIBRARY_OUTPUT_DIRECTORY ${broken_caches})
  target_compile_definitions(test_cache_${id} PRIVATE CACHE_ID="${id}"
    $<$<STREQUAL:${id},broken_unverified>:UNVERIFIED> $<$<STREQUAL:${id},broken_slow>:SLOW>)
  target_link_libraries(test_cache_${id} PRIVATE fairway_compile fairway_sdk)
endforeach()

foreach(part cache_seat cache_seat_broken)
  fairway_add_test(${part} SOURCES test_${part}.c seat_fixture.c workspace.c LIBRARIES fairway_core
    DEPENDS cache-none cache-ngram cache-ngram_counts cache-ngram_hashed cache-tilt test_cache_broken
    test_cache_broken_unverified test_cache_broken_slow)
  target_compile_definitions(test_${part} PRIVATE BROKEN_CACHES="${broken_caches}"
    TEST_MODULES="${CMAKE_CURRENT_BINARY_DIR}/modules")
endforeach()
