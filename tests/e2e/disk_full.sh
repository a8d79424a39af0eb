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
refuse 'cannot write .*out/weights.fw: File too large; the incomplete file was removed' limited 16 "$fairway" run tiny.ini
[ ! -e out/weights.fw ] || fail "half-written weights are left behind"
[ -z "$(ls -A out | grep -v -e '^resolved.ini$' -e '^log.jsonl$')" ] || fail "left behind: $(ls -A out)"

# A checkpoint that does not fit is a warning: the run goes on, and its weights, which are smaller, fit.
limited 400 "$fairway" train tiny.ini --set run.output=saving --set run.checkpoint_every=4 >/dev/null 2>stderr.txt ||
  { cat stderr.txt >&2; fail "a checkpoint that does not fit ended the run"; }
grep -q 'warning: no checkpoint of step 4: cannot write .*saving/checkpoint.fw: File too large' stderr.txt ||
  { cat stderr.txt >&2; fail "a checkpoint that does not fit goes unsaid"; }
[ "$(ls -A saving | tr '\n' ' ')" = "resolved.ini train.jsonl weights.fw " ] || fail "left behind: $(ls -A saving)"

mkdir shards
head -c 100000 /dev/urandom | od -An -tx1 >big.txt
refuse 'cannot write shards/big_000000.bin: File too large' limited 64 "$fairway" data --out shards/big text:big.txt
[ -z "$(ls -A shards)" ] || fail "left behind: $(ls -A shards)"

"$fairway" train tiny.ini --set run.output=trained >/dev/null
refuse 'cannot write .*small.fairway: File too large' limited 1 "$fairway" pack trained --out small.fairway
[ -z "$(ls | grep small.fairway)" ] || fail "left behind: $(ls)"

printf x >file
refuse 'cannot create directory .*/file: a file is in the way' \
  "$fairway" run tiny.ini --set run.output=file/inside

# The real thing, where a small file system can be mounted. Outside $folder, which a later run deletes.
small=$(mktemp -d)
trap 'umount "$small" 2>/dev/null; rmdir "$small"' EXIT
mounted() { # mounted SIZE: an empty file system of that size
  umount "$small" 2>/dev/null || true
  mount -t tmpfs -o "size=$1" fairway-test "$small" 2>mount.txt
}
if ! mounted 64k; then
  echo "No full disk was tried: tmpfs cannot be mounted here ($(cat mount.txt))"
  exit 0
fi
refuse "cannot write $small/out/weights.fw: the disk is full; the incomplete file was removed" \
  "$fairway" run tiny.ini --set "run.output=$small/out"
left=$(ls -A "$small/out" | tr '\n' ' ')
[ "$left" = "log.jsonl resolved.ini " ] || fail "left behind on a full disk: $left"

mounted 8k
refuse "$small/out/log.jsonl.*No space left on device" \
  "$fairway" run tiny.ini --set "run.output=$small/out" --set run.log_every=1 --set run.steps=100

mounted 8k
refuse "cannot write $small/model.fairway: the disk is full" \
  "$fairway" pack trained --out "$small/model.fairway"
[ -z "$(ls -A "$small")" ] || fail "left behind on a full disk: $(ls -A "$small")"

# --force on a disk without room for both: the old shards stay, those held out included.
mounted 256k
"$fairway" data --out "$small/docs" --hold-out 5 'text:text/*.txt' >/dev/null
(cd "$small" && sha256sum docs_*) >before.txt
refuse "cannot write $small/docs_.*: the disk is full" \
  "$fairway" data --force --out "$small/docs" --hold-out 2 text:text/0.txt text:big.txt
(cd "$small" && sha256sum *) >after.txt
cmp before.txt after.txt || fail "a full disk cost shards that --force was to replace"

# Results that do not fit on standard output are not a success.
"$fairway" run tiny.ini --set run.output=full >/dev/null
code=0
"$fairway" eval --artifact full/model.fairway --data text:text/1.txt >/dev/full 2>stderr.txt || code=$?
[ "$code" -eq 2 ] || fail "eval to a full standard output exits with $code"
grep -q 'standard output' stderr.txt || fail "eval to a full standard output says nothing"
