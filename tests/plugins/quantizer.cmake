fairway_conformance(quantizer conform_quantizer.c GPU)
target_sources(conform_quantizer PRIVATE guarded.c quantizer_samples.c quantizer_streams.c)
fairway_add_test(int8_golden SOURCES test_int8_golden.c golden.c DEPENDS quantizer-int8)
target_compile_definitions(test_int8_golden PRIVATE
  GOLDEN_DIRECTORY="${CMAKE_SOURCE_DIR}/tests/golden"
  SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
fairway_add_test(int6_mixed SOURCES test_int6_mixed.c int6_run.c golden.c
  DEPENDS quantizer-int6_mixed)
target_compile_definitions(test_int6_mixed PRIVATE
  GOLDEN_DIRECTORY="${CMAKE_SOURCE_DIR}/tests/golden"
  SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
fairway_add_test(fake_floor SOURCES test_fake_floor.c
  DEPENDS quantizer-int8 quantizer-int6_mixed device-cpu)
