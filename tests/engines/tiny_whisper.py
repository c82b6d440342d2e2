"""Makes a small Whisper that never learned to listen, for servers that write down what is said: `python tiny_whisper.py FOLDER`.

Runs in the environment of the engines. Only the smallest of its weights are written: transformers fills in the others at random.
What such a model repeats may be no text at all (a special token, half a character): one of sixteen said nothing. So it is kept
from saying anything but printable text, and goes on to its maximal length.
"""

import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tiny_model import VOCABULARY, make
from tokenizers import Tokenizer

WIDE = 64
WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "dtype": "float32", "vocab_size": VOCABULARY,
    "d_model": WIDE, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 2 * WIDE, "decoder_ffn_dim": 2 * WIDE, "num_mel_bins": 80, "max_source_positions": 1500,
    "max_target_positions": 448, "decoder_start_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}
GENERATION = {"decoder_start_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_length": 32,
              "is_multilingual": False, "no_timestamps_token_id": 3, "alignment_heads": [[0, 0]]}
LISTENING = {"feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor", "feature_size": 80,
             "sampling_rate": 16000, "hop_length": 160, "chunk_length": 30, "n_fft": 400}


def make_whisper(folder: Path) -> None:
    """Write the model into `folder`, with the tokenizer of the tiny model."""
    make(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [tokenizer.decode([token]) for token in range(VOCABULARY)]
    mute = [token for token, text in enumerate(texts) if not (text and text.isascii() and text.isprintable())]
    generation = GENERATION | {"suppress_tokens": mute}
    for name, value in {"config": WHISPER, "generation_config": generation, "preprocessor_config": LISTENING}.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    some = {"model.encoder.layer_norm.weight": np.ones(WIDE, np.float32)}
    save_file(some, folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    make_whisper(Path(sys.argv[1]))
