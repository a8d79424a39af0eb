# A truncated artifact, one with a flipped byte, and things that are no artifact at all.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini >/dev/null
score_it() { refuse "$1" "$fairway" eval --artifact "$2" --data list:held_out.txt; }
ls text/*.txt | awk 'NR % 5 == 0' >held_out.txt
size=$(wc -c <out/model.fairway)
head -c $((size - 1)) out/model.fairway >cut.fairway;     score_it 'cut.fairway.*truncated' cut.fairway
head -c 10 out/model.fairway >stub.fairway;               score_it 'stub.fairway.*truncated' stub.fairway
: >empty.fairway;                                         score_it 'empty.fairway: not a Fairway artifact' empty.fairway
for at in 9 40 $((size / 2)) $((size - 3)); do
  cp out/model.fairway flipped.fairway
  printf '\125' | dd of=flipped.fairway bs=1 seek="$at" conv=notrunc 2>/dev/null
  cmp -s out/model.fairway flipped.fairway && continue
  [ "$at" -eq 9 ] && score_it 'flipped.fairway: .*format version' flipped.fairway && continue
  score_it 'flipped.fairway: .*damaged' flipped.fairway
done
score_it 'tiny.ini: not a Fairway artifact' tiny.ini
score_it 'absent.fairway: .*No such file' absent.fairway
refuse 'optimizer.matrix.foo=3: scoring does not use' "$fairway" eval --artifact out/model.fairway \
  --data list:held_out.txt --set optimizer.matrix.foo=3
refuse 'run.steps=3: scoring does not use' "$fairway" eval --artifact out/model.fairway \
  --data list:held_out.txt --set run.steps=3
refuse 'artifact FILE is missing' "$fairway" eval --data list:held_out.txt
refuse 'not the one this model was trained with' "$fairway" eval --artifact out/model.fairway \
  --data list:held_out.txt --set tokenizer.begin=no
head -c $(($(wc -c <out/weights.fw) - 5)) out/weights.fw >w && mv w out/weights.fw
refuse 'weights.fw.*damaged' "$fairway" pack out

# A limit on what the training run scores does not travel in the artifact; a limit for eval is told.
"$fairway" run tiny.ini --set eval.max_tokens=200 --set run.output=limited >/dev/null
"$fairway" eval --artifact limited/model.fairway --data list:held_out.txt >all.txt
lacks '^first ' all.txt "eval.max_tokens of the training run cuts eval"
awk '/ targets, / { exit !($1 > 1000) }' all.txt || { cat all.txt >&2; fail "eval scores a part only"; }
"$fairway" eval --artifact limited/model.fairway --data list:held_out.txt --set eval.max_tokens=100 >first.txt
grep -q '^first 100 of [0-9]* tokens' first.txt || fail "eval does not say that it was cut"
grep -q '^99 targets' first.txt || fail "eval.max_tokens has no effect"
