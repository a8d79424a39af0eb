# Shards and the text they were made from train and score the same; shards carry the challenge's header.
. "$(dirname "$0")/common.sh"

mkdir shards
"$fairway" data --out shards/docs --hold-out 5 'text:text/*.txt' >data.txt
train=shards/docs_000000.bin
valid=shards/docs_val_000000.bin
[ -s "$train" ] && [ -s "$valid" ] || fail "data wrote $(ls shards)"
[ "$(od -An -td4 -N 8 "$train" | tr -s ' ')" = " 20240520 1" ] || fail "the shard's header is wrong"
tokens=$(od -An -td4 -j 8 -N 4 "$train" | tr -d ' ')
[ "$(wc -c <"$train")" -eq $((1024 + 2 * tokens)) ] || fail "the shard's size does not fit its header"
"$fairway" data --info "$train" | grep -q "$tokens" || fail "--info does not tell the token count"

"$fairway" run tiny.ini --set run.output=from_text >text.txt
"$fairway" run tiny.ini --set "data.train=$train" --set "data.validation=$valid" \
  --set data.hold_out_every=0 --set run.output=from_shards >shards.txt
cmp from_text/model.fairway from_shards/model.fairway || fail "shards train other weights than text"
for line in 'sliding 64\/32' 'with cache (ngram)'; do
  [ "$(score "$line" text.txt)" = "$(score "$line" shards.txt)" ] || fail "shards score otherwise: $line"
done
