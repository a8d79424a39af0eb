/* Everything a plugin needs. Each header also compiles alone, as C11 and as C++17. */
#ifndef FAIRWAY_FAIRWAY_H
#define FAIRWAY_FAIRWAY_H

#include "abi.h"
#include "attention.h"
#include "averager.h"
#include "cache.h"
#include "collective.h"
#include "compressor.h"
#include "device.h"
#include "error.h"
#include "host.h"
#include "layout.h"
#include "ops.h"
#include "optimizer.h"
#include "param.h"
#include "plugin.h"
#include "quantizer.h"
#include "tensor.h"
#include "tokenizer.h"
#include "weight.h"

#endif
