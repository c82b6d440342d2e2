"""Fills the tiny model with random weights, for engines that do not do it themselves: `python tiny_weights.py FOLDER safetensors|gguf`.

Runs in the environment of the engines, after tiny_model.py made the folder. The same weights are written as the file that
`transformers` reads, or as the one that llama.cpp reads.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SPREAD = 0.02  # of the weights, as transformers has it before training
NORMAL, CONTROL = 1, 3  # kinds of tokens in a GGUF
GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "model.layers": "blk",
}


def weights(shape: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every tensor of a Llama of this shape, by the name that transformers gives it."""
    rng = np.random.default_rng(0)
    wide, inner, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head

    def matrix(rows: int, columns: int) -> Any:
        return rng.normal(0, SPREAD, (rows, columns)).astype(np.float16)

    yield "model.embed_tokens.weight", matrix(shape["vocab_size"], wide)
    for layer in range(shape["num_hidden_layers"]):
        sizes = {"self_attn.q_proj": (queries, wide), "self_attn.k_proj": (keys, wide), "self_attn.v_proj": (keys, wide),
                 "self_attn.o_proj": (wide, queries), "mlp.gate_proj": (inner, wide), "mlp.up_proj": (inner, wide),
                 "mlp.down_proj": (wide, inner)}
        for name, size in sizes.items():
            yield f"model.layers.{layer}.{name}.weight", matrix(*size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", np.ones(wide, np.float16)
    yield "model.norm.weight", np.ones(wide, np.float16)


def write_safetensors(folder: Path) -> None:
    """What transformers reads."""
    from safetensors.numpy import save_file

    save_file(dict(weights(json.loads((folder / "config.json").read_text()))), folder / "model.safetensors", {"format": "pt"})


def write_gguf(folder: Path) -> None:
    """What llama.cpp reads: weights, shape, tokenizer and chat template in one file."""
    from gguf import GGUFWriter

    shape = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    writer = GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_rope_dimension_count(shape["head_dim"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(shape["vocab_size"])
    words = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([CONTROL if word in special else NORMAL for word in words])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(shape["bos_token_id"])
    writer.add_eos_token_id(shape["eos_token_id"])
    writer.add_chat_template(json.loads((folder / "tokenizer_config.json").read_text())["chat_template"])
    for name, tensor in weights(shape):
        for long, short in GGUF_NAMES.items():
            name = name.replace(long, short)
        writer.add_tensor(name, tensor.astype(np.float32) if tensor.ndim == 1 else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    {"safetensors": write_safetensors, "gguf": write_gguf}[sys.argv[2]](Path(sys.argv[1]))
