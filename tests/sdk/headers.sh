#!/bin/sh
# Every public header compiles alone, without a warning, as C11 and as C++17.
# usage: headers.sh INCLUDE_DIRECTORY C_COMPILER CXX_COMPILER [CLANG]
set -eu
include=$1 cc=$2 cxx=$3 clang=${4:-}
warnings="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only"
case $clang in *NOTFOUND) clang= ;; esac
failed=0
compile() { # COMPILER LANGUAGE STANDARD HEADER
  if ! printf '#include <fairway/%s>\n' "$4" |
    "$1" -x "$2" "-std=$3" $warnings -I "$include" -; then
    echo "$4 does not compile alone as $3 with $1" >&2
    failed=1
  fi
}
for path in "$include"/fairway/*.h; do
  header=${path##*/}
  compile "$cc" c c11 "$header"
  compile "$cxx" c++ c++17 "$header"
  if [ -n "$clang" ]; then
    compile "$clang" c c11 "$header"
    compile "$clang" c++ c++17 "$header"
  fi
done
exit $failed
