#!/bin/sh
# dump_rows and replay against `fairway eval`: on the same artifact, tokens and caches they must give the
# same scores, digit for digit, plain, sliding and as a stream, from a file and through a pipe; and what is wrong with
# a rows file is said in one sentence.
# usage: replay_agrees.sh FAIRWAY FOLDER TESTS_DIRECTORY DUMP_ROWS REPLAY
dump_rows=$4 replay=$5
. "$3/e2e/common.sh"

"$fairway" run tiny.ini --set cache.plugin=none >run.txt
"$fairway" data --out val 'text:text/*.txt' >data.txt
shard=val_000000.bin tokens=4000

# column LABEL FILE NUMBER: of the first line that begins with LABEL.
column() { awk -v label="$1" -v n="$3" 'index($0, label) == 1 { print $n; exit }' "$2"; }

# rounded LABEL FILE NUMBER: the same with four decimals, as eval prints.
rounded() { printf '%.4f\n' "$(column "$@")"; }

# agree WHAT A B
agree() {
  [ -n "$2" ] && [ "$2" = "$3" ] || fail "$1: replay says '$2', eval '$3'"
}

# evaluate CACHE MODE
evaluate() {
  "$fairway" eval --artifact out/model.fairway --data $shard --set eval.max_tokens=$tokens \
    --set eval.mode="$2" --set cache.plugin="$1" --set eval.on_violation=report >"eval-$1.txt"
}

for mode in plain sliding stream; do
  "$dump_rows" --artifact out/model.fairway --data $shard --tokens $tokens --out $mode.rows \
    --set eval.mode=$mode 2>dump.txt
  "$replay" $mode.rows ngram ngram_hashed ngram:max_order=1 >replay.txt
  evaluate ngram $mode
  evaluate ngram_hashed $mode
  agree "$mode" "$(rounded 'model alone' replay.txt 4)" "$(column "  $mode" eval-ngram.txt "$([ $mode = plain ] && echo 2 || echo 3)")"
  agree "$mode, ngram" "$(rounded ngram replay.txt 3)" "$(column '  with cache' eval-ngram.txt 4)"
  agree "$mode, ngram_hashed" "$(rounded ngram_hashed replay.txt 3)" \
    "$(column '  with cache' eval-ngram_hashed.txt 4)"
  grep -q '^ngram_hashed .*INVALID: the distribution sums to' replay.txt || fail "no mark of invalidity"
done
"$dump_rows" --artifact out/model.fairway --data $shard --tokens $tokens --out - \
  --set eval.mode=$mode 2>dump.txt | "$replay" - ngram >piped.txt
agree "$mode, piped" "$(column ngram piped.txt 2)" "$(column ngram replay.txt 2)"
differ plain.rows sliding.rows "the mode changes no row"
[ "$(column ngram replay.txt 2)" != "$(column ngram:max_order=1 replay.txt 2)" ] || fail "keys have no effect"

# The same tokens in another order, which the seed decides.
for seed in 1 1 2; do
  "$dump_rows" --artifact out/model.fairway --data $shard --tokens 200 --out shuffled.rows \
    --set eval.mode=plain --shuffle $seed 2>dump.txt
  cksum <shuffled.rows >>sums.txt
done
[ "$(sort -u sums.txt | wc -l)" -eq 2 ] && [ "$(head -n 2 sums.txt | sort -u | wc -l)" -eq 1 ] ||
  fail "the seed does not decide the order"

refuse '--artifact FILE is missing' "$dump_rows" --data $shard --out x.rows
refuse 'nothing.fairway' "$dump_rows" --artifact nothing.fairway --data $shard --out x.rows
refuse 'shards are needed' "$dump_rows" --artifact out/model.fairway --data text:text/0.txt --out x.rows
refuse 'a whole number' "$dump_rows" --artifact out/model.fairway --data $shard --out x.rows --tokens 1k
[ ! -e x.rows ] || fail "a failed dump leaves a file"
refuse 'the rows file is missing' "$replay"
refuse 'nothing.rows cannot be opened' "$replay" nothing.rows ngram
refuse 'not a rows file' "$replay" $shard ngram
refuse "no cache plugin 'ngrm'" "$replay" plain.rows ngrm
refuse 'max_ordr' "$replay" plain.rows ngram:max_ordr=3
head -c 20 plain.rows >bad.rows
refuse 'cut short within its header' "$replay" bad.rows ngram
head -c 2000 plain.rows >bad.rows
refuse 'cut short before its rows begin' "$replay" bad.rows ngram
head -c 1000000 plain.rows >bad.rows
refuse 'cut short at row 956 of 3999' "$replay" bad.rows ngram
{ cat plain.rows && echo; } >bad.rows
refuse 'goes on behind its last row' "$replay" bad.rows ngram
{ head -c 32 plain.rows && head -c 4000 /dev/zero; } >bad.rows
refuse 'counts\|outside\|cut short' "$replay" bad.rows ngram
{ head -c 8 plain.rows && head -c 4000 /dev/zero; } >bad.rows
refuse 'is damaged: its header speaks of 0 tokens' "$replay" bad.rows ngram
