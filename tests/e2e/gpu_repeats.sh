# With [run] deterministic = yes two runs on a GPU end with the same bytes; and one that is killed goes on
# from its checkpoint and ends with them, too.
. "$(dirname "$0")/common.sh"
need_gpu

cat >gpu.ini <<'INI'
[run]
base = tiny.ini
device = cuda
deterministic = yes
steps = 400
warmdown_steps = 300
checkpoint_every = 25
priming_steps = 2
qat_below = 0.5
log_every = 5
[average]
plugin = ema_swa
decay = 0.9
every = 20
below = 0.4
INI
for n in 1 2; do "$fairway" run gpu.ini --set run.output=run$n >/dev/null || fail "run $n failed"; done
cmp run1/weights.fw run2/weights.fw || fail "two runs with one seed have other weights"
cmp run1/model.fairway run2/model.fairway || fail "two runs with one seed have other artifacts"
"$fairway" run gpu.ini --set run.output=seeded --set run.seed=2 >/dev/null
differ run1/model.fairway seeded/model.fairway "another seed gives the same artifact"

"$fairway" run gpu.ini --set run.output=killed >/dev/null 2>&1 &
process=$!
waited=0
until grep -q '"step":50,.*"event":"checkpoint"' killed/log.jsonl 2>/dev/null; do
  kill -0 "$process" 2>/dev/null || fail "the run ended before it could be killed"
  waited=$((waited + 1))
  [ "$waited" -lt 3000 ] || fail "no checkpoint of step 50 after a minute"
  sleep 0.02
done
kill -9 "$process"
wait "$process" 2>/dev/null || true
[ ! -e killed/model.fairway ] || fail "killed too late"
"$fairway" run gpu.ini --set run.output=killed --resume >/dev/null || fail "the run cannot be resumed"
cmp run1/weights.fw killed/weights.fw || fail "the resumed run has other weights"
cmp run1/model.fairway killed/model.fairway || fail "the resumed run has another artifact"
