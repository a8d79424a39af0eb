# Proof by decoding: frequencies, coder, file.
foreach(part frequencies arithmetic_coder proof_file)
  fairway_add_test(${part} SOURCES test_${part}.c LIBRARIES fairway_core)
endforeach()
