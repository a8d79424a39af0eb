# A record folder is complete, starts by itself, and holds nothing but what the run made.
. "$(dirname "$0")/common.sh"

# value KEY FILE: the first number or text of that key in a JSON file.
value() {
  sed -n "s/.*\"$1\":[[:space:]]*\"\{0,1\}\([^\",]*\).*/\1/p" "$2" | head -n 1
}
same() { # same A B TOLERANCE MESSAGE
  awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; exit !(d <= t && d >= -t) }' || fail "$4: $1, $2"
}

"$fairway" run tiny.ini --set run.output=one >one.txt
"$fairway" submit one --output record --name 'A "tiny" record' --author 'A. Name' --github aname \
  --blurb 'Made by a test.' --date 2026-01-02 >submit.txt
for file in README.md submission.json train_seed1337.log model.fairway fairway.tar.xz train_gpt.py; do
  [ -s "record/$file" ] || fail "record/$file is missing"
done
cmp one/model.fairway record/model.fairway || fail "another artifact"
cmp one/log.jsonl record/train_seed1337.log || fail "another log"
[ "$(value author record/submission.json)" = 'A. Name' ] || fail "the author is lost"
[ "$(value date record/submission.json)" = 2026-01-02 ] || fail "the date is lost"
code=$(($(wc -c <record/fairway.tar.xz) + $(wc -c <record/train_gpt.py)))
[ "$(value bytes_code record/submission.json)" -eq "$code" ] || fail "bytes_code is not $code"
[ "$(value bytes_total record/submission.json)" -eq $((code + $(wc -c <record/model.fairway))) ] ||
  fail "bytes_total is not what lies there"
same "$(value val_bpb record/submission.json)" "$(score 'with cache (ngram)' one.txt)" 0.0001 "val_bpb"
lacks "$folder" record/README.md "the README names this machine's folders"
lacks "$folder" record/train_gpt.py "train_gpt.py names this machine's folders"
grep -q '@DATA@/\*.txt' record/README.md || fail "the README lacks the experiment"

# The folder starts by itself, wherever it lies.
mkdir elsewhere
cp -r record elsewhere/moved
python3 elsewhere/moved/train_gpt.py --dry-run >dry.txt || fail "train_gpt.py --dry-run fails"
grep -q 'hashes are right' dry.txt || fail "train_gpt.py checked nothing"
for file in CMakeLists.txt core/main.c sdk/CMakeLists.txt sdk/include/fairway/abi.h kernels/cpu/device.c \
  plugins/CMakeLists.txt plugins/attention/gqa/gqa.c plugins/cache/trie.c; do
  [ -s "elsewhere/moved/build/code/$file" ] || fail "the sources lack $file"
done
python3 elsewhere/moved/train_gpt.py --dry-run --data text >/dev/null
grep -q "^train = text:$folder/text/\*.txt" elsewhere/moved/build/run.ini || fail "--data is not filled in"
echo stray >elsewhere/moved/build/code/core/stray.c
python3 elsewhere/moved/train_gpt.py --dry-run >/dev/null
[ ! -e elsewhere/moved/build/code/core/stray.c ] || fail "a stray source stays among those of the record"
python() { # python WORDS ARGUMENTS...: it must refuse
  words=$1
  shift
  code=0
  python3 elsewhere/moved/train_gpt.py "$@" >stdout.txt 2>stderr.txt || code=$?
  [ "$code" -eq 2 ] && grep -q -e "$words" stderr.txt || { cat stderr.txt >&2; fail "not refused: $words"; }
}
python 'needs --data DIR'
python 'nowhere: there is no such file' --data nowhere
echo >>elsewhere/moved/model.fairway
python 'model.fairway: its SHA-256 is' --dry-run
rm elsewhere/moved/fairway.tar.xz
python 'fairway.tar.xz: No such file' --dry-run

# A run of several seeds: one log for each, the mean as its score.
"$fairway" run tiny.ini --set run.seeds=3,4 --set run.output=two >two.txt
"$fairway" submit two --output record2 >/dev/null
[ -s record2/train_seed3.log ] && [ -s record2/train_seed4.log ] || fail "a seed's log is missing"
cmp two/seed-3/model.fairway record2/model.fairway || fail "not the first seed's artifact"
[ "$(value bytes_model record2/submission.json)" -ge "$(wc -c <record2/model.fairway)" ] || fail "bytes_model"
same "$(value val_bpb record2/submission.json)" \
  "$(awk '/^  mean/ { print $6 }' two.txt)" 0.000001 "the mean of two seeds"
