# Files, shards, corpora and `fairway data`.
fairway_add_test(files SOURCES test_files.c workspace.c LIBRARIES fairway_core)
fairway_add_test(shard SOURCES test_shard.c workspace.c LIBRARIES fairway_core)
foreach(part corpus corpus_bad corpus_overlap)
  fairway_add_test(${part} SOURCES test_${part}.c corpus_fixture.c byte_tokenizer.c workspace.c
    LIBRARIES fairway_core)
endforeach()
fairway_add_test(corpus_hostile SOURCES test_corpus_hostile.c byte_tokenizer.c workspace.c
  LIBRARIES fairway_core)
fairway_add_test(cmd_data SOURCES test_cmd_data.c workspace.c LIBRARIES fairway_core
  DEPENDS tokenizer-bytes)
target_compile_definitions(test_corpus PRIVATE SHARED_DIRECTORY="${CMAKE_SOURCE_DIR}/../shared")
fairway_add_test(tokenizer_check SOURCES test_tokenizer_check.c byte_tokenizer.c LIBRARIES fairway_core)
