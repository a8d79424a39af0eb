# What a GPU run does when it cannot go on: the loss is no number, or the memory is too small.
. "$(dirname "$0")/common.sh"
need_gpu

# stops WORDS COMMAND...: exit code 1 or 2, and WORDS in one sentence on standard error.
stops() {
  words=$1
  shift
  code=0
  "$@" >stdout.txt 2>stderr.txt || code=$?
  [ "$code" -eq 1 ] || [ "$code" -eq 2 ] || { cat stderr.txt >&2; fail "exit code $code: $*"; }
  grep -q -e "$words" stderr.txt || { cat stderr.txt >&2; fail "does not say '$words': $*"; }
  [ "$(grep -c '^fairway: ' stderr.txt)" -eq 1 ] || { cat stderr.txt >&2; fail "not one sentence: $*"; }
}

# A decay that overshoots multiplies the weights by -9999 at each step, until a loss or a gradient is none.
for section in matrix embed scalar; do
  printf '[optimizer.%s]\nlearning_rate = 100\nweight_decay = 100\n' $section
done >wild.txt
(printf '[run]\nbase = tiny.ini\ndevice = cuda\nsteps = 200\nwarmdown_steps = 0\n' && cat wild.txt) >wild.ini
stops 'not finite\|not a finite number\|is nan\|is inf' "$fairway" train wild.ini

# Two million sequences at once want terabytes.
stops 'no room for\|out of memory\|memory' "$fairway" train tiny.ini --set run.device=cuda \
  --set run.batch_tokens=134217728 --set run.micro_batch=2097152 --set model.width=512 \
  --set model.mlp_width=1536

# And after that the GPU still works.
"$fairway" train tiny.ini --set run.device=cuda >/dev/null || fail "no run after one that was refused"
