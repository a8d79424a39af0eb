# One artifact on the GPU: a stream scores what it scores on the CPU but for bfloat16's rounding, however it is
# cut, and again the same; text is the same for the same seed.
. "$(dirname "$0")/common.sh"
need_gpu

configs=$(cd "$(dirname "$0")/../../configs" 2>/dev/null && pwd) || configs=
[ -n "$configs" ] || fail "the folder of configs is not where it was"
cat >stream.ini <<INI
[run]
base = $configs/seed993-tiny.ini
steps = 100
warmdown_steps = 60
device = cuda
output = $folder/out
[data]
sequence = 256
[model]
layers = 4
value_layers = 2,3
[eval]
mode = stream
window = 128
max_tokens = 40000
stream_check_tokens = 8192
[cache]
plugin = none
INI
"$fairway" run stream.ini >run.txt || fail "run"
text=$(sed -n 's/^validation = //p; s/^train = //p' out/resolved.ini | tail -n 1)

# scored FILE OVERRIDE...: the artifact's score on the run's text, or a part of it.
scored() {
  file=$1
  shift
  set -f
  # shellcheck disable=SC2086
  "$fairway" eval --artifact out/model.fairway --data "$text" --set eval.max_tokens=40000 --set eval.audit=off "$@" >"$file" ||
    fail "eval $*"
  set +f
}
scored gpu.txt --set run.device=cuda
scored cpu.txt --set run.device=cpu
scored odd.txt --set run.device=cuda --set eval.chunk=777
scored again.txt --set run.device=cuda --set eval.chunk=777
gpu=$(score 'stream 128' gpu.txt) cpu=$(score 'stream 128' cpu.txt) odd=$(score 'stream 128' odd.txt)
echo "stream 128: cuda $gpu, in chunks of 777 $odd; cpu $cpu"
awk -v a="$gpu" -v b="$cpu" 'BEGIN { d = a / b - 1; exit !(d < 2e-3 && d > -2e-3) }' || fail "the devices disagree"
awk -v a="$gpu" -v b="$odd" 'BEGIN { d = a / b - 1; exit !(d < 1e-3 && d > -1e-3) }' || fail "chunks move the score"
[ "$(score 'stream 128' again.txt)" = "$odd" ] || fail "two scorings of one artifact differ"
# of the first tokens: label, window, score
first=$(awk '/^    stream/ { print $3 }' gpu.txt) sliding=$(awk '/^    sliding/ { print $3 }' gpu.txt)
awk -v a="$first" -v b="$sliding" 'BEGIN { d = a / b - 1; exit !(d < 0.03 && d > -0.03) }' ||
  fail "the stream scores $first on tokens for which sliding windows give $sliding"

generate() {
  "$fairway" generate --artifact out/model.fairway --set run.device=cuda --prompt "int " --tokens 400 "$@" 2>speed.txt
}
generate >a.txt || fail "generate: $(cat speed.txt)"
generate >b.txt || fail "generate: $(cat speed.txt)"
cmp a.txt b.txt || fail "a seed gives another text the second time"
tail -n 1 speed.txt
