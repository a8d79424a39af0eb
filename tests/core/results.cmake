fairway_add_test(statistics SOURCES test_statistics.c LIBRARIES fairway_core)
foreach(part seeds results submission)
  fairway_add_test(${part} SOURCES test_${part}.c workspace.c LIBRARIES fairway_core)
endforeach()
