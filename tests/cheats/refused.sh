# A cache that fails a probe during a run: no score; or, where that is asked for, its score is INVALID and the
# model's own is what counts in the receipt and in a record.
cheats=$3
. "$(dirname "$0")/../e2e/common.sh"

refuse 'the probe cache.replay fails: position 0: a second instance.*there is no score' \
  "$fairway" run tiny.ini --set cache.plugin=rescoring --plugin-dir "$cheats"
[ ! -e out/receipt.json ] || fail "a receipt of a score that is none"
[ -s out/model.fairway ] || fail "the artifact is gone with the score"
refuse 'the probe cache.replay fails' "$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' \
  --plugin-dir "$cheats"

"$fairway" run tiny.ini --set cache.plugin=rescoring --plugin-dir "$cheats" --set eval.on_violation=report \
  --set run.output=marked >marked.txt || fail "the marked run"
grep -q 'with cache (rescoring).*INVALID: the probe cache.replay fails: position 0' marked.txt || fail "no mark"
lacks 'sliding 64/32.*INVALID' marked.txt "the model is at fault"
grep '"what":"cached"' marked/log.jsonl | grep '"valid":false' | grep -q '"why":"the probe cache.replay fails' ||
  fail "no mark in the log"
tr -d '\n\t ' <marked/receipt.json >receipt.txt
grep -q '"cached":{[^}]*"valid":false,"why":"theprobecache.replayfails' receipt.txt || fail "no mark in the receipt"
grep -q '"sliding":{[^}]*"bytes":[0-9]*[^}]*}' receipt.txt || fail "no score of the model"
lacks '"sliding":{[^}]*"valid":false' receipt.txt "the model is at fault in the receipt"
"$fairway" submit marked --output record >submit.txt || fail "the model's own score is one"
grep -q 'cached.*INVALID' record/README.md || fail "the record takes the cache's score"

# Refused statements are verdicts in a check of an artifact, too.
code=0
"$fairway" check --artifact out/model.fairway --data 'text:text/1*.txt' --tokens 300 --plugin-dir "$cheats" \
  --set cache.plugin=dense >check.txt 2>&1 || code=$?
[ "$code" -eq 1 ] || { cat check.txt >&2; fail "check exits with $code"; }
grep -q '^  cache.protocol  *FAIL .*must sum to 1' check.txt || { cat check.txt >&2; fail "no verdict"; }
