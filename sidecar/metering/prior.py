"""What a unit of each of the four amounts of computing costs by physics, before any traffic has been seen.

Both a step and a prompt token touch every weight: the step reads it (bytes), the prompt token multiplies with it (2 FLOP). So the
cost of a step in prompt tokens follows from the GPU alone, whatever the model's size: (FLOP/s reached) / (bytes/s reached) times
the power drawn while memory is the limit over that while computing is. For an H200 that is 116; 94 to 123 were fitted on real
traffic. Only the shape matters: who pays which share does not depend on the unit, which is the cost of one prompt token.
"""

from dataclasses import dataclass

from perjoule.sidecar.metering.terms import Terms

COMPUTE_REACHED = 0.5  # of the datasheet's FLOP/s in prefill, and of its bytes/s in decode (field measurements of vLLM)
MEMORY_REACHED = 0.8
MEMORY_POWER = 0.9  # what a board draws above idle reading weights, relative to computing prompts
DECODE = 1.2  # an output token costs the same multiplications, in a less favourable shape, and sampling
RELATIVE_SD = 0.5  # how far physics may be off: efficiencies, kernels, quantization and unknown models

# Dense bf16 (or fp16) TFLOP/s and TB/s of the makers' datasheets, the name as a driver reports it; of several that fit, the longest.
DATASHEETS = {
    "V100": (125, 0.9), "T4": (65, 0.32), "A10": (125, 0.6), "A10G": (70, 0.6), "A30": (165, 0.933), "A40": (150, 0.696),
    "A100": (312, 2.0), "A6000": (155, 0.768), "L4": (121, 0.3), "L40": (181, 0.864), "L40S": (362, 0.864),
    "RTX 3090": (71, 0.936), "RTX 4090": (165, 1.008), "RTX 5090": (210, 1.792), "RTX 6000 Ada": (364, 0.96),
    "H20": (148, 4.0), "H100": (989, 3.35), "H100 PCIe": (756, 2.0), "H100 NVL": (835, 3.9), "H200": (989, 4.8), "GH200": (989, 4.0),
    "H800": (989, 3.35), "A800": (312, 2.0), "B100": (1750, 8.0), "B200": (2250, 8.0), "GB200": (2500, 8.0), "B300": (2250, 8.0),
    "GB300": (2500, 8.0), "MI210": (181, 1.6), "MI250X": (383, 3.2), "MI300X": (1307, 5.3), "MI325X": (1307, 6.0),
    "MI355X": (2500, 8.0), "Gaudi 3": (1835, 3.7),
}
GENERIC = (500, 2.5)  # between an A100 and an H100


@dataclass(frozen=True, slots=True)
class Shape:
    """What may be known of a model. The defaults are a dense 8B model with grouped-query attention in bf16."""

    parameters: float = 8e9
    active_parameters: float | None = None  # of a mixture of experts, those that one token uses
    weight_bytes: float = 2.0  # of one parameter
    kv_bytes: float = 131_072.0  # of one token of context: 2 · layers · key-value heads · head dimension · bytes


def datasheet(gpu: str) -> tuple[float, float]:
    """Dense bf16 TFLOP/s and TB/s of the GPU that a driver calls so; of a GPU in between for one that is not known."""
    words = f" {gpu.upper().replace('-', ' ').replace('_', ' ')} "
    found = [name for name in DATASHEETS if f" {name.upper()} " in words]
    return DATASHEETS[max(found, key=len)] if found else GENERIC


def prior(gpu: str = "", shape: Shape | None = None) -> Terms:
    """Coefficients in units of one prompt token, for a GPU by its name and a model by its shape, as far as they are known."""
    shape = shape or Shape()
    tera_flop, tera_bytes = datasheet(gpu)
    flop_a_byte = tera_flop * COMPUTE_REACHED / (tera_bytes * MEMORY_REACHED) * MEMORY_POWER  # as much energy as a byte
    prompt_token_flop = 2 * (shape.active_parameters or shape.parameters)
    step_bytes = shape.parameters * shape.weight_bytes
    return Terms(1.0, flop_a_byte * step_bytes / prompt_token_flop, DECODE, flop_a_byte * shape.kv_bytes / prompt_token_flop)
