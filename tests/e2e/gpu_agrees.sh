# The CPU in float32 and the GPU in bfloat16 train the same model: with one seed they see the same batches,
# and their losses stay together. Means of 20 steps are compared: bfloat16 moves the weights by a relative
# 2^-9 at a time, which a single batch of a thousand bytes shows more than the model does.
. "$(dirname "$0")/common.sh"
need_gpu

configs=$(cd "$(dirname "$0")/../../configs" 2>/dev/null && pwd) || configs=
[ -n "$configs" ] || fail "the folder of configs is not where it was"
cat >both.ini <<INI
[run]
base = $configs/seed993-tiny.ini
steps = 200
warmdown_steps = 120
log_every = 1
[model]
layers = 4
value_layers = 2,3
INI
for device in cpu cuda; do
  "$fairway" train both.ini --set run.device=$device --set "run.output=$folder/$device" >/dev/null ||
    fail "the run on $device failed"
  sed -n 's/.*"step":\([0-9]*\),"loss":\([0-9.]*\).*/\1 \2/p' $device/train.jsonl >$device.txt
done
[ "$(wc -l <cpu.txt)" -ge 190 ] || fail "expected a line of the log for each step: $(wc -l <cpu.txt)"
join cpu.txt cuda.txt >both.txt 2>/dev/null || paste -d ' ' cpu.txt cuda.txt | awk '{ print $1, $2, $4 }' >both.txt
awk '{ cpu += $2; cuda += $3; n++ }
  n == 20 { off = cuda / cpu - 1; printf "to step %d: cpu %.4f, cuda %.4f, %+.2f%%\n", $1, cpu / n, cuda / n, 100 * off
            if (off > 0.01 || off < -0.01) bad = 1
            cpu = cuda = n = 0 }
  END { exit bad }' both.txt || fail "the losses part by more than 1%"
