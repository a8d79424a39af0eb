# A truncated artifact, one with a flipped byte, and things that are no artifact at all.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini >/dev/null
score_it() { refuse "$1" "$fairway" eval --artifact "$2" --data list:held_out.txt; }
ls text/*.txt | awk 'NR % 5 == 0' >held_out.txt
size=$(wc -c <out/model.fairway)
head -c $((size - 1)) out/model.fairway >cut.fairway;     score_it 'cut.fairway.*truncated' cut.fairway
head -c 10 out/model.fairway >stub.fairway;               score_it 'stub.fairway.*truncated' stub.fairway
: >empty.fairway;                                         score_it 'empty.fairway' empty.fairway
for at in 9 40 $((size / 2)) $((size - 3)); do
  cp out/model.fairway flipped.fairway
  printf '\125' | dd of=flipped.fairway bs=1 seek="$at" conv=notrunc 2>/dev/null
  cmp -s out/model.fairway flipped.fairway && continue
  score_it 'flipped.fairway' flipped.fairway
done
score_it 'not a Fairway artifact' tiny.ini
score_it 'absent.fairway' absent.fairway
refuse 'artifact FILE is missing' "$fairway" eval --data list:held_out.txt
refuse 'not the one this model was trained with' "$fairway" eval --artifact out/model.fairway \
  --data list:held_out.txt --set tokenizer.begin=no
head -c $(($(wc -c <out/weights.fw) - 5)) out/weights.fw >w && mv w out/weights.fw
refuse 'weights.fw.*damaged' "$fairway" pack out
