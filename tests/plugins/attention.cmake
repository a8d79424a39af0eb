fairway_conformance(attention conform_attention.c conform_decode.c conform_layer.c GPU)
fairway_add_test(attention_math SOURCES test_attention_math.c attention_reference.c
                 DEPENDS attention-gqa attention-xsa device-cpu)
