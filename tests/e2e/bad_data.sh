# Missing, truncated and foreign shards, tokens outside the vocabulary, broken JSON lines.
. "$(dirname "$0")/common.sh"

mkdir shards
"$fairway" data --out shards/train 'text:text/*.txt' >/dev/null
shard=$(ls shards/train_*.bin | head -n 1)
try() { # try WORDS SOURCE
  refuse "$1" "$fairway" run tiny.ini --set "data.train=$2" --set "data.validation=$2" \
    --set data.hold_out_every=0 --set run.output=refused
}
tokens=$(od -An -td4 -j 8 -N 4 "$shard" | tr -d ' ')
head -c 1500 "$shard" >cut.bin
try "cut.bin is truncated: its header says $tokens tokens = .* bytes, the file has 1500" cut.bin
head -c 100 "$shard" >short.bin
try 'short.bin is not a token shard: it has 100 bytes, the header alone has 1024' short.bin
head -c 4096 /dev/zero >foreign.bin
try 'foreign.bin is not a token shard: it begins with the number 0 instead of 20240520' foreign.bin
try 'no file matches .*absent_\*.bin' 'absent_*.bin'
cp "$shard" large.bin
printf '\377\377' | dd of=large.bin bs=1 seek=1044 conv=notrunc 2>/dev/null
try 'large.bin: token 65535 at position 10 is not below the vocabulary of 257' large.bin
printf '{"text": "fine"}\n{"text": 5}\n' >bad.jsonl
try 'bad.jsonl:2: "text" is not a string' jsonl:bad.jsonl
printf '{"text": "fine"}\n{"text"\n' >broken.jsonl
try 'broken.jsonl:2: this is not one JSON object' jsonl:broken.jsonl
: >empty.txt
try 'data.train holds 1 tokens; 2 are the least' text:empty.txt
printf 'text/0.txt\nmissing.txt\n' >list.txt
try 'list.txt:2: there is no file .*missing.txt' list:list.txt
printf 'text/0.txt\ntext/1.txt\0.bak\n' >nul.txt
try 'nul.txt:2: it contains a NUL byte' list:nul.txt
[ ! -e refused ] || fail "a refused run left a directory behind"
try 'share the shard' "$shard"
[ ! -e refused ] || fail "a run that scores what it trains on left a directory behind"
