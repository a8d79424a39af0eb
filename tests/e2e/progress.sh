# Progress: on a terminal one line that is rewritten in place; into a file nothing that needs a terminal.
. "$(dirname "$0")/common.sh"

carriage_return=$(printf '\r')
"$fairway" run tiny.ini --set run.output=plain >plain.txt 2>&1
lacks "$carriage_return" plain.txt "a carriage return where there is no terminal"
lacks "$(printf '\033')" plain.txt "an escape sequence where there is no terminal"
"$fairway" data --out shard 'text:text/*.txt' >data.txt 2>&1
lacks "$carriage_return" data.txt "a carriage return in the output of data"

# util-linux's script runs a command on a terminal of its own; others of that name take other options.
if ! script -qec true probe.txt >/dev/null 2>&1 </dev/null; then
  echo "The terminal was not tried: there is no usable script(1) here"
  exit 0
fi
# A second of training, so that several updates are due.
script -qec "'$fairway' run tiny.ini --set run.output=terminal --set run.steps=0 --set run.seconds=1" \
  terminal.txt >/dev/null </dev/null || fail "the run on a terminal failed: $(cat terminal.txt)"
line="${carriage_return}[^$carriage_return]*step [0-9][^$carriage_return]*loss [0-9][^$carriage_return]*"
line="$line[0-9] tokens/s[^$carriage_return]* left"
grep -q "$line" terminal.txt || fail "no progress line with step, loss, tokens/s and time left"
# In place: two states of it without a line feed between them, which is what separates grep's lines.
grep -q "$line.*$line" terminal.txt || fail "the progress line is not rewritten in place"
grep -q 'sliding 64/32' terminal.txt || fail "the table is missing on a terminal"
# Before the table the line is cleared, so that no remains of it are left on the screen.
lacks 'left[^[:cntrl:]]*tiny: ' terminal.txt "the table begins behind the progress line"
