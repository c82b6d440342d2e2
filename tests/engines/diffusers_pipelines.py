"""Real diffusers pipelines with random weights and nothing downloaded: a tiny one for the CPU, SDXL for a GPU, a small SDXL to try it.

Runs in the environment of the engines, as `diffusers_server.py` does.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PROMPT_TOKENS = 77
WORD_END, BEGIN, END = "</w>", "<|startoftext|>", "<|endoftext|>"


def tiny(device: str, dtype: torch.dtype) -> DiffusionPipeline:
    """Stable Diffusion of 1.2 million parameters: 256 pixels and 20 steps take two seconds of one CPU core."""
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=64,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, norm_num_groups=8)
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                              set_alpha_to_one=False, steps_offset=1)
    pipeline = StableDiffusionPipeline(
        vae=_vae((16, 16, 32, 32), 8), unet=unet, scheduler=scheduler, tokenizer=_tokenizer(),
        text_encoder=CLIPTextModel(_text(64, 2, 4)), safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    return pipeline.to(device, dtype)


@dataclass(frozen=True)
class Shape:
    """How large a pipeline of SDXL's kind is; a text encoder is its width, layers and heads."""

    channels: tuple[int, int, int]
    depths: tuple[int, int, int]  # of the transformers in the UNet
    texts: tuple[tuple[int, int, int], tuple[int, int, int]]
    vae: tuple[int, ...]


SDXL = Shape((320, 640, 1280), (1, 2, 10), ((768, 12, 12), (1280, 32, 20)), (128, 256, 512, 512))
SMALL = Shape((64, 128, 256), (1, 1, 2), ((64, 2, 4), (128, 2, 4)), (32, 32, 64, 64))


def sdxl(shape: Shape, device: str, dtype: torch.dtype) -> DiffusionPipeline:
    """SDXL: a UNet of 2.6 billion parameters, both text encoders, the VAE; made on the device, in its precision."""
    (first, second) = shape.texts
    with torch.device(device):
        torch.set_default_dtype(dtype)
        try:
            unet = UNet2DConditionModel(
                sample_size=128, in_channels=4, out_channels=4, block_out_channels=shape.channels, layers_per_block=2,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=list(shape.depths),
                attention_head_dim=[width // 64 for width in shape.channels], cross_attention_dim=first[0] + second[0],
                use_linear_projection=True, addition_embed_type="text_time",
                addition_time_embed_dim=256, projection_class_embeddings_input_dim=second[0] + 6 * 256)
            vae = _vae(shape.vae, 32, scaling=0.13025)
            encoders = CLIPTextModel(_text(*first)), CLIPTextModelWithProjection(_text(*second))
        finally:
            torch.set_default_dtype(torch.float32)
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading",
                                       steps_offset=1)
    pipeline = StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=scheduler, tokenizer=_tokenizer(), tokenizer_2=_tokenizer(), text_encoder=encoders[0],
        text_encoder_2=encoders[1], add_watermarker=False)
    return pipeline.to(device, dtype)


PIPELINES: dict[str, Callable[[str, torch.dtype], DiffusionPipeline]] = {
    "tiny": tiny, "sdxl": partial(sdxl, SDXL), "sdxl-small": partial(sdxl, SMALL)}


def _vae(channels: tuple[int, ...], groups: int, scaling: float = 0.18215) -> AutoencoderKL:
    """One that makes 8 x 8 pixels of a latent one."""
    return AutoencoderKL(
        block_out_channels=channels, down_block_types=("DownEncoderBlock2D",) * len(channels), up_block_types=("UpDecoderBlock2D",) *
        len(channels), layers_per_block=1 if channels[0] < 64 else 2, latent_channels=4, norm_num_groups=groups, scaling_factor=scaling)


def _text(width: int, layers: int, heads: int) -> CLIPTextConfig:
    tokens: dict[str, Any] = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    return CLIPTextConfig(vocab_size=514, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                          num_attention_heads=heads, max_position_embeddings=PROMPT_TOKENS, projection_dim=width, **tokens)


def _tokenizer() -> CLIPTokenizer:
    """A letter is a token: CLIP's 256 bytes, each inside and at the end of a word, begin and end, and no merges."""
    letters = list(_bytes_as_letters())
    vocabulary = {token: number for number, token in enumerate([*letters, *(letter + WORD_END for letter in letters), BEGIN, END])}
    with tempfile.TemporaryDirectory() as folder:
        words, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        words.write_text(json.dumps(vocabulary))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(words), str(merges), model_max_length=PROMPT_TOKENS)


def _bytes_as_letters() -> list[str]:
    """A printable character for each byte, as byte-level tokenizers have it: its own, or one beyond Latin-1."""
    own = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]
