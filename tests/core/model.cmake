fairway_add_test(model SOURCES test_model.c LIBRARIES fairway_core
                 DEPENDS device-cpu attention-gqa attention-xsa)
fairway_add_test(score SOURCES test_score.c LIBRARIES fairway_core)
fairway_add_test(artifact SOURCES test_artifact.c LIBRARIES fairway_core)
