# Stand-ins for every plugin that an INI names by default, so that configurations are tested alone.
set(stand_ins ${CMAKE_CURRENT_BINARY_DIR}/stand_ins)
set(stand_in_targets)
function(add_stand_in kind id constant)
  set(target stand_in_${kind}_${id})
  add_library(${target} MODULE ${CMAKE_CURRENT_SOURCE_DIR}/modules/stand_in.c)
  set_target_properties(${target} PROPERTIES PREFIX "" OUTPUT_NAME ${kind}-${id}
    LIBRARY_OUTPUT_DIRECTORY ${stand_ins})
  target_compile_definitions(${target} PRIVATE
    STAND_IN_KIND=${constant} STAND_IN_ID="${id}" ${ARGN})
  target_link_libraries(${target} PRIVATE fairway_compile fairway_sdk)
  list(APPEND stand_in_targets ${target})
  set(stand_in_targets ${stand_in_targets} PARENT_SCOPE)
endfunction()
add_stand_in(device cpu FW_DEVICE STAND_IN_DEVICE=1)
add_stand_in(device cuda FW_DEVICE STAND_IN_DEVICE=0 STAND_IN_DEVICES=FW_CUDA)
add_stand_in(tokenizer bytes FW_TOKENIZER)
add_stand_in(tokenizer needy FW_TOKENIZER STAND_IN_REQUIRED)
add_stand_in(attention gqa FW_ATTENTION)
add_stand_in(attention xsa FW_ATTENTION STAND_IN_EXTRA)
add_stand_in(attention gpu FW_ATTENTION STAND_IN_DEVICES=FW_CUDA)
add_stand_in(optimizer muon FW_OPTIMIZER)
add_stand_in(optimizer adamw FW_OPTIMIZER)
add_stand_in(averager ema FW_AVERAGER)
add_stand_in(quantizer int8 FW_QUANTIZER)
add_stand_in(compressor lzma FW_COMPRESSOR)
add_stand_in(cache ngram FW_CACHE STAND_IN_EXTRA)
add_stand_in(cache none FW_CACHE)

foreach(part params config config_read)
  fairway_add_test(${part} SOURCES test_${part}.c workspace.c
    LIBRARIES fairway_core DEPENDS ${stand_in_targets})
  target_compile_definitions(test_${part} PRIVATE TEST_STAND_INS="${stand_ins}")
endforeach()
fairway_add_test(config_artifact SOURCES test_config_artifact.c workspace.c LIBRARIES fairway_core
  DEPENDS ${stand_in_targets} device-cpu attention-gqa quantizer-int8 compressor-lzma cache-ngram)
target_compile_definitions(test_config_artifact PRIVATE TEST_STAND_INS="${stand_ins}")
fairway_add_test(host SOURCES test_host.c workspace.c
  LIBRARIES fairway_core DEPENDS compressor-store cache-none)
