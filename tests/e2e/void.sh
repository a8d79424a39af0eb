# A score that means nothing is refused before the training, and when it is asked for all the same it carries
# its mark wherever it stands, with an honest one beside it.
. "$(dirname "$0")/common.sh"

# Refused before anything is written, with the rule and the way out.
refuse 'sums to one over the vocabulary.*on_violation = report' \
  "$fairway" run tiny.ini --set cache.plugin=ngram_hashed
grep -q '^fairway: command line: \[cache\] plugin ngram_hashed: ' stderr.txt || fail "where the cache was chosen"
refuse 'sums to one' "$fairway" train tiny.ini --set cache.plugin=ngram_hashed
[ ! -e out ] || fail "a run directory before the refusal"
hashed='--set cache.plugin=ngram_hashed --set cache.table_size=1024 --set eval.on_violation=report'
refuse '\[counterpart\] plugin ngram_hashed: it is unverified itself' \
  "$fairway" run tiny.ini $hashed --set counterpart.plugin=ngram_hashed
refuse 'counterpart' "$fairway" run tiny.ini $hashed --set counterpart.plugin=nowhere
refuse 'eval.faithful = yes.*eval.mode = plain' \
  "$fairway" run tiny.ini --set eval.faithful=yes --set eval.mode=plain
[ ! -e out ] || fail "a run directory before the refusal"

# A counterpart that nobody needs is not looked for.
"$fairway" run tiny.ini --set counterpart.plugin=nowhere --set run.output=unused >unused.txt ||
  fail "an unused counterpart is needed"
lacks 'counterpart (' unused.txt "a counterpart of an honest cache"
lacks 'INVALID\|not a fair score\|faithful' unused.txt "a mark on an honest score"
lacks '"valid":false\|"fair":false' unused/log.jsonl "a mark on an honest score"
"$fairway" run unused/resolved.ini --set run.output=again >again.txt || fail "its resolved INI"
cmp unused/model.fairway again/model.fairway || fail "its resolved INI gives another artifact"

# Marked in table, log and receipt; the counterpart scores as it does alone.
"$fairway" run tiny.ini $hashed --set run.output=hashed >hashed.txt || fail "the unverified run"
grep -q 'with cache (ngram_hashed).*INVALID: the distribution sums to .*(largest ' hashed.txt ||
  fail "no mark in the table"
[ "$(score 'counterpart (ngram)' hashed.txt)" = "$(score 'with cache (ngram)' unused.txt)" ] ||
  fail "the counterpart scores otherwise than alone"
grep '"what":"cached"' hashed/log.jsonl | grep '"valid":false' | grep '"mean_sum":' | grep -q '"largest_sum":' ||
  fail "no mark in the log"
grep -q '"what":"counterpart"' hashed/log.jsonl || fail "no counterpart in the log"
tr -d '\n\t ' <hashed/receipt.json >receipt.txt
grep -q '"cached":{[^}]*"valid":false,"mean_sum":[0-9.]*,"largest_sum":[0-9.]*,"why":"[^"]*"}' receipt.txt ||
  fail "no mark in the receipt"
grep -q '"counterpart":{"bpb":' receipt.txt || fail "no counterpart in the receipt"
grep -q '"section":"counterpart","id":"ngram"' receipt.txt || fail "the receipt does not name the counterpart"

# As record 993 counts: marked too, the fair score beside it and equal to that of a fair run.
"$fairway" eval --artifact hashed/model.fairway --data "text:text/*.txt" >fair.txt || fail "eval"
"$fairway" eval --artifact hashed/model.fairway --data "text:text/*.txt" --set eval.faithful=yes >faithful.txt ||
  fail "faithful eval"
grep -q 'sliding 64/32, faithful.*not a fair score' faithful.txt || fail "no mark on the faithful score"
grep -q 'with cache (ngram_hashed).*INVALID.*; not a fair score' faithful.txt || fail "no mark on its cache"
for line in 'sliding 64\/32' 'counterpart (ngram)'; do
  [ "$(score "$line" faithful.txt)" = "$(score "$line" fair.txt)" ] || fail "$line is not the fair one"
done
[ "$(score 'sliding 64\/32, faithful' faithful.txt)" != "$(score 'sliding 64\/32' fair.txt)" ] ||
  fail "faithful counts as fair does"
"$fairway" run tiny.ini $hashed --set eval.faithful=yes --set run.output=faithful >faithful_run.txt ||
  fail "the faithful run"
grep '"what":"final"' faithful/log.jsonl | grep -q '"fair":false' || fail "no mark in the log"
grep '"what":"final_fair"' faithful/log.jsonl >fair.jsonl || fail "no fair score in the log"
lacks '"fair":false' fair.jsonl "the fair score is marked"
tr -d '\n\t ' <faithful/receipt.json >receipt.txt
grep -q '"sliding":{[^}]*"fair":false}' receipt.txt || fail "no mark in the receipt"
grep -q '"sliding_fair":{"bpb":' receipt.txt || fail "no fair score in the receipt"

# Cold caches for each rank: the model's own score stays, the cache's does not.
"$fairway" eval --artifact unused/model.fairway --data "text:text/*.txt" >one.txt || fail "one rank"
"$fairway" eval --artifact unused/model.fairway --data "text:text/*.txt" --set eval.ranks=4 >four.txt || fail "ranks"
[ "$(score 'sliding 64\/32' one.txt)" = "$(score 'sliding 64\/32' four.txt)" ] || fail "ranks change the model's score"
[ "$(score 'with cache (ngram)' one.txt)" != "$(score 'with cache (ngram)' four.txt)" ] || fail "ranks share a cache"
