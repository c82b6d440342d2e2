"""How much work a ComfyUI graph is: the steps of its samplers, and the size of the latents that they compute.

A graph is nodes by id, each a class and inputs; an input is a value, or a link [node, slot] to where it comes from. Nodes that are not
known here are looked through; what they leave unsaid is taken to be usual, as `works` has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from perjoule.sidecar.dialects.works import USUAL_FPS, USUAL_IMAGE, USUAL_STEPS, Product, work_tokens
from perjoule.sidecar.record import Unit, UnitSource

_LATENTS = ("latent_image", "samples", "latent", "latents")  # inputs by which a latent comes in
_MODELS = ("ckpt_name", "unet_name", "model_name")
_MOST_NODES, _MOST_SAMPLERS, _MOST_LINKS, _MOST = 5000, 100, 64, 1_000_000
_MOST_NAME = 256

Node = dict[str, Any]
Graph = dict[str, Any]


@dataclass(slots=True)
class _Latent:
    """What is denoised: `frames` is None of images."""

    width: int = USUAL_IMAGE[0]
    height: int = USUAL_IMAGE[1]
    batch: int = 1
    frames: int | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What a graph makes, what work that is, and the model that it names first."""

    makes: Product
    work_tokens: int
    model: str | None


def work_of(asks: dict[str, Any]) -> Work:
    """What the body of a POST to /prompt asks for. Never raises."""
    graph = asks.get("prompt")
    graph = graph if isinstance(graph, dict) and len(graph) <= _MOST_NODES else {}
    samplers = ((node_id, steps) for node_id, node in _nodes(graph) if (steps := _steps(graph, node)) is not None)
    sampled = [(_latent(graph, node_id), steps) for node_id, steps in islice(samplers, _MOST_SAMPLERS)]
    passes = [_product(latent, steps) for latent, steps in sampled] or [Product(Unit.IMAGE, 1)]
    last = passes[-1] if not sampled else max(passes, key=lambda product: (product.width or 0) * (product.height or 0))
    makes = replace(last, steps=sum(product.steps or 0 for product in passes) or None, units=last.units if sampled else None)
    if makes.frames is not None:
        makes.units = makes.frames / (_fps(graph) or USUAL_FPS)
    makes.units_source = UnitSource.ASKED if makes.units is not None else None
    return Work(makes, min(sum(work_tokens(product) or 0 for product in passes), 2**53), _model(graph))


def _product(latent: _Latent, steps: int) -> Product:
    """One sampler's pass over a latent."""
    if latent.frames is None:
        return Product(Unit.IMAGE, latent.batch, steps=steps, width=latent.width, height=latent.height)
    return Product(Unit.VIDEO_SECOND, steps=steps, width=latent.width, height=latent.height, frames=latent.frames * latent.batch)


def _steps(graph: Graph, node: Node) -> int | None:
    """How many steps this node computes, None for one that is no sampler. KSamplerAdvanced computes a part of its steps; a custom sampler
    has them from a scheduler."""
    name, inputs = node["class_type"], node["inputs"]
    if "Sampler" not in name or not any(key in inputs for key in _LATENTS):
        return None
    steps = _whole(graph, inputs.get("steps"))
    if steps is not None:
        last = _whole(graph, inputs.get("end_at_step"))
        first = _whole(graph, inputs.get("start_at_step")) or 0
        return max(min(steps, last if last is not None else steps) - first, 0)
    scheduler = _linked(graph, inputs.get("sigmas"))
    for _ in range(_MOST_LINKS):
        if scheduler is None:
            break
        if (steps := _whole(graph, scheduler["inputs"].get("steps"))) is not None:
            return steps
        scheduler = _linked(graph, scheduler["inputs"].get("sigmas"))  # what splits or stretches them
    return USUAL_STEPS


def _latent(graph: Graph, sampler_id: str) -> _Latent:
    """The latent that a sampler gets: back along the links, to whoever gives it its size."""
    scale, batch, size, node = 1.0, 1, None, _node(graph, sampler_id)
    for hop in range(_MOST_LINKS):
        if node is None:
            break
        inputs = node["inputs"]
        by, amount = inputs.get("scale_by"), _whole(graph, inputs.get("amount"))
        if isinstance(by, int | float) and 0 < by < 100 and size is None:
            scale *= by
        if "RepeatLatentBatch" in node["class_type"] and amount is not None:
            batch *= amount
        width, height = _whole(graph, inputs.get("width")), _whole(graph, inputs.get("height"))
        if hop and width and height and size is None:
            size = width, height
        source = next((found for key in _LATENTS if (found := _linked(graph, inputs.get(key))) is not None), None)
        if source is None:
            frames = _whole(graph, inputs.get("length")) if size is not None else None
            batch *= _whole(graph, inputs.get("batch_size")) or 1
            width, height = (round(side * scale) for side in (size or USUAL_IMAGE))
            return _Latent(min(width, _MOST), min(height, _MOST), min(batch, _MOST), frames)
        node = source
    return _Latent()


def _fps(graph: Graph) -> float | None:
    for _, node in _nodes(graph):
        for key in ("fps", "frame_rate"):
            rate = node["inputs"].get(key)
            if type(rate) in (int, float) and 0 < rate <= 1000:
                return float(rate)
    return None


def _model(graph: Graph) -> str | None:
    for _, node in _nodes(graph):
        for key in _MODELS:
            if isinstance(name := node["inputs"].get(key), str) and 0 < len(name) <= _MOST_NAME:
                return name
    return None


def _nodes(graph: Graph) -> Iterator[tuple[str, Node]]:
    return ((node_id, node) for node_id in graph if (node := _node(graph, node_id)) is not None)


def _node(graph: Graph, node_id: Any) -> Node | None:
    node = graph.get(node_id) if isinstance(node_id, str) else None
    is_one = isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
    return node if is_one else None


def _linked(graph: Graph, value: Any) -> Node | None:
    """The node that an input comes from."""
    return _node(graph, str(value[0])) if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) else None


def _whole(graph: Graph, value: Any) -> int | None:
    """A number, or that of the node of one value that it is linked to."""
    if (node := _linked(graph, value)) is not None:
        value = next((node["inputs"][key] for key in ("value", "int", "number") if key in node["inputs"]), None)
    return value if type(value) is int and 0 <= value <= _MOST else None
