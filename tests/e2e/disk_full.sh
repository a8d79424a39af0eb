# A disk that fills up while writing: one sentence, exit code 2, and nothing half-written left behind.
. "$(dirname "$0")/common.sh"

# A limit on file sizes makes every write beyond it fail, as a full disk does.
limited() {
  (
    trap '' XFSZ
    ulimit -f "$1"
    shift
    exec "$@"
  )
}
refuse 'out/weights.fw.*too large\|out/weights.fw' limited 16 "$fairway" run tiny.ini
[ ! -e out/weights.fw ] || fail "half-written weights are left behind"
[ -z "$(ls -A out | grep -v -e '^resolved.ini$' -e '^log.jsonl$')" ] || fail "left behind: $(ls -A out)"

mkdir shards
head -c 100000 /dev/urandom | od -An -tx1 >big.txt
refuse 'shards/big' limited 64 "$fairway" data --out shards/big text:big.txt
[ -z "$(ls -A shards)" ] || fail "left behind: $(ls -A shards)"

"$fairway" train tiny.ini --set run.output=trained >/dev/null
refuse 'small.fairway' limited 1 "$fairway" pack trained --out small.fairway
[ -z "$(ls | grep small.fairway)" ] || fail "left behind: $(ls)"

mkdir locked && printf x >file
refuse 'file' "$fairway" run tiny.ini --set run.output=file/inside
