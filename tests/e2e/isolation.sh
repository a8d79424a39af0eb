# A cache in a process of its own scores as it does in the host's, and one that breaks the protocol or its
# process costs the score and nothing else: one sentence with plugin, position and value.
. "$(dirname "$0")/common.sh"
broken=$(cd "$(dirname "$fairway")/../lib/broken" && pwd)
broken_cache="--plugin-dir $broken --set cache.plugin=broken --set cache.at=100 --set eval.isolate=yes"

# The scores of a run in every digit of its log.
scores() { sed -n 's/.*"what":"cached".*"bpb":\([0-9.e-]*\),"nats_per_token":\([0-9.e-]*\),.*/\1 \2/p' "$1/log.jsonl"; }
for id in ngram tilt; do
  for isolate in no yes; do
    "$fairway" run tiny.ini --set cache.plugin=$id --set eval.isolate=$isolate --set run.output=$id-$isolate \
      >$id-$isolate.txt || fail "$id, isolate = $isolate"
  done
  [ -n "$(scores $id-no)" ] || fail "no score of $id in the log"
  [ "$(scores $id-no)" = "$(scores $id-yes)" ] || fail "$id scores otherwise in a process of its own"
  lacks 'isolated' $id-no.txt "a cache in the host's process is called isolated"
  grep -q '^  isolated: waited .* answers' $id-yes.txt || fail "the table does not say what isolation cost"
done
tr -d '\n\t ' <ngram-yes/receipt.json | grep -q '"isolation":{"seconds":[0-9.e-]*,"answers":[1-9]' ||
  fail "the receipt does not say what isolation cost"

# The model and its artifact stay, the score does not.
refuse '\[cache\] plugin broken: position 100: predict: .*signal 11' "$fairway" run tiny.ini $broken_cache \
  --set cache.way=crash --set run.output=crashed
[ -s crashed/model.fairway ] && [ -s crashed/weights.fw ] || fail "the artifact or the weights are lost"
lacks 'with cache' stdout.txt "a score of a cache that crashed"
lacks '"what":"cached"' crashed/log.jsonl "a score of a cache that crashed, in the log"
[ ! -e crashed/receipt.json ] || lacks '"cached"' crashed/receipt.json "such a score in the receipt"

# Each way of breaking, on the artifact that is there.
breaks() { # WAY WORDS [SECONDS]
  refuse "\[cache\] plugin broken: .*$2" "$fairway" eval --artifact crashed/model.fairway \
    --data "text:text/*.txt" $broken_cache --set eval.cache_timeout="${3:-10}" --set cache.way="$1"
  lacks 'with cache' stdout.txt "a score in spite of $1"
}
breaks create_error 'create: no instance today'
breaks begin_error 'begin: no stream today'
breaks nan 'position 100: .*mass of token 6 is -\{0,1\}nan'
breaks outside 'position 100: .*tokens are below'
breaks twice 'position 100: .*token 6 twice'
breaks too_many 'position 100: .*more than the'
breaks heavy 'position 100: .*sum to 1.25'
breaks error 'position 100: predict: the cache is tired'
breaks quit 'position 100: predict: .*exit code 7'
breaks values_beyond 'position 100: .*beyond the end of the values'
breaks update_crash 'position 100: .*signal 11'
breaks hang 'position 100: predict: .*not answered for 2 s' 2
breaks create_hang 'eval.cache_timeout' 2

# Processes of caches that this story started: they work in its folder, or in one below it.
here=$(pwd -P)
children() {
  for entry in $(grep -l '[c]ache-child' /proc/[0-9]*/cmdline 2>/dev/null); do
    process=${entry%/cmdline}
    case $(readlink "$process/cwd" 2>/dev/null || true) in "$here" | "$here"/*) echo "${process#/proc/}" ;; esac
  done
}

# await COMMAND...: until it succeeds, 10 s at most.
await() {
  for moment in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do
    if "$@"; then return 0; fi
    sleep 0.5
  done
  return 1
}
some_child() { [ -n "$(children)" ]; }
no_child() { [ -z "$(children)" ]; }

# In the host's process too, where that survives.
refuse '\[cache\] plugin broken: create: failed with status 4711' "$fairway" eval --artifact crashed/model.fairway \
  --data "text:text/*.txt" $broken_cache --set eval.isolate=no --set cache.way=create_status
refuse '\[cache\] plugin broken: begin: no stream today' "$fairway" eval --artifact crashed/model.fairway \
  --data "text:text/*.txt" $broken_cache --set eval.isolate=no --set cache.way=begin_error

# Nobody is left behind: not by those above, nor by a host that is killed while its cache is at work.
no_child || fail "processes of caches are left: $(children)"
"$fairway" eval --artifact crashed/model.fairway --data "text:text/*.txt" $broken_cache --set cache.way=hang \
  --set eval.cache_timeout=600 >/dev/null 2>&1 &
host=$!
await some_child || fail "the process of a cache at work is not found"
kill -9 $host
wait $host 2>/dev/null || true
left=$(children)
if await no_child; then exit 0; fi
kill -9 $left
fail "the process of a cache outlives its host"
