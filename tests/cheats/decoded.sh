# Caches that know the text beforehand: one opens it, one opens it as its library is loaded, one asks for it over a socket, one carries it in its code. No
# probe sees anything wrong. A decoder in the jail of `fairway prove` has neither file nor socket; what is carried in
# code decodes, and counts as code.
cheats=$3
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../e2e/common.sh"

cp "$here/../../LICENSE" license.txt
text="$folder/license.txt"
"$fairway" run tiny.ini --set cache.plugin=none --set 'data.validation=text:license.txt' --set data.hold_out_every=0 \
  >run.txt
with() { # VERB ID ARGUMENTS...
  verb=$1
  cache=$2
  shift 2
  FAIRWAY_CHEAT_TEXT="$text" FAIRWAY_CHEAT_SOCKET="$folder/line" "$fairway" "$verb" --artifact out/model.fairway \
    --plugin-dir "$cheats" --set "cache.plugin=$cache" "$@"
}
bpb() { score "with cache ($1)" "$1.txt"; }

# Whoever knows the text scores next to nothing, and no probe fails.
python3 - "$text" "$folder/line" <<'PY' &
import socket, sys
text = open(sys.argv[1], "rb").read()
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[2])
server.listen()
server.settimeout(60)
while True:
    line, _ = server.accept()
    line.sendall(text)
    line.close()
PY
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
for i in 1 2 3 4 5 6 7 8 9 10; do [ -S line ] || sleep 0.2; done
with eval opens_honest --data "text:license.txt" >opens_honest.txt || fail "eval of a twin"
for id in opens loads asks embeds; do
  with eval "$id" --data "text:license.txt" >"$id.txt" || fail "eval of $id"
  lacks 'FAIL\|INVALID' "$id.txt" "a probe fails $id"
  awk -v a="$(bpb "$id")" -v b="$(bpb opens_honest)" 'BEGIN { exit !(a < 0.1 && b > 1) }' ||
    { cat "$id.txt"; fail "$id does not cheat"; }
done

# The jail: what is asked for is refused, named, and leaves no proof.
refuse 'the decoder finds other tokens than were encoded.*the jail refused it .*openat' \
  with prove opens --data "text:license.txt" --all
refuse 'the decoder finds other tokens than were encoded.*the jail refused it .*license.txt' \
  with prove loads --data "text:license.txt" --all
refuse 'the decoder finds other tokens than were encoded.*the jail refused it .*socket' \
  with prove asks --data "text:license.txt" --all
[ ! -e proof.fwp ] || fail "a proof of what was not decoded"
with prove opens_honest --data "text:license.txt" --all >honest.txt || fail "the twin has no proof"

# Code that carries the text decodes it from a few bytes, and is larger by what the text takes packed.
with prove embeds --data "text:license.txt" --all >carried.txt || fail "embedded text does not decode"
grep -q "SHA-256 $(sha256sum license.txt | cut -d ' ' -f 1)" carried.txt || fail "the text's SHA-256"
[ "$(wc -c <proof.fwp)" -lt 100 ] || fail "the proof of a text that is carried is long"
code_bytes() {
  "$fairway" run tiny.ini --set "cache.plugin=$1" --plugin-dir "$cheats" --set run.steps=1 --set average.plugin=none --set run.output="$1" \
    >/dev/null
  tr -d '\n\t ' <"$1/receipt.json" | sed -n 's/.*"code_binaries":\([0-9]*\).*/\1/p'
}
packed=$(($(xz -9e --stdout license.txt | wc -c) - 72)) # without what an .xz file has around it
carried=$(($(code_bytes embeds) - $(code_bytes embeds_honest)))
[ "$carried" -ge $((packed * 8 / 10)) ] || fail "the text takes $packed bytes packed, but the code only $carried more"
