# One key swaps a part: the run changes, and nothing else needs to be touched.
. "$(dirname "$0")/common.sh"

swap() {
  name=$1
  shift
  "$fairway" run tiny.ini --set "run.output=$name" "$@" >"$name.txt" || fail "$name: the run failed"
}
swap base
swap xsa --set attention.plugin=xsa
differ base/model.fairway xsa/model.fairway "xsa trains the same weights as gqa"
swap last_xsa --set attention.1.plugin=xsa
differ xsa/model.fairway last_xsa/model.fairway "[attention.1] has no effect"
swap store --set compress.plugin=store
[ "$(wc -c <store/model.fairway)" -gt "$(wc -c <base/model.fairway)" ] || fail "store is not larger"
[ "$(score 'packed (int8, store), plain' store.txt)" = "$(score 'packed (int8, lzma), plain' base.txt)" ] ||
  fail "the compressor changed the score"
swap half --set quantize.plugin=none
[ "$(wc -c <half/model.fairway)" -gt "$(wc -c <base/model.fairway)" ] || fail "float16 is not larger"
swap bare --set cache.plugin=none
lacks 'with cache' bare.txt "a cache without a cache"
[ "$(score 'sliding 64\/32' bare.txt)" = "$(score 'sliding 64\/32' base.txt)" ] ||
  fail "the cache changed the model's own score"
swap raw --set average.plugin=none
lacks 'averaged' raw.txt "an average without an averager"
swap adam --set optimizer.matrix.plugin=adamw
differ base/model.fairway adam/model.fairway "adamw trains the same weights as muon"

# A plugin named by its path, and one in a directory of one's own, work like any other.
mkdir mine
cp "$(dirname "$fairway")/../lib/fairway/v0/compressor-lzma.so" mine/compressor-own.so
swap by_path --set "compress.plugin=$folder/mine/compressor-own.so"
cmp base/model.fairway by_path/model.fairway || fail "a plugin named by its path packs otherwise"
