# An artifact that is too large is pruned until it fits with the code, and no more than needed.
. "$(dirname "$0")/common.sh"

number() { # number KEY FILE: the first value of a key of a receipt
  sed -n "s/.*\"$1\":[[:space:]]*\([0-9.]*\).*/\1/p" "$2" | head -n 1
}
mixed="--set quantize.plugin=int6_mixed --set model.mlp_width=256 --set cache.plugin=none --set eval.mode=plain"

"$fairway" run tiny.ini $mixed >full.txt
lacks 'to fit' full.txt "an artifact that fits was pruned"
lacks '"fit"' out/receipt.json "the receipt speaks of fitting without need"
full=$(number total out/receipt.json)
code=$((full - $(number model out/receipt.json)))

# The same weights, 500 bytes less: run and pack agree, byte for byte.
limit=$((full - 500))
"$fairway" run tiny.ini $mixed --set run.output=fitted --set run.size_limit=$limit >fitted.txt
grep -q 'pruned [0-9,]* weights to fit (rate 0\.[0-9]*, [234] encodes; [0-9,]* bytes at rate 1)' fitted.txt ||
  { cat fitted.txt >&2; fail "the table does not say what was pruned"; }
lacks 'OVER' fitted.txt "it is over the limit after all"
[ "$(number total fitted/receipt.json)" -le "$limit" ] || fail "the artifact does not fit"
[ "$(number total fitted/receipt.json)" -gt $((limit - limit / 300)) ] || fail "more was pruned than needed"
for key in rate encodes pruned_weights model_at_rate_1; do
  [ -n "$(number $key fitted/receipt.json)" ] || fail "the receipt lacks $key"
done
differ out/model.fairway fitted/model.fairway "nothing was pruned"
"$fairway" pack out --out packed.fairway --set run.size_limit=$limit >packed.txt
grep -q 'pruned [0-9,]* weights to fit' packed.txt || fail "pack does not say what was pruned"
cmp fitted/model.fairway packed.fairway || fail "pack and run fit differently"

# The less room, the more is pruned, and it always fits.
before=0
for less in 100 300 600 900; do
  "$fairway" pack out --out less.fairway --set run.size_limit=$((full - less)) >less.txt
  [ $(($(wc -c <less.fairway) + code)) -le $((full - less)) ] || fail "$less bytes less do not fit"
  pruned=$(sed -n 's/.*pruned \([0-9,]*\) weights.*/\1/p' less.txt | tr -d ,)
  [ "${pruned:-0}" -gt "$before" ] || { cat less.txt >&2; fail "$less bytes less prune no more"; }
  before=$pruned
done

# What cannot fit is refused with the numbers; the weights are kept.
refuse "even with all pruned (rate 0; [0-9]* at rate 1), the code $code: .*run.size_limit is $((full / 2))" \
  "$fairway" run tiny.ini $mixed --set run.output=tight --set run.size_limit=$((full / 2))
[ -s tight/weights.fw ] || fail "the weights of a run that does not fit are lost"
[ ! -e tight/model.fairway ] || fail "an artifact over the limit was written"
refuse 'run.size_limit is 1;' "$fairway" pack tight --set run.size_limit=1
"$fairway" pack tight --set run.size_limit=$limit >/dev/null
cmp tight/model.fairway packed.fairway || fail "the kept weights pack differently"

# Without fitting, or without a rate to lower, the artifact is what it is.
"$fairway" pack out --out as_is.fairway --set run.size_limit=$limit --set run.fit_size=no >as_is.txt
cmp as_is.fairway out/model.fairway || fail "run.fit_size = no still fits"
"$fairway" run tiny.ini --set run.output=over --set run.size_limit=1000 --set cache.plugin=none >over.txt
grep -q 'OVER THE LIMIT' over.txt || fail "nothing says that int8 is over the limit"
