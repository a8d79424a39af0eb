# Modules that are wrong, or old, or new, in one way each: modules/KIND-ID.c -> KIND-ID.so.
set(test_modules ${CMAKE_CURRENT_BINARY_DIR}/modules)
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/modules/*-*.c)
set(test_module_targets)
foreach(source ${sources})
  get_filename_component(name ${source} NAME_WE)
  add_library(test_module_${name} MODULE ${source})
  set_target_properties(test_module_${name} PROPERTIES PREFIX "" OUTPUT_NAME ${name}
    LIBRARY_OUTPUT_DIRECTORY ${test_modules})
  target_link_libraries(test_module_${name} PRIVATE fairway_compile fairway_sdk)
  list(APPEND test_module_targets test_module_${name})
endforeach()

fairway_add_test(registry SOURCES test_registry.c workspace.c
  LIBRARIES fairway_core DEPENDS ${test_module_targets})
target_compile_definitions(test_registry PRIVATE TEST_MODULES="${test_modules}")
