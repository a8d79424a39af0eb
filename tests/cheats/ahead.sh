# An attention that reads one token ahead: the audit of the real scoring catches it by model.future-flip, so that
# there is no score, or one that is INVALID wherever it stands; `fairway check` names it as well. Its honest twin
# passes.
cheats=$3
. "$(dirname "$0")/../e2e/common.sh"

keys='/^heads/d; /^kv_heads/d; /^rope_dims/d; /^decay/d; /^plugin = ema/d; /^\[average\]/d'
sed "$keys" tiny.ini >ahead.ini
mv ahead.ini tiny.ini

run_with() {
  id=$1
  shift
  "$fairway" run tiny.ini --set "attention.plugin=$id" --set run.steps=4 --plugin-dir "$cheats" "$@"
}

refuse 'the probe model.future-flip fails: position.*there is no score' run_with ahead --set run.output=ahead
[ ! -e ahead/receipt.json ] || fail "a receipt of a score that is none"

run_with ahead --set run.output=marked --set eval.on_violation=report >marked.txt || fail "the marked run"
for line in 'raw weights, plain' 'packed (.*), plain' 'sliding 64\/32' 'with cache (ngram)'; do
  grep -q "$line.*INVALID: the probe model.future-flip fails" marked.txt || { cat marked.txt; fail "no mark on $line"; }
done
grep -q '^  model.future-flip  *FAIL' marked.txt || fail "no verdict in the table"
tr -d '\n\t ' <marked/receipt.json >receipt.txt
grep -q '"audit":\[.*{"probe":"model.future-flip","verdict":"fail","positions":[0-9]*,"why":"position' receipt.txt ||
  fail "no verdict in the receipt"
for score in raw packed sliding cached; do
  grep -q "\"$score\":{[^}]*\"valid\":false" receipt.txt || fail "$score counts in the receipt"
done
refuse 'no score of this run counts' "$fairway" submit marked --output record
"$fairway" compare marked marked >compare.txt 2>&1 || true
grep -q 'INVALID' compare.txt || { cat compare.txt; fail "compare takes it for a score"; }

code=0
"$fairway" check --artifact marked/model.fairway --data 'text:text/1*.txt' --plugin-dir "$cheats" --seed 3 --tokens 300 \
  >check.txt 2>&1 || code=$?
[ "$code" -eq 1 ] || { cat check.txt; fail "check exits with $code"; }
grep -q '^  model.future-flip  *FAIL' check.txt || { cat check.txt; fail "check does not see it"; }
grep -q '^  model.document-edges  *FAIL' check.txt || { cat check.txt; fail "check does not see it at edges"; }
grep -q '^  cache.replay  *pass' check.txt || { cat check.txt; fail "the cache is honest"; }

run_with ahead_honest --set run.output=honest >honest.txt || fail "the twin"
lacks 'INVALID\|FAIL' honest.txt "a mark on the twin"
