fairway_conformance(tokenizer conform_tokenizer.c)
fairway_add_test(tokenizer_bytes SOURCES test_tokenizer_bytes.c DEPENDS tokenizer-bytes)

# SentencePiece: a tiny model is trained by the tests themselves.
find_library(SENTENCEPIECE_TRAIN_LIBRARY sentencepiece_train)
if(TARGET tokenizer-sentencepiece AND SENTENCEPIECE_TRAIN_LIBRARY)
  add_library(tiny_model STATIC tiny_model.cpp)
  target_include_directories(tiny_model SYSTEM PRIVATE ${SENTENCEPIECE_INCLUDE_DIR})
  target_compile_definitions(tiny_model INTERFACE TINY_MODEL)
  target_link_libraries(tiny_model PRIVATE fairway_compile
    ${SENTENCEPIECE_TRAIN_LIBRARY} ${SENTENCEPIECE_LIBRARY})
  target_link_libraries(conform_tokenizer PRIVATE tiny_model)

  find_package(PkgConfig REQUIRED)
  pkg_check_modules(LZMA REQUIRED IMPORTED_TARGET liblzma)
  pkg_check_modules(CJSON REQUIRED IMPORTED_TARGET libcjson)
  fairway_add_test(sentencepiece SOURCES test_sentencepiece.c golden.c
    LIBRARIES tiny_model PkgConfig::LZMA PkgConfig::CJSON DEPENDS tokenizer-sentencepiece)
  target_compile_definitions(test_sentencepiece PRIVATE
    SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
endif()
