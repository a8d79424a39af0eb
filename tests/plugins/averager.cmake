fairway_conformance(averager conform_averager.c)
fairway_add_test(ema SOURCES test_ema.c DEPENDS averager-ema device-cpu)
