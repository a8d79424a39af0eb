# docs/ini-reference.md is what `fairway plugins --reference` prints.
if(EXISTS ${CMAKE_SOURCE_DIR}/docs/ini-reference.md)
  add_test(NAME reference COMMAND ${CMAKE_COMMAND} -DFAIRWAY=$<TARGET_FILE:fairway>
    -DPLUGINS=${FAIRWAY_PLUGIN_DIRECTORY} -DREFERENCE=${CMAKE_SOURCE_DIR}/docs/ini-reference.md
    -P ${CMAKE_SOURCE_DIR}/tests/support/compare_reference.cmake)
endif()
