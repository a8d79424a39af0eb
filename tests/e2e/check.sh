# fairway check: what it teaches and refuses; honest caches and models pass, alone and in an artifact; what the
# audit of a scoring shows, and that it can be switched off.
. "$(dirname "$0")/common.sh"

"$fairway" check --help >help.txt
for word in usage examples future-flip snapshot 'Exit code' '\-\-seed' '\-\-set eval.isolate=yes'; do
  grep -q -e "$word" help.txt || fail "the help does not speak of $word"
done

refuse 'what? --cache NAME' "$fairway" check
refuse 'one of the two' "$fairway" check --cache none --artifact x
refuse '\-\-data SOURCE is missing' "$fairway" check --artifact x
refuse '\-\-data: a cache alone' "$fairway" check --cache none --data x
refuse '\-\-vocab: an artifact has' "$fairway" check --artifact x --data y --vocab 9
refuse 'tokens = 63 is out of range' "$fairway" check --cache none --tokens 63
refuse 'vocab = 1 is out of range' "$fairway" check --cache none --vocab 1
refuse 'seconds = 0 is out of range' "$fairway" check --cache none --seconds 0
refuse 'seed = -1 is out of range' "$fairway" check --cache none --seed -1
refuse 'unexpected' "$fairway" check none
refuse 'cache-nowhere.so' "$fairway" check --cache nowhere
refuse "\\[cache\\] cache ngram has no key 'ordr'" "$fairway" check --cache ngram --set cache.ordr=3
refuse 'nowhere.fairway' "$fairway" check --artifact nowhere.fairway --data 'text:text/*.txt'

# Every cache that states distributions passes, and the same seed gives the same lines.
for cache in none ngram tilt; do
  "$fairway" check --cache "$cache" --tokens 512 --vocab 256 --seed 11 >"$cache.txt" ||
    { cat "$cache.txt" >&2; fail "$cache does not pass"; }
  grep -q '^No probe failed' "$cache.txt" || fail "no verdict on $cache"
  lacks FAIL "$cache.txt" "a probe of $cache fails"
  for probe in protocol sum target-independence score-before-update zero-weight replay fresh-process threads \
    batching future-flip document-edges coin; do
    grep -q "^  cache.$probe  *pass  *[1-9]" "$cache.txt" || { cat "$cache.txt" >&2; fail "$cache: $probe"; }
  done
done
grep -q '^  cache.delivery  *pass' none.txt || fail "none is counts_only"
grep -q '^  cache.snapshot  *skipped .*it offers none' none.txt || fail "none has no snapshot"
"$fairway" check --cache none --tokens 512 --vocab 256 --seed 11 >again.txt
cmp none.txt again.txt || fail "the same seed, other lines"
"$fairway" check --cache none --tokens 64 --vocab 2 >tiny.txt || { cat tiny.txt >&2; fail "two tokens"; }
"$fairway" check --cache none --tokens 64 >fresh.txt
[ "$(sed -n 's/.*(seed \([0-9]*\)).*/\1/p' fresh.txt)" != "$(sed -n 's/.*(seed \([0-9]*\)).*/\1/p' tiny.txt)" ] ||
  fail "seeds that could be known"

# In a process of its own the same lines; that it sits there shows when it dies.
"$fairway" check --cache ngram --tokens 512 --vocab 256 --seed 11 --set eval.isolate=yes >apart.txt || fail "isolated"
cmp ngram.txt apart.txt || fail "other verdicts in a process of its own"
code=0
"$fairway" check --cache broken --plugin-dir "$(dirname "$fairway")/../lib/broken" --set cache.way=crash \
  --set eval.isolate=yes >crash.txt || code=$?
[ "$code" -eq 1 ] || fail "a cache that crashes, isolated: exit code $code"
grep -q 'position 0: predict: its process has ended: .*signal 11' crash.txt || fail "not in a process of its own"
code=0
"$fairway" check --cache ngram_hashed --set cache.table_size=1024 --tokens 512 --vocab 256 >hashed.txt || code=$?
[ "$code" -eq 1 ] || fail "the unverified cache: exit code $code"
grep -q '^  cache.sum  *FAIL .*the probabilities sum to' hashed.txt || fail "the unverified cache sums to one"
grep -q '^INVALID: the probe cache.sum fails' hashed.txt || fail "no verdict on the unverified cache"

# An artifact: its cache as above, then cache and model on tokens of its own.
"$fairway" run tiny.ini >run.txt || fail "run"
grep -q '^  cache.replay  *pass  *[1-9]' run.txt || fail "no verdicts in the table"
grep -q '^  model.future-flip  *pass  *[1-9]' run.txt || fail "no verdicts of the model in the table"
tr -d '\n\t ' <out/receipt.json | grep -q '"audit_seed":[1-9][0-9]*,"audit":\[{"probe":"cache.sum","verdict":"pass","positions":[1-9]' ||
  fail "no verdicts in the receipt"
"$fairway" check --artifact out/model.fairway --data 'text:text/1*.txt' --tokens 600 --seed 4 >check.txt ||
  { cat check.txt >&2; fail "an honest artifact does not pass"; }
for probe in cache.replay cache.coin model.future-flip model.batch-independence model.batch-position \
  model.row-sums model.document-edges model.decode; do
  grep -q "^  $probe  *pass  *[1-9]" check.txt || { cat check.txt >&2; fail "$probe"; }
done
"$fairway" check --artifact out/model.fairway --data 'text:text/1*.txt' --tokens 600 --set cache.plugin=none \
  --set eval.batch=1 >one.txt || { cat one.txt >&2; fail "batches of one"; }
grep -q '^  model.batch-position  *skipped' one.txt || fail "a batch of one has one place"
"$fairway" check --artifact out/model.fairway --data 'text:text/1*.txt' --tokens 600 --set eval.mode=stream \
  --set cache.plugin=none >stream.txt || { cat stream.txt >&2; fail "a stream"; }
grep -q '^  model.future-flip  *pass  *[1-9]' stream.txt || fail "a stream is not probed"

# Switched off, nothing is said; the score stays what it is.
"$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' >on.txt
"$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' --set eval.audit=off >off.txt
lacks 'audit:' off.txt "an audit that is off"
[ "$(score 'with cache (ngram)' on.txt)" = "$(score 'with cache (ngram)' off.txt)" ] || fail "the audit changes the score"
"$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' --set eval.audit=full \
  --set eval.audit_seed=99 >full.txt
grep -q '^audit: probe, verdict, positions (seed 99, ' full.txt || fail "another seed than was asked for"
grep -q '^  model.document-edges  *pass' full.txt || fail "a full audit has edges"

# What a row points to stays until the next one: a cache that looks back says so where it does not.
broken=$(cd "$(dirname "$fairway")/../lib/broken" && pwd)
for isolate in no yes; do
  "$fairway" check --cache broken --plugin-dir "$broken" --set cache.way=look_back --set eval.isolate=$isolate >back.txt ||
    { cat back.txt; fail "check changes a row that a cache may still look at, isolate = $isolate"; }
done
