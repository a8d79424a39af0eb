fairway_conformance(compressor conform_compressor.c)
target_sources(conform_compressor PRIVATE guarded.c)
