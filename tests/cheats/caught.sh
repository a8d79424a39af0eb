# caught.sh FAIRWAY CHEATS ID PROBE: `fairway check` fails the cache ID by PROBE, and passes its honest twin.
set -eu
fairway=$1 cheats=$2 id=$3 probe=$4

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

check() {
  code=0
  "$fairway" check --cache "$1" --plugin-dir "$cheats" --seed 20240607 --tokens 1024 --vocab 256 || code=$?
}

check "$id" >/dev/null 2>&1
[ "$code" -eq 1 ] || { check "$id"; fail "exit code $code of a cheat instead of 1"; }
check "$id" | grep "^  $probe  *FAIL " || { check "$id"; fail "$probe does not catch $id"; }
out=$(check "${id}_honest" 2>&1; echo "code $code")
case $out in
*FAIL* | *"code 1" | *"code 2") echo "$out" >&2; fail "the honest twin of $id does not pass" ;;
esac
