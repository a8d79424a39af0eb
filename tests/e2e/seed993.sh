# Every feature of the reference record at once, at a small size: the configuration says how many parameters it has,
# the loss falls, every part has an effect that the receipt names, the artifact alone gives the same scores, pruning
# makes it fit, and switching a part off is seen.
. "$(dirname "$0")/common.sh"
configs=$(dirname "$0")/../../configs

"$fairway" run "$configs/seed993.ini" --dry-run >dry.txt
grep -q ' 26,993,756 parameters' dry.txt || fail "seed993.ini does not have the record's number of parameters"

run() {
  "$fairway" run "$configs/seed993-tiny.ini" --set run.output="$PWD/out" --set run.threads=2 \
    --set data.train="text:$PWD/text/*.txt" --set run.steps=48 --set run.warmdown_steps=32 \
    --set run.log_every=1 --set model.width=64 --set model.mlp_width=128 --set attention.heads=4 \
    --set attention.kv_heads=2 --set model.value_width=16 "$@"
}
run --set run.priming_steps=1 >table.txt

# The loss of the first step is that of guessing; the last is far below.
awk -F'"loss":' '/"event":"step"/ { split($2, part, ","); last = part[1]; if (first == "") first = last }
  END { exit !(first > 5 && last < 0.6 * first) }' out/log.jsonl || fail "the loss does not fall"

for effect in average_relative_distance swa_snapshots swa_relative_distance qat_changed_weights \
  qat_relative_distance cache_changed_positions; do
  grep -q "\"$effect\":.*[1-9]" out/receipt.json || fail "the receipt lacks $effect"
done
grep -q '"prime":' out/receipt.json || fail "the receipt lacks the phase prime"

# The artifact alone, on the held-out documents: every tenth of the sorted list.
ls text/*.txt | LC_ALL=C sort | awk 'NR % 10 == 0' >held_out.txt
"$fairway" eval --artifact out/model.fairway --data list:held_out.txt >again.txt
for line in 'sliding 128\/64' 'with cache (ngram)'; do
  [ -n "$(score "$line" table.txt)" ] || fail "the table lacks $line"
  [ "$(score "$line" table.txt)" = "$(score "$line" again.txt)" ] || fail "the artifact alone scores differently"
done

# Pruning: a limit just below the whole.
total=$(sed -n 's/.*"total":[[:space:]]*\([0-9]*\).*/\1/p' out/receipt.json)
model=$(sed -n 's/.*"model":[[:space:]]*\([0-9]*\).*/\1/p' out/receipt.json | head -n 1)
limit=$((total - model / 50))
"$fairway" pack out --out small.fairway --set run.size_limit="$limit" >pack.txt
grep -q 'pruned' pack.txt || fail "nothing was pruned to fit"
[ "$(wc -c <small.fairway)" -le $((model - model / 50)) ] || fail "the pruned artifact is too large"
refuse 'run.size_limit' "$fairway" pack out --out none.fairway --set run.size_limit=$((total - model))
[ ! -e none.fairway ] || fail "an artifact over the limit was written"

# Each switch is a switch: without it the model has fewer parameters.
run --dry-run >all.txt
for switch in bigram_slots=0 smear=no x0_mix=no skips=no value_layers= layer_scales=no; do
  run --set "model.$switch" --dry-run >off.txt
  differ all.txt off.txt "model.$switch changes nothing"
done
refuse 'value_layers names layer 9' run --set model.value_layers=9 --dry-run
refuse 'bigram_slots' run --set model.bigram_slots=1 --dry-run
refuse 'at least 2 layers' run --set model.layers=1 --set model.value_layers= --dry-run
refuse 'the tokenizer bytes has' run --set model.vocabulary=1024
