# Tokens that nobody can predict: written for any program, and scores of them judged.
. "$(dirname "$0")/common.sh"

"$fairway" coin --output coin --tokens 20K --vocab 256 --seed 7 >written.txt || fail "coin"
grep -q '^20,000 tokens, each uniform below 256, seed 7: coin_000000.bin$' written.txt || fail "what was written"
[ "$(wc -c <coin_000000.bin)" -eq 41024 ] || fail "the shard's size"
"$fairway" data --info coin_000000.bin | grep -q 'tokens *20000$' || fail "data --info"
"$fairway" coin --output again --tokens 20K --vocab 256 --seed 7 >again.txt || fail "coin again"
cmp coin_000000.bin again_000000.bin || fail "a seed gives other tokens the second time"
"$fairway" coin --output fresh --tokens 20K --vocab 256 >fresh.txt || fail "a fresh seed"
differ coin_000000.bin fresh_000000.bin "a fresh seed gives the tokens of seed 7"
seed=$(sed -n 's/.*seed \([0-9]*\):.*/\1/p' fresh.txt)
"$fairway" coin --output replayed --tokens 20K --vocab 256 --seed "$seed" >replayed.txt || fail "the seed shown"
cmp fresh_000000.bin replayed_000000.bin || fail "the seed shown is not the one used"

refuse 'coin_000000.bin exists already.*--force' "$fairway" coin --output coin --tokens 5 --vocab 256
refuse '65537 is out of range' "$fairway" coin --output c --tokens 5 --vocab 65537
refuse '\-\-tokens N is missing' "$fairway" coin --output c --vocab 256
refuse 'what for' "$fairway" coin --tokens 5 --vocab 256
refuse 'five" is no score' "$fairway" coin --verdict five --tokens 5 --vocab 256
refuse 'did you mean --vocab' "$fairway" coin --verdict 5 --tokens 5 --vocabs 256

# judge CODE SCORE WORDS: the verdict on 800,000 tokens of 1,024.
judge() {
  code=0
  "$fairway" coin --verdict "$2" --tokens 800K --vocab 1024 >verdict.txt 2>stderr.txt || code=$?
  [ "$code" -eq "$1" ] || fail "exit code $code for $2"
  grep -q "$3" verdict.txt || { cat verdict.txt >&2; fail "does not say '$3' of $2"; }
  [ ! -s stderr.txt ] || fail "an error for $2"
}
judge 1 5.0231 '^INVALID'
judge 1 5.0231 'at most 2^-2202501 '
judge 0 6.9315 '^no evidence'
lacks '[Ii]nvalid\|INVALID' verdict.txt "a mark without evidence"
judge 0 6.93 'digits given are too few to tell'
judge 0 8.1 'could hide as large a gain'

# Caches that play alone: an honest one gains nothing, the hashed one what its collisions give it.
for cache in ngram tilt; do
  "$fairway" coin --cache $cache --tokens 50K --vocab 256 --seed 7 >$cache.txt || fail "$cache plays"
  lacks 'INVALID:' $cache.txt "a mark on an honest cache"
  grep -q 'uniform rows, 50,000 .*the coin itself .* 400000.0 *0\.0$' $cache.txt || fail "what 50,000 bytes cost"
done
code=0
"$fairway" coin --cache ngram_hashed --tokens 20K --vocab 1024 --seed 7 --set cache.table_size=16384 \
  >hashed.txt || code=$?
[ "$code" -eq 1 ] || fail "exit code $code for the hashed cache"
grep -q 'with cache (ngram_hashed).*INVALID: a chance of at most 2^-[0-9]\{5\}$' hashed.txt || fail "no mark"
grep 'counterpart (ngram)' hashed.txt >counterpart.txt || fail "no honest cache beside it"
lacks 'INVALID' counterpart.txt "a mark on the counterpart"
# Its gain is the shard's: the same tokens, which the seed decides.
"$fairway" coin --cache ngram_hashed --tokens 20K --vocab 1024 --seed 7 --set cache.table_size=16384 \
  >again.txt || [ $? -eq 1 ]
