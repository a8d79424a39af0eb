include(FairwaySources)

# fairway_add_plugin(KIND ID [SOURCES file...] [LIBRARIES lib...])
#
# Builds <KIND>-<ID>.so from SOURCES (default: ID.c), exporting one symbol, with its sources counted
# in the source bundle, and registers the conformance test of its kind for it.
function(fairway_add_plugin kind id)
  cmake_parse_arguments(PLUGIN "" "" "SOURCES;LIBRARIES" ${ARGN})
  if(NOT PLUGIN_SOURCES)
    set(PLUGIN_SOURCES ${id}.c)
  endif()
  set(target ${kind}-${id})
  add_library(${target} MODULE ${PLUGIN_SOURCES})
  set_target_properties(${target} PROPERTIES PREFIX ""
    LIBRARY_OUTPUT_DIRECTORY ${FAIRWAY_PLUGIN_DIRECTORY})
  target_link_libraries(${target} PRIVATE fairway_compile fairway_sdk ${PLUGIN_LIBRARIES})
  set(script ${CMAKE_SOURCE_DIR}/sdk/cmake/module.map)
  target_link_options(${target} PRIVATE -Wl,--version-script=${script} -Wl,--no-undefined)
  if(FAIRWAY_SANITIZE)
    target_link_options(${target} PRIVATE -Wl,--undefined=__asan_init -Wl,-z,undefs)
  endif()
  set(bundled ${PLUGIN_SOURCES} CMakeLists.txt)
  foreach(source ${PLUGIN_SOURCES})
    get_filename_component(directory ${source} DIRECTORY)
    file(GLOB headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${directory}/*.h
         ${CMAKE_CURRENT_SOURCE_DIR}/${directory}/*.cuh)
    list(APPEND bundled ${headers})
  endforeach()
  fairway_bundle_sources(${target} ${target} ${bundled})
  install(TARGETS ${target} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/fairway/v0)
  set_property(GLOBAL APPEND PROPERTY FAIRWAY_PLUGINS ${kind}:${id})
endfunction()
