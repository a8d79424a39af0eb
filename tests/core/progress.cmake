fairway_add_test(progress SOURCES test_progress.c workspace.c LIBRARIES fairway_core)
target_compile_definitions(test_progress PRIVATE _XOPEN_SOURCE=700) # posix_openpt
