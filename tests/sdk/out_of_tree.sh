#!/bin/sh
# A third party's view: install Fairway, build a plugin with CMake and one with a single compiler
# line, and find both with the installed program.
# usage: out_of_tree.sh BUILD_DIRECTORY CMAKE C_COMPILER [PKG_CONFIG]
set -eu
build=$1 cmake=$2 cc=$3 pkg_config=${4:-}
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
prefix=$place/prefix
"$cmake" --install "$build" --prefix "$prefix" >"$place/install.log" 2>&1 || {
  # An incomplete build cannot be installed: run the tests after building everything.
  tail -5 "$place/install.log" >&2
  exit 77
}
template=$prefix/share/fairway/template
fairway=$prefix/bin/fairway
unset FAIRWAY_PLUGIN_PATH || true
HOME=$place/home
export HOME
mkdir -p "$HOME"

# 1. Five lines of CMake; installed for the user, found without being told where.
mkdir "$place/mine"
sed 's/\.id = "template"/.id = "mine"/' "$template/compressor.c" >"$place/mine/mine.c"
cat >"$place/mine/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.25)
project(mine LANGUAGES C)
find_package(Fairway REQUIRED)
fairway_add_plugin(compressor mine)
EOF
"$cmake" -S "$place/mine" -B "$place/mine/build" -DCMAKE_PREFIX_PATH="$prefix" \
  -DCMAKE_C_COMPILER="$cc" >/dev/null
"$cmake" --build "$place/mine/build" >/dev/null
"$cmake" --install "$place/mine/build" >/dev/null
"$fairway" plugins --kind compressor >"$place/list"
grep -q "^compressor  *mine .*$HOME/.local/lib/fairway/v0/compressor-mine.so" "$place/list" || {
  cat "$place/list" >&2
  echo "the plugin built by CMake was not found" >&2
  exit 1
}
exported=$(nm -D --defined-only "$HOME/.local/lib/fairway/v0/compressor-mine.so" | awk '{print $3}')
[ "$exported" = fairway_module_v0 ] || {
  echo "compressor-mine.so exports: $exported" >&2
  exit 1
}

# 2. One line of the compiler.
mkdir "$place/plugins"
flags=-I$prefix/include
case $pkg_config in
'' | *NOTFOUND) ;;
*) flags=$(PKG_CONFIG_PATH=$(dirname "$(find "$prefix" -name fairway.pc)") \
  "$pkg_config" --cflags fairway) ;;
esac
"$cc" -shared -fPIC -O2 -fvisibility=hidden $flags "$template/cache.c" \
  -o "$place/plugins/cache-template.so"
"$fairway" plugins --kind cache --plugin-dir "$place/plugins" >"$place/list"
grep -q "^cache  *template .*$place/plugins/cache-template.so" "$place/list" || {
  cat "$place/list" >&2
  echo "the plugin built by one line was not found" >&2
  exit 1
}
if grep -q 'cannot be used' "$place/list"; then
  cat "$place/list" >&2
  exit 1
fi
