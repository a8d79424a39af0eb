#!/bin/sh
# Who may include whom, what the host links, what a plugin exports.
# usage: dependencies.sh SOURCE_DIRECTORY FAIRWAY_BINARY PLUGIN_DIRECTORY
set -eu
source=$1 binary=$2 plugins=$3
failed=0
complain() {
  echo "$*" >&2
  failed=1
}

# FILE <TAB> name, for every #include "name".
quoted() { # DIRECTORY
  find "$1" \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) \
    -exec grep -HE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' {} + |
    sed -E 's/^([^:]*):.*"([^"]*)".*/\1\t\2/'
}

# A quoted include names a file relative to the including one, inside the same room: core, the
# interface, one device, or one kind of plugin, whose members may share code (../half.h). Devices share
# what lies beside them (../check.h), which in turn knows none of them.
check_room() { # ROOM [DIRECTORY whose own files it may include too]
  room=$(realpath "$1") beside=$(realpath "${2:-$1}")
  quoted "$1" >"$list"
  while IFS="$(printf '\t')" read -r file name; do
    target=$(realpath -m "$(dirname "$file")/$name")
    [ -f "$target" ] || complain "$file: \"$name\" is not relative to it"
    case $target in
    "$room"/*) ;;
    "$beside"/*/*) complain "$file: \"$name\" lies outside of $1" ;;
    "$beside"/*) ;;
    *) complain "$file: \"$name\" lies outside of $1" ;;
    esac
  done <"$list"
}
list=$(mktemp)
trap 'rm -f "$list"' EXIT

check_room "$source/sdk/include/fairway"
check_room "$source/core"
for room in "$source"/kernels/*/; do check_room "${room%/}" "$source/kernels"; done
for room in "$source"/plugins/*/; do check_room "${room%/}"; done
found=$(grep -nE '#[[:space:]]*include[[:space:]]*"[^"]*/' "$source"/kernels/*.[ch] || true)
[ -z "$found" ] || complain "what devices share must know none of them: $found"

# Between angle brackets stand the interface and the system, never a header of core or a plugin.
find "$source/core" "$source/kernels" "$source/plugins" \( -name '*.h' -o -name '*.cuh' \) \
  -exec basename {} \; |
  sort -u | while IFS= read -r header; do
  [ -f "/usr/include/$header" ] || printf '<%s>\n/%s>\n' "$header" "$header"
done >"$list"
found=$(grep -rnF -f "$list" "$source/sdk/include" "$source/core" "$source/kernels" \
  "$source/plugins" | grep -E '#[[:space:]]*include' | grep -v '<fairway/' || true)
[ -z "$found" ] || complain "not part of the interface: $found"

# The host runs with or without a GPU and without BLAS: these come with the devices.
libraries=$(ldd "$binary" | grep -iE 'blas|cuda|cudart|nccl|lapack' || true)
[ -z "$libraries" ] || complain "$binary links $libraries"

for module in "$plugins"/*.so; do
  exported=$(nm -D --defined-only "$module" | awk '$2 ~ /[A-Z]/ { print $3 }' | grep -v '^__' || true)
  [ "$exported" = fairway_module_v0 ] || complain "$module exports: $exported"
done
exit $failed
