# Proof by decoding: frequencies, coder, file.
foreach(part frequencies arithmetic_coder proof_file)
  fairway_add_test(${part} SOURCES test_${part}.c LIBRARIES fairway_core)
endforeach()
fairway_add_test(next_distribution SOURCES test_next_distribution.c evaluate_fixture.c
  script_cache.c tiny_model.c wrapped_device.c workspace.c LIBRARIES fairway_core
  DEPENDS device-cpu attention-gqa)
fairway_add_test(prove_process SOURCES test_prove_process.c workspace.c LIBRARIES fairway_core)
fairway_add_test(proof_pins SOURCES test_proof_pins.c workspace.c LIBRARIES fairway_core)
