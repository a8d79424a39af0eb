fairway_conformance(averager conform_averager.c GPU)
fairway_add_test(ema SOURCES test_ema.c DEPENDS averager-ema device-cpu)
fairway_add_test(swa SOURCES test_swa.c DEPENDS averager-swa averager-ema_swa device-cpu)
