"""Writes a tiny model with chance weights for the engine's own server tests, whose models are not to be had offline.

usage: engine-tests-model.py ENGINE_SOURCE OUT.gguf

The tokenizer is that of a vocabulary file in the engine's source; two llama layers of width 64 on top run in well under a
millisecond per token. What it writes is gibberish, the same at every run: a few dozen tokens are far likelier than the others, and each
mostly depends on the one before, so that texts run in circles and drafts of them are accepted.
"""

import sys
from pathlib import Path

import numpy as np

source, out = Path(sys.argv[1]), Path(sys.argv[2])
sys.path.insert(0, str(source / "gguf-py"))

import gguf  # noqa: E402

EMBD, HEADS, LAYERS, FF, CTX = 64, 4, 2, 128, 2048
FAVOURITES = 48
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

vocab = gguf.GGUFReader(source / "models" / "ggml-vocab-llama-spm.gguf")
writer = gguf.GGUFWriter(out, "llama")

for name, field in vocab.fields.items():
    if name.startswith("tokenizer.") and name != "tokenizer.chat_template":
        value = field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(name, value)
        else:
            writer.add_key_value(name, value, field.types[0])
writer.add_chat_template(CHAT_TEMPLATE)
writer.add_name("tiny")
writer.add_context_length(CTX)
writer.add_embedding_length(EMBD)
writer.add_block_count(LAYERS)
writer.add_feed_forward_length(FF)
writer.add_head_count(HEADS)
writer.add_head_count_kv(HEADS)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(EMBD // HEADS)

n_vocab = len(vocab.fields["tokenizer.ggml.tokens"].data)
chance = np.random.default_rng(1)


def add(name, *shape, scale=1.0, rows=None):
    """A matrix of chance weights; `rows`, if given, are `scale` times as large as the others, otherwise all are."""
    weights = chance.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[-1]))
    weights[slice(None) if rows is None else rows] *= np.float32(scale)
    writer.add_tensor(name + ".weight", weights)


def add_norm(name):
    writer.add_tensor(name + ".weight", np.ones(EMBD, dtype=np.float32))


add("token_embd", n_vocab, EMBD, scale=8.0)
for i in range(LAYERS):
    add_norm(f"blk.{i}.attn_norm")
    for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.{i}.{part}", EMBD, EMBD)
    add_norm(f"blk.{i}.ffn_norm")
    add(f"blk.{i}.ffn_gate", FF, EMBD)
    add(f"blk.{i}.ffn_up", FF, EMBD)
    add(f"blk.{i}.ffn_down", EMBD, FF)
add_norm("output_norm")
# among the tokens after the bytes, which stand for pieces of words
add("output", n_vocab, EMBD, scale=8.0, rows=chance.choice(np.arange(300, n_vocab), FAVOURITES, replace=False))

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
