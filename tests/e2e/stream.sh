# A stream read once beside sliding windows, and text that a model makes.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini --set run.steps=40 --set run.warmdown_steps=20 --set eval.mode=stream \
  --set eval.stream_check_tokens=1000 --set cache.plugin=none >run.txt || fail "run"
grep -q '^  stream 64 ' run.txt || fail "no score of the stream"
grep -q '^    stream 64 .*on the first 1,000 tokens' run.txt || fail "no score of the first tokens"
grep -q '^    sliding 64/32 .*on the same' run.txt || fail "no sliding score beside it"
tr -d ' \n\t' <out/receipt.json >receipt.txt
grep -q '"stream":{"bpb":' receipt.txt || fail "the receipt lacks the stream"
grep -q '"stream_check":{"targets":999,"stream_bpb":[0-9.]*,"sliding_bpb":[0-9.]*,"seconds":' receipt.txt ||
  fail "the receipt lacks the comparison"

# However it is cut, the score is the same.
score_of() {
  "$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' --set run.device=cpu --set run.threads=2 \
    --set eval.audit=off "$@" >eval.txt || fail "eval $*"
}
score_of --set eval.chunk=1
score 'stream 64' eval.txt >one.txt
for chunk in 7 64 5000; do
  score_of --set eval.chunk=$chunk
  score 'stream 64' eval.txt | cmp - one.txt || fail "chunks of $chunk give another score"
done
score_of --set eval.stream_check_tokens=0
lacks 'on the same' eval.txt "a comparison that was not asked for"
refuse 'eval.faithful' "$fairway" eval --artifact out/model.fairway --data 'text:text/1*.txt' --set eval.faithful=yes

# Text: the prompt first, the same for the same seed, greedy at temperature 0.
generate() {
  out=$1
  shift
  "$fairway" generate --artifact out/model.fairway --set run.device=cpu --set run.threads=2 "$@" >"$out" 2>stderr.txt ||
    { cat stderr.txt >&2; fail "generate $*"; }
}
generate a.txt --prompt "the quick" --tokens 90
generate b.txt --prompt "the quick" --tokens 90
generate c.txt --prompt "the quick" --tokens 90 --seed 8
cmp a.txt b.txt || fail "a seed gives another text the second time"
differ a.txt c.txt "two seeds give one text"
head -c 9 a.txt | grep -q '^the quick$' || fail "does not begin with the prompt"
[ "$(wc -c <a.txt)" -eq 100 ] || fail "90 bytes behind a prompt of 9 and a line's end are $(wc -c <a.txt)"
grep -q 'prompt: 10 tokens in .* s; 90 tokens in .* tokens/s$' stderr.txt || fail "no speed"
generate greedy.txt --prompt "the quick" --tokens 30 --temperature 0 --seed 1
generate again.txt --prompt "the quick" --tokens 30 --temperature 0 --seed 2
cmp greedy.txt again.txt || fail "greedy choices depend on the seed"
generate one.txt --prompt "the quick" --tokens 30 --top-k 1 --temperature 3
cmp greedy.txt one.txt || fail "the best one of one is not the best"
generate p.txt --prompt "the quick" --tokens 30 --top-p 0.000001 --temperature 3
cmp greedy.txt p.txt || fail "the fewest that hold nothing is not the best"
# Far beyond the window, and nothing to go on with.
generate long.txt --prompt "$(cat text/0.txt)" --tokens 300
generate none.txt --prompt "" --tokens 20
grep -q '^prompt: 1 tokens in .* s; ' stderr.txt || fail "an empty prompt is not the beginning of a document"
generate narrow.txt --prompt "$(cat text/0.txt)" --tokens 300 --set eval.window=8
differ long.txt narrow.txt "a window that is set changes nothing"

bad() {
  words=$1
  shift
  refuse "$words" "$fairway" generate --artifact out/model.fairway --set run.device=cpu "$@"
}
bad 'prompt TEXT is missing' --tokens 5
bad 'tokens = 0 is out of range' --prompt x --tokens 0
bad 'temperature = -1 is out of range' --prompt x --temperature -1
bad 'top-p 0 leaves no token' --prompt x --top-p 0
bad 'top-k = 1.5' --prompt x --top-k 1.5
bad 'unexpected' --prompt the quick
# What would change nothing.
for unused in cache.plugin=tilt cache.memory_mb=64 counterpart.plugin=ngram eval.mode=stream eval.chunk=7 \
  eval.batch=2 eval.coin=100 eval.max_tokens=5 run.seed=3 run.steps=3; do
  bad "set $unused: writing a text does not use \[${unused%%.*}\] .*eval.window and run.device" --prompt x --set $unused
done
bad "did you mean 'window'" --prompt x --set eval.windo=7
bad 'did you mean --temperature' --prompt x --temperatur 1
refuse 'artifact FILE is missing' "$fairway" generate --prompt x
refuse 'nowhere' "$fairway" generate --artifact nowhere --prompt x
