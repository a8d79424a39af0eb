# fairway_bundle_sources(TARGET NAME file...)
#
# Beside the plugins, NAME.src: a tar of the target's sources, the same bytes at every build. The host packs
# these to count the bytes of code.
function(fairway_bundle_sources target name)
  set(relative)
  foreach(file ${ARGN})
    cmake_path(ABSOLUTE_PATH file BASE_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} NORMALIZE)
    cmake_path(RELATIVE_PATH file BASE_DIRECTORY ${CMAKE_SOURCE_DIR})
    list(APPEND relative ${file})
  endforeach()
  list(REMOVE_DUPLICATES relative)
  set(absolute ${relative})
  list(TRANSFORM absolute PREPEND ${CMAKE_SOURCE_DIR}/)
  set(bundle ${FAIRWAY_PLUGIN_DIRECTORY}/${name}.src)
  add_custom_command(OUTPUT ${bundle}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${FAIRWAY_PLUGIN_DIRECTORY}
    COMMAND tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=644
            -C ${CMAKE_SOURCE_DIR} -cf ${bundle} ${relative}
    DEPENDS ${absolute} VERBATIM)
  add_custom_target(${target}-sources ALL DEPENDS ${bundle})
  add_dependencies(${target} ${target}-sources)
  install(FILES ${bundle} DESTINATION ${CMAKE_INSTALL_LIBDIR}/fairway/v0)
endfunction()
