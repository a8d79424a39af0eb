#!/bin/sh
# shape.sh BIN DIR DEVICE [KEY=VALUE...]: a case of that shape is written by the float64 reference, and the
# program golden holds the host's model on that device against it.
set -e
bin=$1 dir=$2 device=$3
shift 3
"$bin/golden_make" "$dir" "$@"
exec "$bin/golden" "$dir" --device "$device"
