# A wrong INI is one sentence with its place and what would be right; nothing is written.
. "$(dirname "$0")/common.sh"

with() { # with SECTION LINE: tiny.ini plus a line in a section of its own file
  printf '[run]\nbase = tiny.ini\noutput = refused\n[%s]\n%s\n' "$1" "$2" >bad.ini
}
with modell 'layers = 3';  refuse 'bad.ini:4: .*modell.*did you mean.*model' "$fairway" run bad.ini
with model 'layer = 3';    refuse "bad.ini:5: .*layer.*did you mean 'layers'" "$fairway" run bad.ini
with model 'layers = -1';  refuse 'bad.ini:5: .*out of range' "$fairway" run bad.ini
with model 'layers = two'; refuse 'bad.ini:5: .*two' "$fairway" run bad.ini
with attention 'heads = 5'; refuse 'bad.ini:5: \[attention\] plugin gqa: layer 0: heads = 5 .*32' "$fairway" run bad.ini
with attention 'heads = 2'; refuse 'heads of width 1024 .*heads = 4 or more' "$fairway" run bad.ini --set model.width=2048
with attention 'kv_heads = 3'; refuse 'bad.ini:5: \[attention\] plugin gqa: layer 0: kv_heads = 3 .*heads = 4' "$fairway" run bad.ini
with attention.1 'kv_heads = 3'; refuse 'bad.ini:5: \[attention.1\] plugin gqa: layer 1: kv_heads = 3' "$fairway" run bad.ini
with attention 'hedas = 4'; refuse "bad.ini:5: .*hedas.*did you mean 'heads'" "$fairway" run bad.ini
with cache 'plugin = ngrm'; refuse 'bad.ini:5: .*ngrm.*Tried .*cache-ngrm.so' "$fairway" run bad.ini
with attention.5 'heads = 2'; refuse 'layer 5.*layers = 2' "$fairway" run bad.ini
with data 'hold_out_every = 0'; refuse 'validation is empty' "$fairway" run bad.ini
with data 'train = text:none/*.txt'; refuse 'bad.ini:5: .*none/\*.txt' "$fairway" run bad.ini
with data 'train ='; refuse 'train is empty' "$fairway" run bad.ini
with eval 'stride = 100'; refuse 'bad.ini:5: eval.stride = 100 exceeds the window of 64' "$fairway" run bad.ini
with run 'batch_tokens = 100'; refuse 'bad.ini:5: run.batch_tokens = 100 is not a multiple of data.sequence = 64' "$fairway" run bad.ini
with run 'device = tpu'; refuse "bad.ini:5: .*no device plugin 'tpu'" "$fairway" run bad.ini
# In a build without the library there is no such plugin.
with tokenizer 'plugin = sentencepiece'
refuse "bad.ini:5: .*\(tokenizer sentencepiece needs the key 'model'\|no tokenizer plugin 'sentencepiece'\)" \
  "$fairway" run bad.ini
with data 'train = txt:foo'; refuse 'bad.ini:5: .*no source is called txt' "$fairway" run bad.ini
with run 'reproducible = yes'; refuse "bad.ini:5: .*no key 'reproducible'" "$fairway" run bad.ini
printf 'no section = here\n' >bad.ini; refuse 'bad.ini:1' "$fairway" run bad.ini
printf '[run\n' >bad.ini; refuse 'bad.ini:1' "$fairway" run bad.ini
refuse 'missing.ini: .*No such file' "$fairway" run missing.ini
refuse "no cache plugin 'ngrm'; did you mean 'ngram'? Tried " "$fairway" run tiny.ini --set cache.plugin=ngrm
refuse "command line: .*did you mean 'steps'" "$fairway" run tiny.ini --set run.stepz=3
refuse 'SECTION.KEY=VALUE' "$fairway" run tiny.ini --set nonsense
refuse 'did you mean --set' "$fairway" run tiny.ini --sett run.steps=3
refuse 'no INI file' "$fairway" run
refuse 'no verb "runn"; did you mean run?' "$fairway" runn tiny.ini
refuse 'no verb "evall"; did you mean eval?' "$fairway" help evall
refuse 'no verb "zebra"; `fairway help` lists them' "$fairway" help zebra
refuse 'foo: unexpected' "$fairway" doctor foo
refuse "no kind 'cach'; did you mean 'cache'" "$fairway" plugins -k cach
for verb in run train pack eval plugins data doctor; do
  "$fairway" "$verb" -h | grep -q "^usage: fairway $verb" || fail "$verb -h does not help"
done
# Numbers whose products would overflow.
refuse 'batch_tokens = 4611686018427387904 is out of range' "$fairway" run tiny.ini \
  --set run.batch_tokens=4611686018427387904 --set run.output=refused
refuse 'command line: eval.batch = 65536 windows of 1048576 tokens' "$fairway" run tiny.ini \
  --set eval.batch=65536 --set eval.window=1048576 --set run.output=refused
refuse 'tiny.ini: training has no end' "$fairway" run tiny.ini --set run.steps=0 --set run.output=refused
wrong=$(dirname "$fairway")/../lib/fairway/v0/compressor-lzma.so
refuse 'compressor-lzma.so has no cache; it has compressor lzma' "$fairway" run tiny.ini --set "cache.plugin=$wrong" --set run.output=refused
# What a plugin refuses is refused before training, with section and plugin.
with compress 'lc = 4
lp = 4'; refuse 'bad.ini:[0-9]*: \[compress\] plugin lzma: .*lc + lp' "$fairway" run bad.ini
with cache 'max_order = 1
min_order = 3'; refuse '\[cache\] plugin ngram: .*min_order 3' "$fairway" run bad.ini
with data 'sequence = 100000'; refuse 'less than one sequence' "$fairway" run bad.ini --set run.batch_tokens=100000
[ ! -e refused ] || fail "a refused run left a directory behind: $(ls -A refused)"

# Nor does a refused run touch the results of the one before it.
"$fairway" run tiny.ini --set run.output=kept >/dev/null
ls kept >before.txt
refuse 'less than one sequence' "$fairway" run tiny.ini --set run.output=kept --set data.sequence=100000 \
  --set run.batch_tokens=100000
ls kept | cmp -s before.txt - || fail "a refused run removed results: $(ls kept)"
