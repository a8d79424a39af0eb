#!/bin/sh
# tests/peers/run from outside: the whole table of a tiny model, the same from a rows file, and what it says
# when something is missing.
# usage: run_story.sh FAIRWAY FOLDER TESTS_DIRECTORY BIN
bin=$4 run=$3/peers/run
. "$3/e2e/common.sh"

"$fairway" run tiny.ini --set cache.plugin=none >run.txt
"$fairway" data --out val 'text:text/*.txt' >data.txt
python=$(python3 -c 'import sys; print(sys.executable)')
"$python" -c 'import glob, json
for name in sorted(glob.glob("text/*.txt")):
    print(json.dumps({"text": open(name).read()}))' >val.jsonl

table() {
  "$python" -B "$run" --bin "$bin" "$@" 2>stderr.txt || { cat stderr.txt >&2; fail "no table: $*"; }
}
# bpb NAME FILE: of the row of that name.
bpb() { awk -F ' *[|] *' -v name="$1" '$2 == name { print $3; exit }' "$2"; }

with_text=
if command -v zstd >zstd.txt && command -v brotli >brotli.txt; then with_text='--text val.jsonl'; fi
table --artifact out/model.fairway --data val_000000.bin --tokens 3000 --check 300 --shuffle 3 \
  --begin-token 256 --set eval.mode=plain $with_text --json table.json >table.txt
for row in 'the language model alone' ngram ngram_hashed 'Kneser-Ney, tuned on the first 5%' \
  'Kneser-Ney, tuned in hindsight' 'additive logits, order 4'; do
  [ -n "$(bpb "$row" table.txt)" ] || { cat table.txt >&2; fail "no row: $row"; }
done
grep -q '^| ngram_hashed .*INVALID' table.txt || fail "no mark of invalidity"
[ "$(grep -c '^| the language model alone' table.txt)" -eq 2 ] || fail "no table of shuffled tokens"
[ "$(grep -c '^brute force: V = 257, 299 targets' table.txt)" -eq 2 ] || fail "no word of brute force"
if [ -n "$with_text" ]; then
  for row in 'xz -9e' 'zstd --ultra -22' 'brotli -q 11'; do
    [ -n "$(bpb "$row" table.txt)" ] || { cat table.txt >&2; fail "no row: $row"; }
  done
  # The text is that of the documents that lie whole within the tokens.
  bytes=$("$python" -c 'import json; print(json.load(open("table.json"))["stream"][-1]["bytes"])')
  [ "$bytes" -eq "$(cat $(ls text/*.txt | LC_ALL=C sort | head -n 4) | wc -c)" ] || fail "text of $bytes bytes"
fi
"$python" -c 'import json; assert {"stream", "shuffled", "reference"} == set(json.load(open("table.json")))'

"$bin/dump_rows" --artifact out/model.fairway --data val_000000.bin --tokens 3000 --out val.rows \
  --set eval.mode=plain 2>dump.txt
table --rows val.rows --check 300 --caches ngram >again.txt
[ "$(bpb ngram again.txt)" = "$(bpb ngram table.txt)" ] || fail "rows from a file and piped differ"

# refuse_table WORDS ARGUMENT...
refuse_table() {
  words=$1
  shift
  code=0
  "$python" -B "$run" --bin "$bin" "$@" >stdout.txt 2>stderr.txt || code=$?
  [ "$code" -eq 2 ] || { cat stderr.txt >&2; fail "exit code $code instead of 2: $*"; }
  grep -q -e "$words" stderr.txt || { cat stderr.txt >&2; fail "does not say '$words': $*"; }
  [ ! -s stdout.txt ] || fail "a table in spite of: $words"
}
refuse_table '--artifact FILE and --data SHARD are needed'
refuse_table 'no.fairway: there is no such file' --artifact no.fairway --data val_000000.bin
refuse_table 'no program dump_rows' --bin . --rows val.rows
refuse_table 'not a rows file' --rows val.jsonl --check 0
refuse_table 'not a rows file' --rows val.jsonl
refuse_table "no cache plugin 'ngrm'" --rows val.rows --check 0 --caches ngrm
refuse_table "no cache plugin 'ngrm'" --artifact out/model.fairway --data val_000000.bin --caches ngrm --check 0
refuse_table 'no_shard' --artifact out/model.fairway --data no_shard.bin --check 0
refuse_table '--text needs --data' --rows val.rows --text val.jsonl
"$bin/dump_rows" --artifact out/model.fairway --data val_000000.bin --tokens 300 --out shuffled.rows \
  --set eval.mode=plain --shuffle 1 2>dump.txt
[ -z "$with_text" ] || refuse_table 'holds other tokens' --rows shuffled.rows --check 0 --data val_000000.bin \
  --text val.jsonl
refuse_table 'need rows of their own' --rows val.rows --shuffle 1
mkdir empty
code=0
PATH=$PWD/empty "$python" -B "$run" --bin "$bin" --artifact out/model.fairway --data val_000000.bin \
  --text val.jsonl 2>stderr.txt || code=$?
[ "$code" -eq 2 ] && grep -q 'run: xz is not installed; the Debian package' stderr.txt ||
  { cat stderr.txt >&2; fail "a missing compressor is not named"; }
"$python" -B "$run" --help | grep -q 'hindsight' || fail "no help"