[ "$(grep INVALID: hashed.txt)" = "$(grep INVALID: again.txt)" ] || fail "a seed gives another gain the second time"
# The cache that plays is the one that scores: of the run's seed, in a process of its own or not.
broken=$(cd "$(dirname "$fairway")/../lib/broken" && pwd)
for isolate in no yes; do
  "$fairway" coin --cache broken --plugin-dir "$broken" --tokens 20K --vocab 256 --seed 7 --set cache.way=seeded \
    --set eval.isolate=$isolate >seeded.txt || fail "a cache that asks for seeds, isolate = $isolate"
  grep 'with cache (broken)' seeded.txt >seeded-$isolate.txt || fail "no score of it, isolate = $isolate"
done
cmp seeded-no.txt seeded-yes.txt || fail "another seed in a process of its own"
refuse 'none does nothing' "$fairway" coin --cache none --tokens 5 --vocab 256
refuse "no cache plugin 'nowhere'" "$fairway" coin --cache nowhere --tokens 5 --vocab 256
refuse '\[cache\], \[counterpart\] and \[eval\]' "$fairway" coin --cache ngram --tokens 5 --vocab 256 --set run.seed=1
refuse "has no key 'orderz'" "$fairway" coin --cache ngram --tokens 5 --vocab 256 --set cache.orderz=1
refuse '\-\-set means nothing to --output' "$fairway" coin --output c --tokens 5 --vocab 256 --set cache.plugin=none

# In a run: an honest cache and the model pass, in table and receipt; a replay by the seed is the same.
"$fairway" run tiny.ini --set eval.coin=3000 --set run.output=honest >honest.txt 2>progress.txt || fail "a run with a coin"
lacks 'INVALID:' honest.txt "a mark on an honest run"
for line in 'model.coin  *pass *3,000' 'cache.coin-uniform  *pass *3,000' 'cache.coin-model  *pass *3,000' \
  'cache.coin-drawn  *pass'; do
  grep -q "$line" honest.txt || fail "no verdict: $line"
done
tr -d '\n\t ' <honest/receipt.json >receipt.txt
grep -q '"coin":{"seed":[0-9]*,.*"uniform":{"tokens":3000,' receipt.txt || fail "no coin in the receipt"
grep -q '"probe":"cache.coin-drawn","verdict":"pass"' receipt.txt || fail "no verdict in the receipt"
seed=$(sed -n 's/.*"coin":{"seed":\([0-9]*\),.*/\1/p' receipt.txt)
# The artifact carries eval.coin, so scoring it again plays again, on the tokens of the seed asked for.
"$fairway" eval --artifact honest/model.fairway --data 'text:text/*4.txt text:text/*9.txt' \
  --set "eval.coin_seed=$seed" >replay.txt 2>progress.txt || fail "eval with a coin"
for line in 'uniform rows, 3,000' "the model's rows, 3,000"; do
  [ "$(grep "$line" honest.txt)" = "$(grep "$line" replay.txt)" ] || fail "seed $seed gives other bits the second time"
done
grep -q "seed $seed;" replay.txt || fail "the replay's seed"

# A cheat: no score at all, or one that is marked wherever it stands.
hashed='--set cache.plugin=ngram_hashed --set cache.table_size=1024 --set eval.coin=3000'
refuse 'sums to one' "$fairway" run tiny.ini $hashed
"$fairway" run tiny.ini $hashed --set eval.on_violation=report --set run.output=cheat >cheat.txt 2>progress.txt ||
  fail "the cheat, reported"
grep -q 'cache.coin-uniform  *FAIL *3,000  it gains [0-9]* bits' cheat.txt || fail "the cheat passes"
grep -q 'counterpart.coin-uniform  *pass' cheat.txt || fail "its counterpart does not"
grep -q 'with cache (ngram_hashed).*INVALID' cheat.txt || fail "no mark in the table"
tr -d '\n\t ' <cheat/receipt.json >receipt.txt
grep -q '"cached":{"bits":[0-9.]*,"gain_bits":[0-9.]*,"valid":false}' receipt.txt || fail "no mark in the receipt"
grep -q '"cached":{"bpb":[^}]*"valid":false' receipt.txt || fail "no mark on the score"
refuse 'coin = -1 is out of range' "$fairway" run tiny.ini --set eval.coin=-1
refuse 'coin_seed = 1000000000000000 is out of range' "$fairway" run tiny.ini --set eval.coin_seed=1000000000000000
