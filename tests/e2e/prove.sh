# A proof is written, decoded in a jail and held against the original; a stranger decodes it without the text;
# and whatever differs, or is damaged, is told.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini >run.txt
ls text/*.txt | LC_ALL=C sort | awk 'NR % 5 == 0' >held_out.txt
cat $(cat held_out.txt) >original.txt
artifact='--artifact out/model.fairway'
hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }

# All of the text: its hash, its bytes, its size beside the claim, which is what eval says.
"$fairway" prove $artifact --data list:held_out.txt --all --output decoded.txt >all.txt || fail "prove --all"
cmp decoded.txt original.txt || fail "the decoded text is not the original"
grep -q "SHA-256 $(hash_of original.txt)" all.txt || fail "the text's SHA-256"
grep -q "the source's own text, byte for byte" all.txt || fail "equality with the source is not told"
"$fairway" eval $artifact --data list:held_out.txt >eval.txt
awk -v claimed="$(score 'with cache (ngram)' eval.txt)" -v bytes="$(wc -c <proof.fwp)" -v text="$(wc -c <original.txt)" '
  $1 == "claimed" { if ($2 - claimed > 6e-5 || claimed - $2 > 6e-5) exit 1; seen++ }
  $1 == "path" { path = $2 * text / 8 }
  $1 == "file" { if ($2 * text / 8 - bytes > 0.01 || bytes - $2 * text / 8 > 0.01) exit 2; seen++ }
  END { if (seen != 2 || bytes - path > 0.001 * path + 64 || bytes < path) exit 3 }' all.txt ||
  { cat all.txt eval.txt >&2; fail "the numbers do not agree"; }

# A stranger needs the artifact and the file. Text sources are spelled by their tokenizer.
"$fairway" prove $artifact --verify proof.fwp --output verified.txt >verified_all.txt || fail "prove --verify"
cmp verified.txt original.txt || fail "the verified text is not the original"
grep -q "SHA-256 $(hash_of original.txt)" verified_all.txt || fail "the verified SHA-256"
cp proof.fwp all.fwp
for copy in first second; do
  "$fairway" prove $artifact --data list:held_out.txt --all --set eval.max_tokens=300 --proof $copy.fwp >/dev/null
done
cmp first.fwp second.fwp || fail "the same proof twice gives two files"

# Spans are sampled by the seed, which is told, and cost more.
"$fairway" prove $artifact --data list:held_out.txt --spans 3 --tokens 100 --output spans.txt >spans_out.txt
grep -q 'seed 1337, begun at token' spans_out.txt || fail "where the spans begin"
[ "$(wc -c <spans.txt)" -ge 290 ] || fail "three spans of text"
"$fairway" prove $artifact --verify proof.fwp --output spans2.txt >/dev/null
cmp spans.txt spans2.txt || fail "spans verify to other text"
"$fairway" prove $artifact --data list:held_out.txt --spans 3 --tokens 20 --seed 2 >seed2.txt
[ "$(grep 'begun at' seed2.txt | sed 's/.*begun/begun/')" != "$(grep 'begun at' spans_out.txt | sed 's/.*begun/begun/')" ] ||
  fail "the seed does not matter"

# Tokens without a tokenizer; with it, their text. Every cache and mode that states distributions.
mkdir shards
"$fairway" data --out shards/val list:held_out.txt >/dev/null
"$fairway" prove $artifact --data 'shards/val_*.bin' --all --set eval.max_tokens=300 --output tokens.bin >tokens.txt
grep -q "no tokenizer was named" tokens.txt || fail "tokens are not called tokens"
tail -c +1025 shards/val_000000.bin | head -c 600 | cmp - tokens.bin || fail "the decoded tokens are not those of the shard"
"$fairway" prove $artifact --verify proof.fwp | grep -q "$(hash_of tokens.bin)" || fail "the tokens' SHA-256"
"$fairway" prove $artifact --data 'shards/val_*.bin' --tokenizer bytes --all --set eval.max_tokens=300 \
  --output decoded.txt >/dev/null
head -c 299 original.txt | cmp - decoded.txt || fail "a shard's text is not the original"
for settings in '--set eval.mode=plain --set eval.isolate=yes' '--set eval.mode=stream --set eval.ranks=3' \
  '--set cache.plugin=none --set eval.window=16 --set eval.stride=1'; do
  "$fairway" prove $artifact --data list:held_out.txt --all $settings --set eval.max_tokens=200 \
    --proof s.fwp >settings.txt || fail "prove $settings"
done
"$fairway" prove $artifact --verify s.fwp $settings >/dev/null || fail "verify $settings"
# As record 993 counts, targets at the end count several times; a proof's claim counts each once.
for faithful in no yes; do
  "$fairway" prove $artifact --data list:held_out.txt --all --set eval.max_tokens=200 --set eval.faithful=$faithful \
    --proof s.fwp | grep -e ' bpb ' >faithful-$faithful.txt || fail "prove, faithful = $faithful"
done
cmp faithful-no.txt faithful-yes.txt || fail "the claim counts as eval.faithful does"
refuse 'ngram_hashed: it states no distribution.*nothing to decode with' \
  "$fairway" prove $artifact --data list:held_out.txt --set cache.plugin=ngram_hashed --set cache.min_order=2 --set cache.max_order=4

# Another artifact, setting, plugin or number of threads is named.
verify() { refuse "$1" "$fairway" prove --artifact "${2:-out/model.fairway}" --verify all.fwp ${3:-}; }
"$fairway" run tiny.ini --set run.seed=7 --set run.output=seven >/dev/null
verify 'artifact: not what it was written with' seven/model.fairway
verify 'threads: [0-9]* when it was written, 1 here' '' '--set run.threads=1'
verify 'evaluation mode: .*(here: plain' '' '--set eval.mode=plain'
verify 'settings of model and cache' '' '--set cache.max_order=3'
verify 'cache plugin: .*(here: none' '' '--set cache.plugin=none'

# Damage, wherever it is, is a sentence.
size=$(wc -c <all.fwp)
for at in 0 4 5 6 7 20 45 58 60 $((size / 2)) $((size - 9)) $((size - 1)); do
  cp all.fwp flipped.fwp
  byte=$(od -An -tu1 -j "$at" -N 1 all.fwp | tr -d ' ')
  printf "\\$(printf '%03o' $((byte ^ 16)))" | dd of=flipped.fwp bs=1 seek="$at" conv=notrunc 2>/dev/null
  differ all.fwp flipped.fwp "nothing was flipped"
  refuse 'flipped.fwp: \(damaged\|not a proof\|.*format version\)' "$fairway" prove $artifact --verify flipped.fwp
done
for length in 0 3 20 $((size - 1)); do
  head -c "$length" all.fwp >cut.fwp
  refuse 'cut.fwp: \(damaged\|not a proof\|truncated\)' "$fairway" prove $artifact --verify cut.fwp
done

# Who forges a file puts the checksum right: then other tokens come out, and that is noticed as well. One that claims
# more tokens than its bytes hold ends, too.
forge() { # OFFSET VALUE
  python3 - "$1" "$2" <<'PY'
import hashlib, sys
data = bytearray(open("first.fwp", "rb").read()[:-8])
data[int(sys.argv[1])] ^= int(sys.argv[2])
open("forged.fwp", "wb").write(bytes(data) + hashlib.sha256(data).digest()[:8])
PY
}
for at in 55 75; do
  forge "$at" 4
  refuse 'finds other tokens than were encoded' "$fairway" prove $artifact --verify forged.fwp --set eval.max_tokens=300
done
for change in 1 3; do
  forge 49 $change # more tokens in the span, or fewer
  refuse 'finds other tokens than were encoded' "$fairway" prove $artifact --verify forged.fwp
done
forge 5 1 # text, or tokens alone
refuse 'tokenizer plugin: ' "$fairway" prove $artifact --verify forged.fwp

# What cannot be asked for.
refuse 'artifact FILE is missing' "$fairway" prove --data list:held_out.txt
refuse 'data SOURCE.*or --verify FILE' "$fairway" prove $artifact
refuse 'both --all and --spans' "$fairway" prove $artifact --data list:held_out.txt --all --spans 2
refuse 'verify takes' "$fairway" prove $artifact --verify all.fwp --all
refuse 'too few for 50 spans of 256' "$fairway" prove $artifact --data list:held_out.txt --spans 50
refuse 'spans = 0 is out of range: 1 to' "$fairway" prove $artifact --data list:held_out.txt --spans 0
refuse 'cannot open absent.fairway' "$fairway" prove --artifact absent.fairway --verify all.fwp
rm -f kept.fwp
refuse 'ngram_hashed' "$fairway" prove $artifact --data list:held_out.txt --proof kept.fwp \
  --set cache.plugin=ngram_hashed --set cache.min_order=2 --set cache.max_order=4
[ ! -e kept.fwp ] || fail "a proof file without a proof"
