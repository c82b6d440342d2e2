"""What the size and the layers of a model say about its work: operations of a request, bytes of its weights and of a token's context."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perjoule.bench.estimates.errors import EstimateError
from perjoule.sidecar.metering.prior import Shape

BF16_BYTES = 2.0
KV_VALUE_BYTES = BF16_BYTES  # keys and values are kept in bf16 unless somebody says otherwise
# 8B; 30B-A3B. 8x7B says too little: its experts share layers
SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)B(?:-A(\d+(?:\.\d+)?)B)?(?![\w.])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder. `attention_width` is query heads × head dimension of one layer; 0 where it is not known."""

    name: str
    parameters: float
    active_parameters: float
    weight_bytes: float = BF16_BYTES
    kv_bytes: float = 0.0  # of one token of context; 0 where it is not known
    layers: int = 0
    attention_width: int = 0

    @property
    def for_prior(self) -> Shape:
        """As the sidecar's physics prior takes it."""
        known = {"kv_bytes": self.kv_bytes} if self.kv_bytes else {}
        return Shape(self.parameters, self.active_parameters, self.weight_bytes, **known)

    def flop(self, prompt: float, output: float, cached: float = 0.0) -> float:
        """Floating-point operations of one request: 2 for every active weight and token, 4 · width a layer for every token that a token
        looks at. The prompt's last token gives the first of the output, so `prompt - cached + output - 1` tokens are computed."""
        computed = prompt - cached + max(output - 1.0, 0.0)
        looked_at = ((prompt + output) ** 2 - cached**2) / 2
        return 2.0 * self.active_parameters * computed + 4.0 * self.layers * self.attention_width * looked_at

    def prompt_work(self, prompt: float, cached: float = 0.0) -> float:
        """What a prompt costs in prompt tokens without context: more than its length, as attention grows with the square."""
        return prompt - cached + 2.0 * self.layers * self.attention_width * (prompt**2 - cached**2) / (2.0 * self.active_parameters)


def _decoder(name: str, billions: float, layers: int, kv_heads: int, head: int, heads: int, active: float | None = None,
             weight_bytes: float = BF16_BYTES) -> ModelShape:
    kv_bytes = 2.0 * layers * kv_heads * head * KV_VALUE_BYTES
    return ModelShape(name, billions * 1e9, (active or billions) * 1e9, weight_bytes, kv_bytes, layers, heads * head)


SHAPES = {shape.name: shape for shape in (  # of each model's own config.json and card
    _decoder("llama-3.2-1b", 1.24, 16, 8, 64, 32), _decoder("llama-3.2-3b", 3.21, 28, 8, 128, 24),
    _decoder("llama-3.1-8b", 8.03, 32, 8, 128, 32), _decoder("llama-3.1-70b", 70.6, 80, 8, 128, 64),
    _decoder("llama-3.1-405b", 405.9, 126, 8, 128, 128), _decoder("mistral-7b", 7.25, 32, 8, 128, 32),
    _decoder("mixtral-8x7b", 46.7, 32, 8, 128, 32, active=12.9), _decoder("qwen3-4b", 4.02, 36, 8, 128, 32),
    _decoder("qwen3-8b", 8.19, 36, 8, 128, 32), _decoder("qwen3-14b", 14.8, 40, 8, 128, 40),
    _decoder("qwen3-32b", 32.8, 64, 8, 128, 64), _decoder("qwen3-30b-a3b", 30.5, 48, 4, 128, 32, active=3.3),
    _decoder("gpt-oss-20b", 20.9, 24, 8, 64, 64, active=3.6, weight_bytes=0.66),
    _decoder("gpt-oss-120b", 116.8, 36, 8, 64, 64, active=5.1, weight_bytes=0.56),
)}
PRECISIONS = {"fp32": 4.0, "float32": 4.0, "bf16": 2.0, "bfloat16": 2.0, "fp16": 2.0, "float16": 2.0, "half": 2.0, "fp8": 1.0, "int8": 1.0,
              "fp4": 0.5, "nvfp4": 0.56, "mxfp4": 0.53, "int4": 0.5, "awq": 0.5, "gptq": 0.5}


def shape_of(name: str, precision: str | None = None, **told: float | None) -> ModelShape:
    """The shape of a model by its name: one of `SHAPES`, or as far as the name tells (8B, 30B-A3B). `told` are fields that are known
    better. Raises EstimateError for a name that tells nothing while the number of parameters is not told either."""
    known = {key: value for key, value in told.items() if value is not None}
    bare = _bare(name.rsplit("/", 1)[-1])
    found = SHAPES.get(max((each for each in SHAPES if bare == each or bare.startswith((each + "-", each + " "))), key=len, default=""))
    if found is None:
        size = SIZE.search(name.replace("_", "-"))
        if size is None and "parameters" not in known:
            raise EstimateError(f"got the model {name!r}, expected one of {', '.join(SHAPES)}, a name that tells its size (8B), or "
                                "--parameters")
        total = float(size[1]) * 1e9 if size else 0.0
        active = float(size[2]) * 1e9 if size and size[2] else total
        found = ModelShape(name or "unnamed", total, active)
    changes: dict[str, Any] = dict(known)
    if "parameters" in known and "active_parameters" not in known:
        changes["active_parameters"] = known["parameters"]
    weight = PRECISIONS.get((precision or "").lower())
    if weight and "weight_bytes" not in known and found.weight_bytes == BF16_BYTES:  # of a model known in few bits, its own
        changes["weight_bytes"] = weight
    shape = replace(found, **changes)
    if not 0 < shape.active_parameters <= shape.parameters:
        raise EstimateError(f"got {shape.active_parameters:g} active parameters, expected more than 0 and at most all {shape.parameters:g}")
    return shape


def described(shape: ModelShape) -> Mapping[str, Any]:
    """For JSON."""
    return {"name": shape.name, "parameters": shape.parameters, "active_parameters": shape.active_parameters,
            "weight_bytes": shape.weight_bytes, "kv_bytes": shape.kv_bytes or None, "layers": shape.layers or None,
            "attention_width": shape.attention_width or None}


def _bare(name: str) -> str:
    lowered = name.lower().replace("_", "-").removeprefix("meta-")
    return lowered.replace("llama3", "llama-3")
