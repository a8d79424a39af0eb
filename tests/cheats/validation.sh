# Validation documents in the training data: found by their hashes, in text and in shards, whatever the files are
# called, before anything is trained.
. "$(dirname "$0")/../e2e/common.sh"
sed -i '/^train = /d; /^hold_out_every = /d' tiny.ini

mkdir held
cp text/3.txt held/known.txt
refuse 'share\|both\|same document' "$fairway" run tiny.ini --set 'data.train=text:text/*.txt' \
  --set 'data.validation=text:held/*.txt'

"$fairway" data --out train --tokenizer bytes 'text:text/*.txt' >/dev/null || fail "training shards"
"$fairway" data --out val --tokenizer bytes 'text:held/*.txt' >/dev/null || fail "validation shards"
for pair in 'train_*.bin val_*.bin' 'train_*.bin text:held/*.txt' 'text:text/*.txt val_*.bin'; do
  refuse 'share\|both\|same document' "$fairway" run tiny.ini --set "data.train=${pair% *}" \
    --set "data.validation=${pair#* }"
done
[ ! -e out ] || fail "a run directory before the refusal"

# Without it, the same training data is fine.
mv text/3.txt aside.txt
"$fairway" run tiny.ini --set run.steps=2 --set 'data.train=text:text/*.txt' --set 'data.validation=text:held/*.txt' \
  >run.txt || fail "other documents"
