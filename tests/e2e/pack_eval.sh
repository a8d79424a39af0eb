# train, pack and eval together do what run does; eval needs the artifact alone.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini >run.txt
"$fairway" train tiny.ini --set run.output=trained >train.txt
[ -s trained/weights.fw ] || fail "train leaves no weights"
"$fairway" pack trained >pack.txt
cmp out/model.fairway trained/model.fairway || fail "train + pack is not run"

# The held-out documents, in order, as text: every fifth of the sorted list.
ls text/*.txt | LC_ALL=C sort | awk 'NR % 5 == 0' >held_out.txt
"$fairway" eval --artifact out/model.fairway --data list:held_out.txt >eval.txt
for line in 'sliding 64\/32' 'with cache (ngram)'; do
  [ "$(score "$line" run.txt)" = "$(score "$line" eval.txt)" ] ||
    { cat run.txt eval.txt >&2; fail "eval and run differ in $line"; }
done

mkdir shards
"$fairway" data --out shards/val list:held_out.txt >/dev/null
"$fairway" eval --artifact out/model.fairway --data 'shards/val_*.bin' >shard.txt
[ "$(score 'with cache (ngram)' shard.txt)" = "$(score 'with cache (ngram)' eval.txt)" ] ||
  fail "shards and text differ"

# The batch of windows never changes a score.
"$fairway" eval --artifact out/model.fairway --data list:held_out.txt --set eval.batch=3 >batch.txt
[ "$(score 'with cache (ngram)' batch.txt)" = "$(score 'with cache (ngram)' eval.txt)" ] ||
  fail "eval.batch changes the score"
"$fairway" eval --artifact out/model.fairway --data list:held_out.txt --set cache.plugin=none \
  --set eval.mode=plain >plain.txt
[ "$(score 'plain' plain.txt)" = "$(score 'packed (int8, lzma), plain' run.txt)" ] ||
  fail "plain evaluation differs"

"$fairway" pack trained --weights raw --out raw.fairway --set quantize.plugin=none >/dev/null
"$fairway" eval --artifact raw.fairway --data list:held_out.txt --set eval.mode=plain >raw.txt
awk -v a="$(score 'plain' raw.txt)" -v b="$(score 'raw weights, plain' run.txt)" \
  'BEGIN { exit !(a - b < 0.001 && b - a < 0.001) }' || fail "float16 raw weights score differently"
refuse 'raw or averaged' "$fairway" pack trained --weights both
refuse 'nowhere/resolved.ini' "$fairway" pack nowhere
