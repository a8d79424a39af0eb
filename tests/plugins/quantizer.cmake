fairway_conformance(quantizer conform_quantizer.c)
target_sources(conform_quantizer PRIVATE guarded.c quantizer_samples.c quantizer_streams.c)
fairway_add_test(int8_golden SOURCES test_int8_golden.c golden.c DEPENDS quantizer-int8)
target_compile_definitions(test_int8_golden PRIVATE
  GOLDEN_DIRECTORY="${CMAKE_SOURCE_DIR}/tests/golden"
  SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
