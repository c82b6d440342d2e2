"""GPUs by the name that a user or a driver has for them: speed as the physics prior knows it, and the watts and memory of the datasheet."""

import re
from dataclasses import dataclass

from perjoule.bench.estimates.errors import EstimateError
from perjoule.sidecar.metering.prior import DATASHEETS, datasheet

IDLE_SHARE = 0.18  # of TDP, drawn with a model loaded and nothing to do: 128 W of an H200's 700 (our recordings), 62 W of an A100's 400
RATED = {  # maximum board power in W, memory in GB, and whose paper says so; the names are those of the prior
    "V100": (300, 32, "NVIDIA V100 datasheet, SXM2"), "T4": (70, 16, "NVIDIA T4 datasheet"), "A10": (150, 24, "NVIDIA A10 datasheet"),
    "A30": (165, 24, "NVIDIA A30 datasheet"), "A40": (300, 48, "NVIDIA A40 datasheet"),
    "A100": (400, 80, "NVIDIA A100 80GB datasheet, SXM"), "A800": (400, 80, "NVIDIA A100 80GB datasheet, SXM: same board power"),
    "A6000": (300, 48, "NVIDIA RTX A6000 datasheet"), "L4": (72, 24, "NVIDIA L4 datasheet"), "L40": (300, 48, "NVIDIA L40 datasheet"),
    "L40S": (350, 48, "NVIDIA L40S datasheet"), "RTX 3090": (350, 24, "NVIDIA GeForce RTX 3090 specifications"),
    "RTX 4090": (450, 24, "NVIDIA GeForce RTX 4090 specifications"), "RTX 5090": (575, 32, "NVIDIA GeForce RTX 5090 specifications"),
    "RTX 6000 Ada": (300, 48, "NVIDIA RTX 6000 Ada datasheet"), "H100": (700, 80, "NVIDIA H100 datasheet, SXM"),
    "H100 PCIe": (350, 80, "NVIDIA H100 PCIe product brief"), "H100 NVL": (400, 94, "NVIDIA H100 datasheet, NVL"),
    "H800": (700, 80, "NVIDIA H100 datasheet, SXM: same board power"), "H200": (700, 141, "NVIDIA H200 datasheet, SXM"),
    "B200": (1000, 180, "NVIDIA HGX B200 datasheet"), "MI210": (300, 64, "AMD Instinct MI210 datasheet"),
    "MI250X": (560, 128, "AMD Instinct MI250X datasheet, peak"), "MI300X": (750, 192, "AMD Instinct MI300X datasheet"),
    "MI325X": (1000, 256, "AMD Instinct MI325X datasheet"), "MI355X": (1400, 288, "AMD Instinct MI355X datasheet"),
    "Gaudi 3": (900, 128, "Intel Gaudi 3 white paper, OAM"),
}


@dataclass(frozen=True, slots=True)
class Boards:
    """`count` GPUs of one kind that serve one engine together. Everything is of one board; `flop_s` is dense bf16."""

    name: str
    flop_s: float
    bytes_s: float
    tdp_w: float
    idle_w: float
    memory_bytes: float
    source: str
    count: int = 1


def boards_of(gpu: str, count: int = 1, *, tdp_w: float | None = None, idle_w: float | None = None) -> Boards:
    """The GPUs of a name, as `h100` or `NVIDIA H100 80GB HBM3`. `tdp_w` is a power limit that was set, `idle_w` what one draws with the
    model loaded and nothing to do, where it was measured. Raises EstimateError for a GPU whose datasheet is not known here."""
    sheet = datasheet(gpu)
    words = f" {gpu.upper().replace('-', ' ').replace('_', ' ')} "
    name = max((name for name in DATASHEETS if f" {name.upper()} " in words), key=len, default="")
    if name not in RATED:
        raise EstimateError(f"--gpu: got {gpu!r}, expected one of {', '.join(RATED)}")
    rated_w, rated_gb, source = RATED[name]
    told_gb = re.search(r"(\d+) ?GB\b", gpu, re.IGNORECASE)  # of A100-SXM4-40GB
    memory_gb = int(told_gb[1]) if told_gb else rated_gb
    limit_w = tdp_w or float(rated_w)
    idle_w = IDLE_SHARE * rated_w if idle_w is None else idle_w
    if not 0 <= idle_w < limit_w:
        raise EstimateError(f"got {idle_w:g} W drawn idle, expected less than the {limit_w:g} W that a {name} may draw")
    return Boards(name, sheet[0] * 1e12, sheet[1] * 1e12, limit_w, idle_w, memory_gb * 1e9, source, count)
