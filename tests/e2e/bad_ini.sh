# A wrong INI is one sentence with its place and what would be right; nothing is written.
. "$(dirname "$0")/common.sh"

with() { # with SECTION LINE: tiny.ini plus a line in a section of its own file
  printf '[run]\nbase = tiny.ini\noutput = refused\n[%s]\n%s\n' "$1" "$2" >bad.ini
}
with modell 'layers = 3';  refuse 'bad.ini:4: .*modell.*did you mean.*model' "$fairway" run bad.ini
with model 'layer = 3';    refuse "bad.ini:5: .*layer.*did you mean 'layers'" "$fairway" run bad.ini
with model 'layers = -1';  refuse 'bad.ini:5: .*out of range' "$fairway" run bad.ini
with model 'layers = two'; refuse 'bad.ini:5: .*two' "$fairway" run bad.ini
with attention 'heads = 5'; refuse '5.*32\|32.*5' "$fairway" run bad.ini
with attention 'kv_heads = 3'; refuse '3' "$fairway" run bad.ini
with attention 'hedas = 4'; refuse "bad.ini:5: .*hedas.*did you mean 'heads'" "$fairway" run bad.ini
with cache 'plugin = ngrm'; refuse 'bad.ini:5: .*ngrm.*Tried .*cache-ngrm.so' "$fairway" run bad.ini
with attention.5 'heads = 2'; refuse 'layer 5.*layers = 2' "$fairway" run bad.ini
with data 'hold_out_every = 0'; refuse 'validation is empty' "$fairway" run bad.ini
with data 'train = text:none/*.txt'; refuse 'bad.ini:5: .*none/\*.txt' "$fairway" run bad.ini
with data 'train ='; refuse 'train is empty' "$fairway" run bad.ini
with eval 'stride = 100'; refuse 'stride' "$fairway" run bad.ini
with run 'batch_tokens = 100'; refuse 'batch_tokens' "$fairway" run bad.ini
with run 'device = tpu'; refuse 'tpu' "$fairway" run bad.ini
with tokenizer 'plugin = sentencepiece'; refuse "model\|sentencepiece" "$fairway" run bad.ini
printf 'no section = here\n' >bad.ini; refuse 'bad.ini:1' "$fairway" run bad.ini
printf '[run\n' >bad.ini; refuse 'bad.ini:1' "$fairway" run bad.ini
refuse 'missing.ini' "$fairway" run missing.ini
refuse "did you mean 'run.steps'\|did you mean 'steps'" "$fairway" run tiny.ini --set run.stepz=3
refuse 'SECTION.KEY=VALUE' "$fairway" run tiny.ini --set nonsense
refuse 'did you mean --set' "$fairway" run tiny.ini --sett run.steps=3
refuse 'no INI file' "$fairway" run
refuse 'no verb' "$fairway" runn tiny.ini
refuse 'steps' "$fairway" run tiny.ini --set run.steps=0 --set run.output=refused
wrong=$(dirname "$fairway")/../lib/fairway/v0/compressor-lzma.so
refuse 'lzma.*cache\|cache.*lzma\|compressor' "$fairway" run tiny.ini --set "cache.plugin=$wrong" --set run.output=refused
[ ! -e refused ] || fail "a refused run left a directory behind: $(ls -A refused)"
