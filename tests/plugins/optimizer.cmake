fairway_conformance(optimizer conform_optimizer.c GPU)
fairway_add_test(optimizer_math SOURCES test_optimizer_math.c golden.c LIBRARIES golden_reference
                 DEPENDS optimizer-adamw optimizer-muon device-cpu)
# golden.c also knows of a folder shared between checkouts, which this test has no use for.
target_compile_definitions(test_optimizer_math PRIVATE
  GOLDEN_DIRECTORY="${CMAKE_CURRENT_LIST_DIR}/../golden" SHARED_DIRECTORY="")
