# A run that is killed goes on from its checkpoint and ends with the same artifact; what is no
# checkpoint of this run is refused, and costs nothing.
. "$(dirname "$0")/common.sh"

cat >long.ini <<'INI'
[run]
base = tiny.ini
steps = 400
warmdown_steps = 300
checkpoint_every = 25
priming_steps = 2
qat_below = 0.5
log_every = 5
[average]
plugin = ema_swa
decay = 0.9
every = 20
below = 0.4
INI

"$fairway" run long.ini --set run.output=straight >/dev/null

# Killed twice, at whatever moment follows the checkpoint that is waited for.
kill_after() { # kill_after STEP ARGUMENTS...: run, and kill -9 once the checkpoint of STEP is logged
  step=$1
  shift
  "$fairway" run long.ini --set run.output=killed "$@" >/dev/null 2>&1 &
  process=$!
  waited=0
  until grep -q "\"step\":$step,.*\"event\":\"checkpoint\"" killed/log.jsonl 2>/dev/null; do
    kill -0 "$process" 2>/dev/null || fail "the run ended before it could be killed"
    waited=$((waited + 1))
    [ "$waited" -lt 3000 ] || fail "no checkpoint of step $step after a minute"
    sleep 0.02
  done
  kill -9 "$process"
  wait "$process" 2>/dev/null || true
  [ ! -e killed/model.fairway ] || fail "killed too late"
}
kill_after 50
printf '{"step":77,"los' >>killed/log.jsonl
printf half >killed/checkpoint.fw.tmp-1
lines=$(grep -c . killed/log.jsonl)
kill_after 150 --resume
grep -q '"los$' killed/log.jsonl && fail "half a line is left in the log"
[ ! -e killed/checkpoint.fw.tmp-1 ] || fail "half a checkpoint is left"
"$fairway" run long.ini --set run.output=killed --resume >table.txt
cmp straight/model.fairway killed/model.fairway || fail "the resumed run has another artifact"
cmp straight/weights.fw killed/weights.fw || fail "the resumed run has other weights"
[ "$(grep -c '"event":"resume"' killed/log.jsonl)" -eq 2 ] || fail "the log lacks the two resumptions"
[ "$(grep -c . killed/log.jsonl)" -gt "$lines" ] || fail "the log lost lines"
for effect in qat_changed_weights swa_snapshots swa_relative_distance; do
  a=$(sed -n "s/.*\"$effect\":[^0-9]*\([0-9.e-]*\).*/\1/p" straight/receipt.json)
  b=$(sed -n "s/.*\"$effect\":[^0-9]*\([0-9.e-]*\).*/\1/p" killed/receipt.json)
  [ -n "$a" ] && [ "$a" = "$b" ] || fail "$effect is '$a' in the straight run and '$b' in the resumed one"
done

# A finished run that is resumed ends the same; so does `train`, whose checkpoint `run` may take up.
"$fairway" run long.ini --set run.output=killed --resume >/dev/null
cmp straight/model.fairway killed/model.fairway || fail "resuming a finished run changed its artifact"
"$fairway" train long.ini --set run.output=killed --resume >stdout.txt
grep -q 'for 400 steps' stdout.txt || fail "train --resume does not say what it did"
cmp straight/weights.fw killed/weights.fw || fail "train --resume has other weights"
"$fairway" run killed/resolved.ini --resume >/dev/null
cmp straight/model.fairway killed/model.fairway || fail "the resolved INI cannot be resumed"

mkdir other
cp -r text other/text
printf 'another word ' >>other/text/0.txt

# What is refused leaves everything as it was.
(cd killed && sha256sum ./*) >before.txt
resume() { "$fairway" run long.ini --set run.output=killed --resume "$@"; }
refuse 'killed/checkpoint.fw belongs to other settings .*resolved.ini' resume --set run.steps=500
refuse 'killed/checkpoint.fw belongs to other settings' resume --set optimizer.matrix.learning_rate=0.01
refuse 'killed/checkpoint.fw belongs to other training data' resume --set 'data.train=text:other/text/*.txt'
(cd killed && sha256sum ./*) | cmp -s before.txt - || fail "a refused --resume changed files"
cp killed/checkpoint.fw good
for damage in truncated flipped foreign empty; do
  case $damage in
  truncated) head -c 100000 good >killed/checkpoint.fw; words='truncated or damaged' ;;
  flipped)
    cp good killed/checkpoint.fw
    printf 'X' | dd of=killed/checkpoint.fw bs=1 seek=200000 conv=notrunc 2>/dev/null
    words='truncated or damaged'
    ;;
  foreign) cp killed/weights.fw killed/checkpoint.fw; words='not a checkpoint' ;;
  empty) : >killed/checkpoint.fw; words='not a checkpoint' ;;
  esac
  refuse "killed/checkpoint.fw: $words" resume
  [ -s killed/model.fairway ] || fail "a $damage checkpoint cost the artifact"
done
rm killed/checkpoint.fw
refuse 'killed/checkpoint.fw: there is no checkpoint to resume from; run.checkpoint_every' resume
mkdir killed/checkpoint.fw
refuse 'killed/checkpoint.fw' resume
refuse 'nowhere/checkpoint.fw: there is no checkpoint' \
  "$fairway" run long.ini --set run.output=nowhere --resume
[ ! -e nowhere ] || fail "a refused --resume made a directory"
refuse 'did you mean --resume' "$fairway" run long.ini --resum

# Starting over without --resume keeps the checkpoint until there is a new one.
rmdir killed/checkpoint.fw
cp good killed/checkpoint.fw
"$fairway" run long.ini --set run.output=killed --set run.checkpoint_every=0 --set run.steps=20 \
  --set run.warmdown_steps=18 --set average.every=1 >/dev/null
cmp good killed/checkpoint.fw || fail "a run without checkpoints removed one"

# Several seeds: those that were not begun begin, the others go on.
few() { "$fairway" run tiny.ini --set run.output=few --set run.seeds=1,2 --set run.checkpoint_every=5 "$@"; }
refuse 'few/seed-1/checkpoint.fw: there is no checkpoint' few --resume
few >/dev/null
cp few/seed-1/model.fairway first.fairway
cp few/seed-2/model.fairway second.fairway
rm -r few/seed-2 few/results.json
few --resume >/dev/null
cmp first.fairway few/seed-1/model.fairway || fail "a seed that was resumed has another artifact"
cmp second.fairway few/seed-2/model.fairway || fail "a seed that began on --resume has another artifact"
grep -q '"event":"resume"' few/seed-1/log.jsonl || fail "the first seed began anew"
[ -s few/results.json ] || fail "resumed seeds have no results"
