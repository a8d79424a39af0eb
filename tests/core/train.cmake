fairway_add_test(qat SOURCES test_qat.c tiny_model.c workspace.c LIBRARIES fairway_core
  DEPENDS device-cpu attention-gqa quantizer-int8 quantizer-none compressor-store)
fairway_add_test(checkpoint SOURCES test_checkpoint.c workspace.c LIBRARIES fairway_core
  DEPENDS device-cpu)
fairway_add_test(train SOURCES test_train.c wrapped_device.c workspace.c
  LIBRARIES fairway_core
  DEPENDS device-cpu attention-gqa quantizer-int8 optimizer-muon optimizer-adamw averager-none averager-ema_swa)
