"""Makes a model that vLLM can serve without any download: a small Llama's shape and a tokenizer trained on the spot.

Runs in vLLM's environment, where the tokenizers library lives: `python tiny_model.py FOLDER`. vLLM fills in random
weights itself (`--load-format dummy`), so only configuration and tokenizer are written. Random weights never learned
when to stop: say `ignore_eos`.
"""

import json
import sys
import sysconfig
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|tools|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if tools %}<|tools|>{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE, "model_max_length": 4096,
    "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
}
VOCABULARY = 4096
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
    "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 4096,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": True,
}
SOURCES = 60  # files of the standard library: enough text for the vocabulary, two seconds of training


def make(folder: Path) -> None:
    """Write configuration and tokenizer of the tiny model into `folder`."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    sources = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:SOURCES]
    bpe.train([str(path) for path in sources], trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER))
    (folder / "config.json").write_text(json.dumps(LLAMA))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
