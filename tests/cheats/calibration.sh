# Calibration on validation text: the host reads training text for a quantizer that asks, and none that is scored. What
# the artifact holds does not depend on the validation text; training text that shares a document with it is refused, in a
# run and in a later `fairway pack`. The quantizer is the SDK's template, which weighs errors by what it is shown.
. "$(dirname "$0")/../e2e/common.sh"
template=$3/../../tests/sdk/templates
sed -i '/^train = /d; /^hold_out_every = /d' tiny.ini
sed -i 's/^\[quantize\]/[quantize]\nplugin = template\nlevels = 3/; /^small_values/d' tiny.ini
mkdir train held other
mv text/1?.txt held
mv text/?.txt train
cp held/10.txt other
run() {
  "$fairway" run tiny.ini --plugin-dir "$template" --set run.calibration_tokens=2048 --set "data.train=text:train/*.txt" "$@"
}

run --set "run.output=first" --set "data.validation=text:held/*.txt" >first.txt || fail "a run that calibrates"
grep -q '"calibration_tokens":[[:space:]]*2048,*$' first/receipt.json || fail "the receipt does not say how much was read"
grep -q '"calibrate":[[:space:]]*[0-9.e-]*[1-9]' first/receipt.json || fail "the receipt does not say how long it took"
run --set "run.output=second" --set "data.validation=text:other/*.txt" >second.txt || fail "another validation text"
cmp -s first/weights.fw second/weights.fw || fail "the trained weights depend on the validation text"

# The same weights, packed: with another validation text the same artifact but for the text of its configuration.
pack() {
  "$fairway" pack first --plugin-dir "$template" --out "$@" >pack.txt || { cat pack.txt; fail "pack $*"; }
}
pack plain.fairway --set quantize.calibrate=no
pack again.fairway
pack other.fairway --set "data.validation=text:other/*.txt"
cmp -s first/model.fairway again.fairway || fail "packing again gives other bytes"
cmp -s again.fairway other.fairway || fail "the artifact depends on the validation text"
differ again.fairway plain.fairway "calibration changes nothing"
pack half.fairway --set "data.train=text:train/1.txt"
differ again.fairway half.fairway "calibration does not depend on the training text"

# Calibration on what is scored.
refuse 'data.train and data.validation share' "$fairway" pack first --plugin-dir "$template" --out cheat.fairway \
  --set "data.train=text:held/*.txt"
cp held/11.txt train/hidden.txt
refuse 'data.train and data.validation share' "$fairway" pack first --plugin-dir "$template" --out cheat.fairway
rm train/hidden.txt
[ ! -e cheat.fairway ] || fail "an artifact that was calibrated on validation text"

# Who does not calibrate needs no text.
rm -r train
refuse 'train' "$fairway" pack first --plugin-dir "$template" --out cheat.fairway
pack plain2.fairway --set quantize.calibrate=no
cmp -s plain.fairway plain2.fairway || fail "without calibration, other bytes"
