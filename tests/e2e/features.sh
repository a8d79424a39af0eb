# Late features of the training: each is seen to work, or the run says that it did not; the clock and the
# effects are told.
. "$(dirname "$0")/common.sh"

cat >late.ini <<'INI'
[run]
base = tiny.ini
steps = 40
warmdown_steps = 30
qat_below = 0.5
[average]
plugin = ema_swa
decay = 0.9
every = 2
below = 0.4
INI

"$fairway" run late.ini --set run.output=late >table.txt
for name in average_relative_distance qat_changed_weights qat_relative_distance swa_snapshots \
  swa_relative_distance packing_bpb cache_changed_positions; do
  grep -q "\"$name\":" late/receipt.json || fail "the receipt lacks the effect $name"
  grep -q "^  $name  *[0-9.,e-]*$" table.txt || { cat table.txt >&2; fail "the table lacks the effect $name"; }
done
# 30 steps of warmdown: below 0.4 at the last 11, of which every other one is a snapshot.
grep -q '^  swa_snapshots *6$' table.txt || { grep swa table.txt >&2; fail "expected 6 snapshots"; }
grep -q '"quantized":true' late/log.jsonl || fail "the log does not say which steps were quantized"

# Quantization-aware training and the averagers change the artifact; priming does not.
"$fairway" run late.ini --set run.output=exact --set run.qat_below=0 >/dev/null
differ late/model.fairway exact/model.fairway "run.qat_below changes nothing"
lacks qat_ exact/receipt.json "effects of what is off"
"$fairway" run late.ini --set run.output=share --set average.swa_share=0.9 >/dev/null
differ late/model.fairway share/model.fairway "average.swa_share changes nothing"
sed -e '/^decay/d' -e 's/^plugin = ema$/plugin = swa/' -e 's/^steps = .*/steps = 40/' tiny.ini >swa.ini
"$fairway" run swa.ini --set run.output=swa --set run.warmdown_steps=30 --set average.every=2 >swa.txt
[ -n "$(score 'averaged (swa), plain' swa.txt)" ] || fail "the table lacks the score of swa's average"
"$fairway" run late.ini --set run.output=primed --set run.priming_steps=3 >primed.txt
cmp late/model.fairway primed/model.fairway || fail "priming steps leave a trace"

# The clock: phases, and the two ways to count.
grep -q ' prime [0-9.]* ' primed.txt || fail "the table lacks the time of priming"
for line in training evaluation; do
  grep -q "^  $line  *strict [0-9.]*  customary [0-9.]*  of 600" table.txt || fail "no totals of $line"
done
for key in prime checkpoint average ladder training_strict training_customary evaluation_strict \
  evaluation_customary limit; do
  grep -q "\"$key\":" late/receipt.json || fail "the receipt lacks the seconds of $key"
done
number() { sed -n "s/.*\"$1\":[^0-9]*\([0-9.e-]*\).*/\1/p" "$2"; }
awk -v s="$(number training_strict primed/receipt.json)" -v c="$(number training_customary primed/receipt.json)" \
  -v p="$(number prime primed/receipt.json)" 'BEGIN { exit !(p > 0 && s >= c + p) }' ||
  fail "strict seconds leave out the priming"

# What can be known before training is refused before training.
late() { "$fairway" run late.ini --set run.output=refused "$@"; }
refuse 'run.qat_below = 0.5 would never be reached: .* falls to 1 at the lowest' "$fairway" run tiny.ini \
  --set run.output=refused --set run.warmdown_steps=0 --set run.qat_below=0.5
refuse 'run.qat_below = 0.02 would never be reached: .* falls to 0.0333333' late --set run.qat_below=0.02
refuse '\[quantize\] plugin none: it has no quantization-aware form' late --set quantize.plugin=none
refuse '\[quantize\] plugin int8: it quantizes no tensor' late --set quantize.small_values=1000000
refuse '\[average\] plugin ema_swa: .*never fell below 0.01 (its lowest was 0.0333333 in 40 steps)' \
  late --set average.below=0.01
[ ! -e refused ] || fail "a refused run left a directory behind: $(ls -A refused)"

# What turns out later fails the run, which keeps its work.
kept() { [ -s "$1/weights.fw" ] && [ -s "$1/model.fairway" ] && [ -s "$1/receipt.json" ]; }
# With a limit in time as well, only the run can tell.
refuse '\[average\] plugin ema_swa: ema_swa took no snapshot: .* never fell below 0.01 (its lowest was 0.0333' \
  "$fairway" run late.ini --set run.output=closed --set average.below=0.01 --set run.seconds=1000
kept closed || fail "a window that never opened cost the work"
lacks '"averaged"' closed/receipt.json "an average that is none has a score"
refuse 'run.qat_below = 0.01 was never reached: .*fell to 0.0333' "$fairway" run late.ini \
  --set run.output=exact2 --set run.qat_below=0.01 --set run.seconds=1000
kept exact2 || fail "a threshold that was never reached cost the work"
refuse 'swa_relative_distance is 0: .*had no effect' "$fairway" run swa.ini --set run.output=first \
  --set run.steps=4 --set run.warmdown_steps=4 --set average.below=0.3
kept first || fail "an average without effect cost the work"
refuse 'took no snapshot' "$fairway" train late.ini --set run.output=trained --set average.below=0.01 --set run.seconds=1000
[ -s trained/weights.fw ] || fail "train lost the weights"

# A dry run refuses what the run would.
refuse 'would never be reached' "$fairway" run late.ini --dry-run --set run.qat_below=0.02
refuse 'took no snapshot' "$fairway" run late.ini --dry-run --set average.below=0.01
refuse 'muon trains matrices' "$fairway" run tiny.ini --dry-run --set optimizer.scalar.plugin=muon \
  --set model.smear=yes

# A part of the model that nothing trains: zero at first, zero at the end.
refuse 'smear.gate is zero after the whole training' "$fairway" run tiny.ini --set run.output=dead \
  --set model.smear=yes --set optimizer.scalar.learning_rate=0
[ -s dead/weights.fw ] || fail "a run whose feature had no effect lost its weights"

# What failed is no result, although its receipt is there.
grep -q '"failure":.*smear.gate is zero' dead/receipt.json || fail "the receipt keeps the failure to itself"
lacks '"failure"' late/receipt.json "the failure of a run that has none"
refuse 'dead/receipt.json: this run failed.*smear.gate' "$fairway" submit dead --output record
refuse 'dead/receipt.json: this run failed.*smear.gate' "$fairway" compare dead late
[ ! -e record ] || fail "a record of a run that failed"
