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
"$fairway" coin --cache ngram --tokens 50K --vocab 256 --seed 7 >ngram.txt || fail "ngram plays"
lacks 'INVALID:' ngram.txt "a mark on an honest cache"
grep -q 'uniform rows, 50,000 .*the coin itself .* 400000.0 ' ngram.txt || fail "what 50,000 bytes cost"
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
refuse 'none does nothing' "$fairway" coin --cache none --tokens 5 --vocab 256
refuse "no cache plugin 'nowhere'" "$fairway" coin --cache nowhere --tokens 5 --vocab 256
refuse '\[cache\], \[counterpart\] and \[eval\]' "$fairway" coin --cache ngram --tokens 5 --vocab 256 --set run.seed=1
refuse "has no key 'orderz'" "$fairway" coin --cache ngram --tokens 5 --vocab 256 --set cache.orderz=1
refuse '\-\-set means nothing to --output' "$fairway" coin --output c --tokens 5 --vocab 256 --set cache.plugin=none
