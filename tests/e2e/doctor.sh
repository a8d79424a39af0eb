# doctor, plugins and help: their exit codes and the lines that people and scripts look for.
. "$(dirname "$0")/common.sh"

# shows WORDS COMMAND...: exit code 0, WORDS on standard output, nothing on standard error.
shows() {
  words=$1
  shift
  "$@" >stdout.txt 2>stderr.txt || { cat stderr.txt >&2; fail "exit code $?: $*"; }
  grep -q -e "$words" stdout.txt || { cat stdout.txt >&2; fail "does not show '$words': $*"; }
  [ ! -s stderr.txt ] || { cat stderr.txt >&2; fail "complains: $*"; }
}

shows '^Ready: runs on the CPU are complete\.$' "$fairway" doctor
for line in '^Machine$' '^Build$' '^Plugins$' '^Devices$' '^  processor .*[0-9] threads$' \
  '^  memory .* GiB$' '^  liblzma  *[0-9]' '^  inih  *[0-9]' '^  libmd  *[0-9]' \
  '^  libseccomp  *[0-9]' '^  SentencePiece ' '^  attention  *[0-9]* .*gqa' '^  tokenizer  *[0-9]* .*bytes' \
  '^  cpu  .*threads'; do
  grep -q -e "$line" stdout.txt || fail "doctor lacks the line $line"
done
lacks '^  broken' stdout.txt "doctor calls a plugin of the build broken"

# A module that is none: named with the reason, and what to do; runs remain possible.
mkdir modules
echo 'no module' >modules/cache-none_such.so
cp stdout.txt healthy.txt
FAIRWAY_PLUGIN_PATH="$folder/modules${FAIRWAY_PLUGIN_PATH:+:$FAIRWAY_PLUGIN_PATH}" \
  shows '^  broken .*modules/cache-none_such.so: ' "$fairway" doctor
grep -q '^To do$' stdout.txt || fail "doctor does not say what to do about a broken module"
shows 'modules/cache-none_such.so: ' "$fairway" plugins --plugin-dir modules

# A program all alone is not ready. Where Fairway is installed it would find those plugins.
cp "$fairway" alone
if (unset FAIRWAY_PLUGIN_PATH && ./alone plugins --kind device) | grep -q '^device '; then
  echo "A program without plugins was not tried: Fairway is installed here"
else
  code=0
  (unset FAIRWAY_PLUGIN_PATH && exec ./alone doctor) >stdout.txt 2>stderr.txt || code=$?
  [ "$code" -eq 2 ] || fail "doctor exits with $code where no run is possible"
  grep -q '^Not ready' stdout.txt || { cat stdout.txt >&2; fail "doctor does not say Not ready"; }
  grep -q 'no CPU device' stdout.txt || fail "doctor does not name the missing device"
  grep -q "default optimizer plugin 'muon' is missing" stdout.txt ||
    fail "doctor does not name a missing plugin"
fi

shows '^KIND  *ID  *VERSION  *DEVICES  *PATH$' "$fairway" plugins
for plugin in 'attention  *gqa' 'attention  *xsa' 'optimizer  *muon' 'quantizer  *int8' 'cache  *ngram' \
  'compressor  *lzma' 'averager  *ema' 'device  *cpu' 'tokenizer  *bytes'; do
  grep -q -e "^$plugin  *[0-9]" stdout.txt || fail "plugins lacks $plugin"
done
shows '^cache  *ngram' "$fairway" plugins --kind cache
lacks '^optimizer' stdout.txt "plugins --kind cache lists optimizers"
shows '^    discount  *float ' "$fairway" plugins -v --kind cache
shows '^#' "$fairway" plugins --reference
refuse "there is no kind 'cach'; did you mean 'cache'" "$fairway" plugins --kind cach

shows '^usage: fairway VERB' "$fairway" help
cp stdout.txt verbs.txt
for verb in run train pack eval plugins data doctor; do
  grep -q "^  $verb  *[a-z]" verbs.txt || fail "help lacks $verb"
  shows "^usage: fairway $verb" "$fairway" help "$verb"
  cp stdout.txt by_help.txt
  shows "^usage: fairway $verb" "$fairway" "$verb" --help
  cmp by_help.txt stdout.txt || fail "help $verb and $verb --help differ"
done
shows '^usage: fairway VERB' "$fairway" --help
shows '^fairway [0-9]*\.[0-9]*\.[0-9]*$' "$fairway" --version
refuse 'there is no verb "nosuch"' "$fairway" nosuch
refuse 'there is no verb "nosuch"' "$fairway" help nosuch
refuse 'x: unexpected' "$fairway" doctor x
refuse 'x: unexpected' "$fairway" plugins x
code=0
"$fairway" >stdout.txt 2>stderr.txt || code=$?
[ "$code" -eq 2 ] && [ ! -s stdout.txt ] && grep -q '^usage: fairway VERB' stderr.txt ||
  fail "without a verb: exit code $code"
