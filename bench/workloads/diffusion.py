"""Jobs for image and video servers: so many steps, of this size, so many frames, so many at a time."""

from random import Random
from typing import Any

from perjoule.bench.workloads.workload import IMAGES, VIDEOS, Turn, Workload

JOBS = 100  # where their number is not given
PROMPTS = (  # the joules of a job do not depend on what is in the picture, but a server may keep one that it has made
    "a lighthouse on a cliff in a storm, oil on canvas", "a fox asleep in fresh snow, morning light",
    "an old tram climbing a steep street, evening", "a bowl of oranges on a blue table, still life",
    "a glass greenhouse full of ferns, wide angle", "two herons over a river in fog, ink drawing",
    "a red bicycle against a yellow wall, noon", "a market hall from above, people with baskets",
    "a small harbour at night, lamps on the water", "a mountain hut under the Milky Way",
    "a clockmaker at work, close view of the hands", "waves on black sand, long exposure",
)


def job(prompt: str, seed: int, *, steps: int | None = None, size: str | None = None, frames: int = 1, batch: int = 1) -> Turn:
    """One request for `batch` pictures, or with more than one frame for a video; what is None is left to the server.

    The words are those of vLLM-Omni and SGLang (`num_inference_steps`, `size`, `n`, `num_frames`), which others leave unread.
    Videos go to /v1/videos/sync: a job of /v1/videos outlives its request, which then has no energy of its own."""
    body: dict[str, Any] = {"prompt": prompt, "seed": seed, "n": batch}
    if steps is not None:
        body["num_inference_steps"] = steps
    if size is not None:
        body["size"] = size
    if frames > 1:
        return Turn(body={**body, "num_frames": frames}, endpoint=VIDEOS)
    return Turn(body={**body, "response_format": "b64_json"}, endpoint=IMAGES)


def diffusion(steps: int, size: str, frames: int = 1, batch: int = 1, jobs: int = JOBS, *, seed: int) -> Workload:
    """Equal jobs with different prompts and seeds, so that none can be answered from a cache."""
    random = Random(f"{seed} diffusion")
    turns = tuple(job(f"{random.choice(PROMPTS)}, no. {number}", random.getrandbits(31), steps=steps, size=size, frames=frames, batch=batch)
                  for number in range(1, jobs + 1))
    name = f"diffusion:{steps},{size},{frames},{batch}"
    note = f"Each job asks for {steps} steps at {size}, {frames} frames, {batch} at a time; prompts are synthetic, seed {seed}."
    return Workload(name, f"{name},{jobs}", turns, jobs, {}, (note,))
