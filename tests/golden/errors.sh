#!/bin/sh
# errors.sh BIN DIR CASES: what the program golden must notice. A good case is written, then spoiled
# in one way after another; each must give its exit status and name what is wrong. CASES are those
# of the source tree.
bin=$1 dir=$2 cases=$3
failures=0

fresh() {
    rm -rf "$dir"
    mkdir -p "$dir"
    "$bin/golden_make" "$dir/case" layers=2 ve_layers=1 xsa=1 seq=8 batch=1 || exit 1
}

# expect STATUS TEXT ARGUMENTS...: the output, both streams, holds TEXT.
expect() {
    wanted=$1 text=$2
    shift 2
    output=$("$bin/golden" "$@" 2>&1)
    status=$?
    if [ $status -ne "$wanted" ] || ! printf '%s\n' "$output" | grep -q -e "$text"; then
        printf 'golden %s: status %d, wanted %d with "%s":\n%s\n' \
            "$*" $status "$wanted" "$text" "$output"
        failures=$((failures + 1))
    fi
}

# edit FILE SED: change a text file of the case.
edit() {
    sed "$2" "$dir/case/$1" >"$dir/edited" && mv "$dir/edited" "$dir/case/$1"
}

# spoil ARRAY: turn an array's second value into 1e9, or not a number.
spoil() {
    offset=$(awk -v name="$1" '$1 == name { print $NF }' "$dir/case/manifest.txt")
    printf "$2" | dd of="$dir/case/data.bin" bs=1 seek=$((offset + 4)) conv=notrunc 2>/dev/null
}
large='\050\153\156\116' nan='\000\000\300\177'

fresh
expect 0 'Muon step of qo_bank' "$dir/case"
expect 0 'usage: golden' --help
expect 2 'no directory' --device cpu
expect 2 'did you mean --device' --devise cpu "$dir/case"
expect 2 'nonesuch' "$dir/case" --device nonesuch
expect 2 "$dir/none" "$dir/none" "$dir/case"
expect 2 'Muon step of qo_bank' "$dir/none" "$dir/case" # the others run all the same
mkdir "$dir/empty" && : >"$dir/empty/data.bin" && : >"$dir/empty/manifest.txt"
expect 2 'holds no case' "$dir/case" "$dir/empty"

# A model or a step that is another.
for key in model.depth_norm=no model.softcap=29 attention.rope_base=20000 \
    attention.rope_dims=2 attention.last_layers=2 optimizer.matrix.learning_rate=0.026 \
    optimizer.matrix.iterations=4 optimizer.matrix.weight_decay=0 optimizer.embed.learning_rate=0.025 \
    optimizer.embed.weight_decay=0 optimizer.scalar.learning_rate=0.035 optimizer.scalar.weight_decay=0; do
    expect 1 FAILED "$dir/case" --set $key
done
expect 2 'param/smear.gate' "$dir/case" --set model.smear=no
expect 2 'nonesuch' "$dir/case" --set model.nonesuch=1

for array in logits grad/mlp_up_bank grad/blocks.1.resid_mix after_step/smear.gate \
    after_step/kv_bank param/qo_bank param/bigram.embed.weight; do
    fresh
    spoil $array "$large"
    expect 1 FAILED "$dir/case"
    fresh
    spoil $array "$nan"
    expect 1 FAILED "$dir/case"
done

fresh && edit manifest.txt '/^after_step.smear.gate/d'
expect 2 'after_step/smear.gate' "$dir/case"
fresh && edit manifest.txt '/^param.bigram.scale/d'
expect 2 'param/bigram.scale' "$dir/case"
fresh && edit manifest.txt '/^logits/d'
expect 2 'holds no case' "$dir/case"
fresh && echo 'param/stranger f32 1 4 0' >>"$dir/case/manifest.txt"
expect 2 'param/stranger' "$dir/case"
fresh && echo 'stranger f32 1 4 0' >>"$dir/case/manifest.txt"
expect 2 'stranger belongs to no case' "$dir/case"
fresh && echo 'loss f64 1 1 0' >>"$dir/case/manifest.txt"
expect 2 'loss stands there twice' "$dir/case"
fresh && echo 'far f32 1 4 1000000000000' >>"$dir/case/manifest.txt"
expect 2 'far ends at byte' "$dir/case"
fresh && echo 'odd f33 1 4 0' >>"$dir/case/manifest.txt"
expect 2 'is not "name dtype rank' "$dir/case"
fresh && edit manifest.txt 's/^loss f64/loss f32/'
expect 2 'loss has 1 values of 4 bytes' "$dir/case"
fresh && edit manifest.txt 's/^input_ids i32 2 1 8/input_ids i32 2 1 7/'
expect 2 'input_ids should be 1 x 8 tokens' "$dir/case"
fresh && edit config.txt 's/^vocab = .*/vocab = 9/'
expect 2 'token' "$dir/case"
fresh && rm "$dir/case/config.txt"
expect 2 'config.txt is missing' "$dir/case"
fresh && edit config.txt 's/^heads = .*/heads = 5/'
expect 2 'heads does not divide dim' "$dir/case"
fresh && edit config.txt '/^kv/d'
expect 2 'key kv is missing' "$dir/case"
fresh && edit config.txt 's/^ve_layers.*/ve_layers = 1;/'
expect 2 've_layers = 1;' "$dir/case"
fresh && edit config.txt 's/^layers = .*/layers = 3/'
expect 2 'param/' "$dir/case"
fresh && edit config.txt 's/^smear = .*//' && echo 'smear = 0' >>"$dir/case/config.txt"
expect 2 'param/smear.gate' "$dir/case"
fresh && edit config.txt 's/^xsa = .*/xsa = 0/'
expect 1 FAILED "$dir/case"
fresh && edit config.txt 's/^rope_dims = .*/rope_dims = 6/'
expect 1 FAILED "$dir/case"
fresh && echo 'shoe_size = 43' >>"$dir/case/config.txt"
expect 0 'shoe_size is not known' "$dir/case"

# stream LINE: the evaluation case with one line to reproduce.
stream() {
    rm -rf "$dir"
    mkdir -p "$dir"
    cp -r "$cases/eval_stream" "$dir/case" && chmod -R u+w "$dir/case"
    printf '%s' "$1" >"$dir/case/results.txt"
}
line=$(grep sliding_seq512 "$cases/eval_stream/results.txt")
stream "$line"
expect 0 sliding_seq512 "$dir/case"
stream "$(printf '%s' "$line" | sed 's/val_loss=\(.*[0-9]\.[0-9]*\)[0-9]\{6\} /val_loss=\1999999 /')"
expect 1 FAILED "$dir/case"
stream ''
expect 2 'there is no line' "$dir/case"
stream "something_else val_loss=1 val_bpb=1"
expect 2 'no way is known to run something_else' "$dir/case"
stream "$line" && rm "$dir/case/results.txt"
expect 2 'results.txt' "$dir/case"

cp -r "$cases/quantize_int8" "$dir/int8" && chmod -R u+w "$dir/int8"
printf '\007\007\007' | dd of="$dir/int8/data.bin" bs=1 seek=50000 conv=notrunc 2>/dev/null
expect 1 'symbols that differ.*FAILED' "$dir/int8"
cp -r "$cases/newton_schulz" "$dir/ns" && chmod -R u+w "$dir/ns"
printf "$nan" | dd of="$dir/ns/data.bin" bs=1 seek=18436 conv=notrunc 2>/dev/null
expect 1 FAILED "$dir/ns"

rm -rf "$dir"
[ $failures -eq 0 ]
