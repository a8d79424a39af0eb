# A tokenizer that counts bytes twice, one whose tokens are those of another text, one that spells a text in two
# ways: refused wherever text is
# tokenized, before any work is done on it. Their honest twins pass.
cheats=$3
. "$(dirname "$0")/../e2e/common.sh"

with() {
  id=$1
  shift
  "$fairway" "$@" --plugin-dir "$cheats" --set "tokenizer.plugin=$id"
}

for id in counts_twice invents remembers; do
  case $id in
  counts_twice) words='tokenizer, document 1: its table counts .* bytes for .* tokens.*off by a factor of 2' ;;
  remembers) words='tokenizer, document 1: encoding the same text again gives other tokens' ;;
  invents) words='tokenizer, document 1: its tokens decode to another text' ;;
  esac
  refuse "$words" with $id run tiny.ini --set run.output=$id
  [ ! -e $id/model.fairway ] || fail "trained with $id all the same"
  refuse "$words" "$fairway" data --out $id "text:text/*.txt" --tokenizer $id --plugin-dir "$cheats"
  [ ! -e ${id}_000000.bin ] || fail "shards of $id"
  with ${id}_honest run tiny.ini --set run.steps=2 --set run.output=$id-honest >$id.txt || fail "the twin of $id"
done

# An artifact whose own table is honest, scored with text of a cheat that says it is the same tokenizer.
for verb in eval check; do
  refuse 'decode to another text' "$fairway" $verb --artifact invents-honest/model.fairway --data "text:text/*.txt" \
    --tokenizer invents --plugin-dir "$cheats"
done
