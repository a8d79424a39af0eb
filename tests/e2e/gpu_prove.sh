# A proof written on a GPU is decoded there, in a jail, and nowhere else.
. "$(dirname "$0")/common.sh"
need_gpu

sed 's/^device = cpu/device = cuda/; s/^width = 32/width = 64/; s/^mlp_width = 64/mlp_width = 128/' tiny.ini >gpu.ini
"$fairway" run gpu.ini >run.txt
ls text/*.txt | LC_ALL=C sort | awk 'NR % 5 == 0' >held_out.txt
cat $(cat held_out.txt) >original.txt
cuda='--artifact out/model.fairway --set run.device=cuda'
for mode in sliding stream; do
  "$fairway" prove $cuda --data list:held_out.txt --all --set eval.mode=$mode --set eval.max_tokens=600 \
    --output decoded.txt >$mode.txt || fail "prove in mode $mode"
  head -c "$(wc -c <decoded.txt)" original.txt | cmp - decoded.txt || fail "$mode: the text is not the original"
  "$fairway" prove $cuda --verify proof.fwp --set eval.mode=$mode >/dev/null || fail "verify in mode $mode"
done
refuse 'device plugin: not what it was written with' \
  "$fairway" prove --artifact out/model.fairway --set run.device=cpu --verify proof.fwp --set eval.mode=stream
