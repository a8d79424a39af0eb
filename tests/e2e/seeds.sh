# Several seeds in one run: each is the run that its seed alone gives, and the aggregate says what they say.
. "$(dirname "$0")/common.sh"
reference=$(dirname "$0")/../../configs/reference-pr993.json
case $reference in /*) ;; *) reference=$OLDPWD/$reference ;; esac

"$fairway" run tiny.ini --set 'run.seeds=7, 42' --set run.output=both --reference "$reference" >both.txt
for seed in 7 42; do
  for file in resolved.ini log.jsonl weights.fw model.fairway receipt.json code.tar.xz; do
    [ -s "both/seed-$seed/$file" ] || fail "both/seed-$seed/$file is missing"
  done
  "$fairway" run tiny.ini --set "run.seed=$seed" --set "run.output=alone-$seed" >"alone-$seed.txt"
  cmp "both/seed-$seed/model.fairway" "alone-$seed/model.fairway" ||
    fail "seed $seed among others gives another artifact than alone"
  cmp "both/seed-$seed/weights.fw" "alone-$seed/weights.fw" || fail "seed $seed: other weights than alone"
  grep -q "\"seed\":[[:space:]]*$seed" both/results.json || fail "results.json lacks seed $seed"
done
differ both/seed-7/model.fairway both/seed-42/model.fairway "two seeds give the same artifact"
[ ! -e both/receipt.json ] || fail "a receipt beside those of the seeds"

# The table: means and deviations of what the single runs print.
mean=$(sed -n 's/^  mean *\([0-9.]*\).*/\1/p' both.txt)
awk -v a="$(score 'raw weights, plain' alone-7.txt)" -v b="$(score 'raw weights, plain' alone-42.txt)" \
  -v m="$mean" 'BEGIN { d = (a + b) / 2 - m; exit !(d < 0.0001 && d > -0.0001) }' ||
  fail "the mean of raw scores is $mean"
[ -n "$(sed -n 's/^  deviation *\([0-9.]*\).*/\1/p' both.txt)" ] || fail "no deviation"
grep -q 'model, byte .*p = ' both.txt || { cat both.txt >&2; fail "no p-value with --reference"; }
grep -q 'with cache .*reference.*INVALID.*never counts' both.txt || fail "a void score takes part"

# The same from receipts of single runs: one experiment, whatever its seeds and folders.
"$fairway" compare alone-7 alone-42 both >again.txt
grep -q 'model, byte .*+0.000000  p = ' again.txt || { cat again.txt >&2; fail "equal results differ"; }
lacks ' BETTER$' again.txt "equal results are better"
"$fairway" compare both/results.json both/seed-7/receipt.json >one.txt
grep -q 'no test is possible: .* 2 runs and the reference 1' one.txt || fail "a test with one run on a side"
"$fairway" run tiny.ini --set run.output=single --reference "$reference" >single.txt
grep -q 'no test is possible' single.txt || fail "a test with one run"

# What is no measurement is refused.
refuse 'alone-7/receipt.json and both.*both hold seed 7' "$fairway" compare alone-7 both "$reference"
"$fairway" run tiny.ini --set run.steps=13 --set run.output=longer >/dev/null
hash=$(sed -n 's/.*"experiment_sha256":[^"]*"\([0-9a-f]*\)".*/\1/p' longer/receipt.json)
refuse "alone-7/receipt.json is of experiment .* longer/receipt.json of experiment $hash" \
  "$fairway" compare alone-7 longer "$reference"
refuse 'text: holds neither' "$fairway" compare text "$reference"
refuse 'no-such: No such file' "$fairway" compare no-such "$reference"
refuse 'needs a result and a reference' "$fairway" compare both
refuse 'no-such.json' "$fairway" run tiny.ini --set run.output=refused --reference no-such.json

with() { # with LIST: tiny.ini with these seeds
  printf '[run]\nbase = tiny.ini\noutput = refused\nseeds = %s\n' "$1" >bad.ini
}
with '1, 2, 1';  refuse 'bad.ini:4: run.seeds: seed 1 occurs twice' "$fairway" run bad.ini
with '1, two';   refuse 'bad.ini:4: run.seeds: "two" is no seed' "$fairway" run bad.ini
with '1,,2';     refuse 'bad.ini:4: run.seeds: item 2 is empty' "$fairway" run bad.ini
with "$(seq -s, 0 64)"; refuse 'bad.ini:4: run.seeds: more than 64' "$fairway" run bad.ini
refuse 'seed = 1000000000000000 is out of range' "$fairway" run tiny.ini --set run.output=refused --set run.seed=1000000000000000
refuse 'command line: run.seeds: seed 3 occurs twice' "$fairway" run tiny.ini --set run.seeds=3,3 \
  --set run.output=refused
refuse 'run.seeds: seed 3 occurs twice' "$fairway" run tiny.ini --set run.seeds=3,3 --dry-run
refuse 'no distribution that sums to one' "$fairway" run tiny.ini --set cache.plugin=ngram_hashed --dry-run
with '1, 2'; refuse 'eval.stride = 100' "$fairway" run bad.ini --set eval.stride=100
[ ! -e refused ] || fail "a refused run left a directory behind"
cp both/results.json before.json
refuse 'less than one sequence' "$fairway" run tiny.ini --set run.seeds=7,42 --set run.output=both \
  --set data.sequence=100000 --set run.batch_tokens=100000
cmp both/results.json before.json || fail "a refused run removed results"

# A later run of one seed in the same place does not leave the results of several behind.
"$fairway" run tiny.ini --set run.output=both >/dev/null
[ ! -e both/results.json ] || fail "results.json of another run was left"

# The seeds of an INI that train and eval see do not trouble them.
with '1, 2'; "$fairway" train bad.ini --set run.output=trained >/dev/null 2>stderr.txt || fail "train with run.seeds"
grep -q 'warning: train makes one run, of run.seed = 1337' stderr.txt || fail "train ignores run.seeds silently"
for verb in compare submit; do
  "$fairway" "$verb" -h | grep -q "^usage: fairway $verb" || fail "$verb -h does not help"
done
