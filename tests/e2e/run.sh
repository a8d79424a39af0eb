# A run leaves what it promises, learns, and is repeated byte for byte.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini >table.txt
for file in resolved.ini log.jsonl weights.fw model.fairway receipt.json; do
  [ -s "out/$file" ] || fail "out/$file is missing"
done
for line in 'raw weights, plain' 'averaged (ema), plain' 'packed (int8, lzma), plain' 'sliding 64\/32' \
  'with cache (ngram)'; do
  [ -n "$(score "$line" table.txt)" ] || { cat table.txt >&2; fail "the table lacks '$line'"; }
done
grep -q 'model [0-9,]* + code [0-9,]* = [0-9,]* of 16,000,000' table.txt || fail "no line of bytes"

first=$(sed -n 's/.*"step":1,"loss":\([0-9.]*\).*/\1/p' out/log.jsonl)
[ -z "$first" ] && first=$(sed -n 's/.*"loss":\([0-9.]*\).*/\1/p' out/log.jsonl | head -n 1)
last=$(sed -n 's/.*"loss":\([0-9.]*\).*/\1/p' out/log.jsonl | tail -n 1)
awk -v a="$first" -v b="$last" 'BEGIN { exit !(b < a) }' || fail "the loss rose from $first to $last"

"$fairway" run tiny.ini --set run.output=again >again.txt
cmp out/model.fairway again/model.fairway || fail "two runs with one seed differ"
"$fairway" run tiny.ini --set run.output=seeded --set run.seed=2 >/dev/null
differ out/model.fairway seeded/model.fairway "another seed gives the same artifact"

"$fairway" run tiny.ini --set run.output=validated --set run.validate_every=5 >/dev/null
[ "$(grep -c '"what":"raw"' validated/log.jsonl)" -eq 3 ] || fail "expected 2 validations and the last"
cmp out/model.fairway validated/model.fairway || fail "validation changed the training"

"$fairway" run tiny.ini --set run.output=micro --set run.micro_batch=3 >micro.txt
awk -v a="$(score 'raw weights, plain' table.txt)" -v b="$(score 'raw weights, plain' micro.txt)" \
  'BEGIN { exit !(a - b < 0.01 && b - a < 0.01) }' || fail "micro-batches change the score"

"$fairway" run tiny.ini --set run.output=timed --set run.steps=0 --set run.seconds=1 >timed.txt
grep -q 'steps' timed.txt || fail "a run limited by time reports nothing"

# A feature that changes nothing is refused, but what was made is kept.
refuse 'average.*equals the raw weights' "$fairway" run tiny.ini --set run.steps=1 --set run.output=one
[ -s one/weights.fw ] && [ -s one/receipt.json ] || fail "the work of a refused run is lost"

# The log and the receipt say what the table says.
for what in raw averaged packed final cached; do
  grep -q "\"what\":\"$what\"" out/log.jsonl || fail "the log lacks the score of $what"
done
for key in config_sha256 parameters sha256 sliding cached code_sources average_relative_distance; do
  grep -q "\"$key\"" out/receipt.json || fail "the receipt lacks $key"
done
"$fairway" run tiny.ini --set run.output=bare --set cache.plugin=none --set average.plugin=none >/dev/null
lacks '"cached"' bare/receipt.json "the receipt has a cached score without a cache"
lacks '"averaged"' bare/receipt.json "the receipt has averaged weights without an averager"

"$fairway" train tiny.ini --set run.output=watched --set run.validate_every=4 >/dev/null
grep -q '"what":"raw"' watched/train.jsonl || fail "train ignores run.validate_every"
