# Missing, truncated and foreign shards, tokens outside the vocabulary, broken JSON lines.
. "$(dirname "$0")/common.sh"

mkdir shards
"$fairway" data --out shards/train text:text/*.txt >/dev/null 2>&1 ||
  "$fairway" data --out shards/train 'text:text/*.txt' >/dev/null
shard=$(ls shards/train_*.bin | head -n 1)
try() { # try WORDS SOURCE
  refuse "$1" "$fairway" run tiny.ini --set "data.train=$2" --set "data.validation=$2" \
    --set data.hold_out_every=0 --set run.output=refused
}
head -c 1500 "$shard" >cut.bin;             try 'cut.bin.*truncated\|cut.bin' cut.bin
head -c 100 "$shard" >short.bin;            try 'short.bin' short.bin
head -c 4096 /dev/zero >foreign.bin;        try 'foreign.bin.*20240520' foreign.bin
try 'absent_' 'absent_*.bin'
cp "$shard" large.bin
printf '\377\377' | dd of=large.bin bs=1 seek=1044 conv=notrunc 2>/dev/null
try 'large.bin.*65535' large.bin
printf '{"text": "fine"}\n{"text": 5}\n' >bad.jsonl;  try 'bad.jsonl:2' jsonl:bad.jsonl
printf '{"text": "fine"}\n{"text"\n' >broken.jsonl;   try 'broken.jsonl:2' jsonl:broken.jsonl
: >empty.txt;                                         try 'empty\|0 tokens\|1 token' text:empty.txt
printf 'text/0.txt\nmissing.txt\n' >list.txt;         try 'missing.txt' list:list.txt
[ ! -e refused ] || fail "a refused run left a directory behind"