grep -q '"val_bpb_std"' record2/submission.json || fail "no deviation"

# A plugin without sources travels as a binary, under its own name.
mkdir mine
cp "$(dirname "$fairway")/../lib/fairway/v0/compressor-lzma.so" mine/compressor-own.so
"$fairway" run tiny.ini --set run.output=own --set "compress.plugin=$folder/mine/compressor-own.so" >/dev/null
"$fairway" submit own --output record3 >/dev/null
python3 record3/train_gpt.py --dry-run >/dev/null
[ -s record3/build/code/binaries/compressor-own.so ] || fail "the plugin does not travel"
grep -q "^plugin = $folder/record3/build/code/binaries/compressor-own.so" record3/build/run.ini ||
  fail "the INI names another plugin"
"$fairway" eval --artifact record3/model.fairway --data text:text/0.txt --set \
  "compress.plugin=$folder/record3/build/code/binaries/compressor-own.so" >/dev/null ||
  fail "the plugin that travelled does not load"

# A score that does not count is never the record's.
cp -r one void
sed 's/"valid":[[:space:]]*true/"valid": false, "mean_sum": 522.5/' one/receipt.json >void/receipt.json
"$fairway" submit void --output record4 >submit.txt
same "$(value val_bpb record4/submission.json)" "$(score 'sliding 64\/32' one.txt)" 0.0001 "the honest score"
grep -q '\*\*INVALID\*\*.*522.5' record4/README.md || fail "the README hides that a score is void"
cp -r void unfair
awk '/"sliding":/ { print; print "\"fair\": false,"; next } { print }' void/receipt.json >unfair/receipt.json
"$fairway" submit unfair --output record5 >submit.txt
same "$(value val_bpb record5/submission.json)" "$(score 'packed (int8, lzma), plain' one.txt)" 0.0001 \
  "the score that counts each target once"
sed 's/"bpb":/"fair": false, "bpb":/' void/receipt.json >unfair/receipt.json
refuse 'no score of this run counts' "$fairway" submit unfair --output refused

# What is incomplete or changed is refused, and leaves nothing behind.
refuse 'record: is not empty' "$fairway" submit one --output record
refuse 'tiny.ini: cannot be used as a directory' "$fairway" submit one --output tiny.ini
refuse 'none/receipt.json: there is no such file' "$fairway" submit none --output refused
for date in 2026-13-01 2026-02-29 2026-1-2 2026-01-02x today; do
  refuse "date $date: " "$fairway" submit one --output refused --date "$date"
done
refuse '--output DIR is missing' "$fairway" submit one
refuse 'no run directory' "$fairway" submit --output refused
broken() { # broken FILE: a copy of the run without it
  rm -rf broken
  cp -r one broken
  rm "broken/$1"
}
for file in receipt.json model.fairway log.jsonl code.tar.xz resolved.ini; do
  broken $file
  refuse "broken/$file: there is no such file" "$fairway" submit broken --output refused
done
broken log.jsonl
cp one/log.jsonl broken/log.jsonl
echo >>broken/model.fairway
refuse 'broken/model.fairway: its SHA-256 is [0-9a-f]*, but the receipt says' "$fairway" submit broken \
  --output refused
cp one/model.fairway broken/model.fairway
echo >>broken/code.tar.xz
refuse 'broken/code.tar.xz: its SHA-256' "$fairway" submit broken --output refused
cp -r two mixed
cp -r one/. mixed/seed-4
refuse 'seed-4/receipt.json: is of another run' "$fairway" submit mixed --output refused

# Model and code together may have 16,000,000 bytes, not one more.
rm -rf broken
cp -r one broken
room=$((16000000 - $(wc -c <record/fairway.tar.xz) - $(wc -c <record/train_gpt.py)))
large() { # large BYTES: an artifact of that size, and a receipt that fits it
  head -c "$1" /dev/zero >broken/model.fairway
  sed -e "s/\"model_sha256\":[^,]*/\"model_sha256\": \"$(sha256sum <broken/model.fairway | cut -c1-64)\"/" \
    -e "s/\"model\":[^,]*/\"model\": $1/" one/receipt.json >broken/receipt.json
}
large $((room + 1000))
refuse 'over the limit of 16000000' "$fairway" submit broken --output refused
[ ! -e refused ] || fail "a refused record was left behind: $(ls refused)"
large $((room - 1000))
"$fairway" submit broken --output full >/dev/null || fail "16,000,000 bytes do not fit"
