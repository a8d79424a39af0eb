# caught.sh FAIRWAY FOLDER CHEATS ID PROBE [WORDS]: `fairway check` fails the cache ID by PROBE, or by each of
# several, which says WORDS, and passes its honest twin.
set -eu
fairway=$1 folder=$2 cheats=$3 id=$4 probe=$5 words=${6:-}

mkdir -p "$folder"
cd "$folder"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

check() {
  code=0
  "$fairway" check --cache "$1" --plugin-dir "$cheats" --seed 20240607 --tokens 1024 --vocab 256 \
    --seconds "$2" || code=$?
}

seconds=30
case $words in *"after 2 s"*) seconds=2 ;; esac
check "$id" "$seconds" >cheat.txt 2>&1
[ "$code" -eq 1 ] || { cat cheat.txt >&2; fail "exit code $code of a cheat instead of 1"; }
for one in $probe; do
  grep "^  $one  *FAIL .*$words" cheat.txt || { cat cheat.txt >&2; fail "$one does not catch $id"; }
done
check "${id}_honest" 30 >twin.txt 2>&1
[ "$code" -eq 0 ] || { cat twin.txt >&2; fail "the honest twin of $id does not pass"; }
if grep FAIL twin.txt >&2; then fail "the honest twin of $id fails a probe"; fi
