# Shared by the stories: a fresh folder with a small experiment in it, and how to check. Sourced, with the
# story's own arguments: BINARY FOLDER.
set -eu
fairway=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder/text"
cd "$folder"

fail() {
  echo "FAILED: $*" >&2
  exit 1
}

# 20 documents of made-up but regular text.
for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do
  awk -v seed="$i" 'BEGIN {
    srand(seed); n = split("the quick brown fox jumps over a lazy dog while seven wizards brew tea", w, " ")
    for (line = 0; line < 12; line++) {
      for (k = 0; k < 9; k++) printf "%s ", w[int(rand() * n) + 1]
      print "and then rests."
    }
  }' >"text/$i.txt"
done

cat >tiny.ini <<'INI'
; a model small enough for a test
[run]
name = tiny
output = out
device = cpu
steps = 12
batch_tokens = 512
warmdown_steps = 6
threads = 2
[data]
train = text:text/*.txt
hold_out_every = 5
sequence = 64
[model]
layers = 2
width = 32
mlp_width = 64
[attention]
heads = 4
kv_heads = 2
rope_dims = 4
[average]
plugin = ema
decay = 0.5
[quantize]
small_values = 100
[eval]
window = 64
stride = 32
batch = 4
INI

# refuse WORDS COMMAND...: the command must exit with 2 and say WORDS (a basic regular expression) in one
# line on standard error.
refuse() {
  words=$1
  shift
  code=0
  "$@" >stdout.txt 2>stderr.txt || code=$?
  [ "$code" -eq 2 ] || { cat stderr.txt >&2; fail "exit code $code instead of 2: $*"; }
  grep -q -e "$words" stderr.txt || { cat stderr.txt >&2; fail "does not say '$words': $*"; }
  [ "$(grep -c '^fairway: ' stderr.txt)" -eq 1 ] || { cat stderr.txt >&2; fail "not one sentence: $*"; }
}

# need_gpu: ends the story with 77, which ctest calls skipped, where there is no GPU.
need_gpu() {
  line=$("$fairway" doctor | sed -n 's/^  cuda  *//p')
  case $line in
  *GiB*) ;;
  *)
    echo "skipped: $line"
    exit 77
    ;;
  esac
}

# score LABEL FILE: the first number of the table line that begins with LABEL.
score() {
  sed -n "s/^  $1 *\([0-9.][0-9.]*\).*/\1/p" "$2" | head -n 1
}

# differ A B MESSAGE: two files must not be the same.
differ() {
  if cmp -s "$1" "$2"; then fail "$3"; fi
}

# lacks WORDS FILE MESSAGE: the file must not contain them.
lacks() {
  if grep -q -e "$1" "$2"; then fail "$3"; fi
}
