#!/usr/bin/env bash
# What a user of millrace-engine sees: an 8-bit checkpoint answers as the original does in 8 bits, memory is known beforehand,
# and what is wrong is said in one line.
set -euo pipefail
engine=$1 demo=ops/demo/millrace-demo
dir=$(mktemp -d /tmp/millrace-cli-XXXXXX)
trap 'rm -rf "$dir"' EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
expect() { # STATUS WORDS COMMAND…: the exit status, and words in what it prints
    local status=$1 words=$2 got=0
    shift 2
    "$@" >"$dir/out" 2>&1 || got=$?
    [ "$got" = "$status" ] || { cat "$dir/out" >&2; fail "$* ends with $got, not $status"; }
    grep -q -- "$words" "$dir/out" || { cat "$dir/out" >&2; fail "$*: nothing like \"$words\""; }
}
answer() { "$engine" generate --prompt 'What is Millrace?' --temperature 0 --max-tokens 40 --threads 1 "$@" 2>/dev/null; }

expect 0 'of weights are' "$engine" quantize "$demo" "$dir/q" --file-mb 1
expect 1 'exists: remove it' "$engine" quantize "$demo" "$dir/q"
expect 0 'of weights are' "$engine" quantize "$demo" "$dir/q" --force
expect 1 'in 8 bits already' "$engine" quantize "$dir/q" "$dir/r"
[ "$(ls "$dir")" = "$(printf 'out\nq')" ] || fail "something is left behind: $(ls "$dir")"
[ "$(answer --model "$dir/q")" = "$(answer --model "$demo" --weights int8)" ] || fail "the answers differ"
[ -n "$(answer --model "$dir/q" --kv int8)" ] || fail "no answer with a KV cache in 8 bits"

expect 0 'matrices in int8 (W8A8)' "$engine" inspect --model "$dir/q"
expect 0 '^int8 .*full' "$engine" accuracy --model "$demo" --text ops/demo/corpus/chat.en.txt --tokens 256 --other "$dir/q"

cat >"$dir/67b.json" <<'J'
{"architectures": ["LlamaForCausalLM"], "hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 95,
 "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 102400, "max_position_embeddings": 4096,
 "rms_norm_eps": 1e-6, "torch_dtype": "bfloat16"}
J
memory=("$engine" inspect --shape "$dir/67b.json" --memory --context 4096 --seqs 4)
expect 0 'int8 *int8 *65\.[0-9]* .* fits' "${memory[@]}" --memory-gib 80
expect 0 'stored *full *125\.[0-9]* .* does not fit' "${memory[@]}" --memory-gib 80
expect 0 'stored *full .* fits' "${memory[@]}" --memory-gib 80 --tp 8
expect 1 'no format fits in 24.0 GiB' "${memory[@]}" --memory-gib 24
expect 1 'can over 1, 2, 4, 8' "${memory[@]}" --tp 3

expect 2 'deterministic is maybe: expected true or false' "$engine" generate --model "$demo" --prompt x --deterministic maybe
expect 2 'DST is missing' "$engine" quantize "$demo"
expect 2 'expected group or row' "$engine" quantize "$demo" "$dir/r" --scales tensor
expect 2 'unexpected argument' "$engine" generate what
expect 1 'unknown KV cache' "$engine" generate --model "$demo" --prompt x --kv int4
echo ok
