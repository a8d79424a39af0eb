# A cache that searches the host's memory for what comes next gains in the host's process, where nothing stops
# it, and nothing in a process of its own.
cheats=$3
. "$(dirname "$0")/../e2e/common.sh"

# Text in which eight letters stand in one place alone.
awk 'BEGIN { srand(1); for (i = 0; i < 3000; i++) printf "%c", 97 + int(rand() * 26) }' >random.txt

"$fairway" run tiny.ini --set cache.plugin=none >run.txt || fail "the run"
evaluate() { # ID ISOLATE
  "$fairway" eval --artifact out/model.fairway --data text:random.txt --plugin-dir "$cheats" \
    --set cache.plugin="$1" --set eval.isolate="$2" --set eval.audit=off --set eval.coin=0 >"$1-$2.txt" ||
    fail "$1, isolate = $2"
}
evaluate memory no
evaluate memory yes
evaluate memory_honest yes
model=$(score 'sliding 64\/32' memory-no.txt)
free=$(score 'with cache (memory)' memory-no.txt)
held=$(score 'with cache (memory)' memory-yes.txt)
awk "BEGIN { exit !($free < $model - 1) }" || fail "the cheat does not work: $free, the model $model"
[ "$held" = "$model" ] || fail "in isolation the cheat scores $held, the model $model"
[ "$(score 'with cache (memory_honest)' memory_honest-yes.txt)" = "$model" ] || fail "its honest twin scores otherwise"
