fairway_add_test(model SOURCES test_model.c tiny_model.c wrapped_device.c workspace.c LIBRARIES fairway_core
                 DEPENDS device-cpu attention-gqa attention-xsa)
fairway_add_test(model_memory SOURCES test_model_memory.c wrapped_device.c workspace.c
                 LIBRARIES fairway_core
                 DEPENDS device-cpu attention-xsa optimizer-muon optimizer-adamw averager-ema_swa)
target_compile_definitions(test_model_memory PRIVATE CONFIGS="${CMAKE_SOURCE_DIR}/configs")
fairway_add_test(score SOURCES test_score.c LIBRARIES fairway_core)
fairway_add_test(artifact SOURCES test_artifact.c LIBRARIES fairway_core)
fairway_add_test(decoder SOURCES test_decoder.c tiny_model.c wrapped_device.c workspace.c
                 LIBRARIES fairway_core DEPENDS device-cpu attention-gqa attention-xsa)
fairway_add_test(calibration SOURCES test_calibration.c tiny_model.c workspace.c LIBRARIES fairway_core
                 DEPENDS device-cpu attention-gqa attention-xsa)
