# Compiler settings that every target of Fairway shares, as the interface target fairway_compile.
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(FAIRWAY_PLUGIN_DIRECTORY ${CMAKE_BINARY_DIR}/lib/fairway/v0)

find_package(OpenMP REQUIRED COMPONENTS C)
find_package(Threads REQUIRED)

add_library(fairway_compile INTERFACE)
target_compile_options(fairway_compile INTERFACE
  $<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wall -Wextra -Wpedantic -Wshadow -ffp-contract=off>
  $<$<COMPILE_LANGUAGE:C>:-Wconversion>
  $<$<AND:$<BOOL:${FAIRWAY_WERROR}>,$<NOT:$<COMPILE_LANGUAGE:CUDA>>>:-Werror>
  $<$<CONFIG:Release>:-O3>)
target_compile_definitions(fairway_compile INTERFACE _POSIX_C_SOURCE=200809L _DEFAULT_SOURCE)
if(FAIRWAY_SANITIZE)
  target_compile_options(fairway_compile INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1)
  target_link_options(fairway_compile INTERFACE -fsanitize=address,undefined)
endif()
