# The resolved INI in the run directory gives the same run again, from any working directory.
. "$(dirname "$0")/common.sh"

"$fairway" run tiny.ini --set run.seed=7 --set attention.1.plugin=xsa >first.txt
mkdir elsewhere
(cd elsewhere && "$fairway" run ../out/resolved.ini --set run.output=out2 >../second.txt)
cmp out/model.fairway elsewhere/out2/model.fairway || fail "resolved.ini gives another artifact"
grep -v '^\(name\|output\) = ' out/resolved.ini >a.ini
grep -v '^\(name\|output\) = ' elsewhere/out2/resolved.ini >b.ini
cmp a.ini b.ini || fail "resolving the resolved INI changes it"

cat >child.ini <<'INI'
[run]
base = tiny.ini
name = child
output = child
steps = 3
INI
"$fairway" run child.ini >child.txt
grep -q '^width = 32' child/resolved.ini || fail "base is not inherited"
grep -q '^steps = 3' child/resolved.ini || fail "base is not overridden"
