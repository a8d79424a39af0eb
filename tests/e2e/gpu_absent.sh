# Where there is no GPU, or none to be seen: a run that wants one says so, and others use the CPU.
. "$(dirname "$0")/common.sh"

"$fairway" plugins --kind device | grep -q '^device  *cuda ' || {
  echo "skipped: this build has no CUDA device"
  exit 77
}
export CUDA_VISIBLE_DEVICES=-1

no_gpu='there is no cuda device: .*\(no NVIDIA driver\|no GPU is visible\|update it\)'
refuse "$no_gpu" "$fairway" train tiny.ini --set run.device=cuda
refuse "$no_gpu" "$fairway" run tiny.ini --set run.device=cuda
[ ! -e out/log.jsonl ] || fail "a run without its device has begun"

"$fairway" run tiny.ini --set run.device=auto --set run.output=auto >table.txt
[ -n "$(score 'raw weights, plain' table.txt)" ] || fail "device = auto does not run on the CPU"
"$fairway" run tiny.ini --set run.output=cpu >/dev/null
cmp auto/weights.fw cpu/weights.fw || fail "device = auto is not the CPU here"

"$fairway" doctor >stdout.txt || fail "doctor calls a machine without a GPU not ready"
grep -q '^  cuda  *\(no NVIDIA driver\|no GPU is visible\|the NVIDIA driver\)' stdout.txt ||
  { cat stdout.txt >&2; fail "doctor does not say why there is no GPU"; }

# A CUDA plugin that cannot be loaded, for want of a library, is no obstacle: doctor names it, a run that
# wants it says so, and others use the CPU. The program is copied, as it also looks beside itself.
mkdir lacking
for plugin in "${FAIRWAY_PLUGIN_PATH%%:*}"/*.so; do ln -s "$plugin" lacking/; done
rm lacking/device-cuda.so
echo 'no library' >lacking/device-cuda.so
cp "$fairway" alone
lacking() { FAIRWAY_PLUGIN_PATH="$folder/lacking" HOME="$folder" ./alone "$@"; }
lacking doctor >stdout.txt || fail "doctor calls a machine with a broken CUDA plugin not ready"
grep -q 'broken .*lacking/device-cuda.so' stdout.txt || fail "doctor hides a broken CUDA plugin"
refuse 'device-cuda.so' lacking train tiny.ini --set run.device=cuda
lacking run tiny.ini --set run.device=auto --set run.output=without >/dev/null ||
  fail "a broken CUDA plugin stops a run on the CPU"
cmp without/weights.fw cpu/weights.fw || fail "device = auto is not the CPU where CUDA's plugin is broken"
