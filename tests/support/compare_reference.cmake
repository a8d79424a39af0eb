# cmake -DFAIRWAY=... -DPLUGINS=... -DREFERENCE=docs/ini-reference.md -P compare_reference.cmake
# The committed reference says what this build's plugins say. Plugins that this build lacks (CUDA,
# SentencePiece) may stand in the document alone.
cmake_minimum_required(VERSION 3.25)
set(ENV{FAIRWAY_PLUGIN_PATH} "")
set(ENV{HOME} "/nonexistent")
execute_process(COMMAND ${FAIRWAY} plugins --reference --plugin-dir ${PLUGINS}
  OUTPUT_VARIABLE generated RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "fairway plugins --reference failed")
endif()
file(READ ${REFERENCE} committed)
# Blocks begin with "\n### KIND ID"; what stands before the first is the host's own. A ';' or a
# bracket would split or join CMake's lists.
foreach(text generated committed)
  string(REPLACE ";" "," ${text} "${${text}}")
  string(REPLACE "[" "(" ${text} "${${text}}")
  string(REPLACE "]" ")" ${text} "${${text}}")
  string(STRIP "${${text}}" ${text})
  string(REPLACE "\n\n### " ";" ${text} "${${text}}")
endforeach()
foreach(block IN LISTS generated)
  if(NOT block IN_LIST committed)
    string(REGEX MATCH "^[^\n]*" title "${block}")
    message(SEND_ERROR "docs/ini-reference.md does not match '${title}'; write it again: "
      "fairway plugins --reference > docs/ini-reference.md")
  endif()
endforeach()
