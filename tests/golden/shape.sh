#!/bin/sh
# shape.sh BIN DIR [KEY=VALUE...]: a case of that shape is written by the float64 reference, and the
# program golden holds the host's model against it.
set -e
bin=$1 dir=$2
shift 2
"$bin/golden_make" "$dir" "$@"
exec "$bin/golden" "$dir"
