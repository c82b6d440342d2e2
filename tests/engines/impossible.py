"""What cannot be had of an engine, and why: the cells of the table of features (table.py) that no test can fill."""

_NO_TOKENS = "it counts none: its work is steps and pixels, and prompts are a negligible part of it"
_NO_CACHE = "nothing of one request is kept for the next"
_NO_JOBS = "its API has no work that outlives its request"
_TOLD_BY_NOBODY = "told by nobody; where one is made at a time, who waits costs nothing all the same"

IMPOSSIBLE: dict[tuple[str, str], str] = {
    ("tgi", "cached-known"): "it reuses prefixes, and tells nobody how much of a prompt that was",
    ("tgi", "jobs"): _NO_JOBS,
    ("transformers", "queue-known"): "it tells nobody how long a request has waited",
    ("transformers", "cached-known"): "it tells 0 always, or nothing",
    ("transformers", "jobs"): _NO_JOBS,
    ("llamacpp", "queue-known"): "it tells how many wait for a slot, not how long",
    ("llamacpp", "jobs"): _NO_JOBS,
    ("diffusers", "tokens-exact"): _NO_TOKENS,
    ("diffusers", "cached-known"): _NO_CACHE,
    ("vllm-omni", "tokens-exact"): _NO_TOKENS,
    ("vllm-omni", "queue-known"): _TOLD_BY_NOBODY,
    ("vllm-omni", "cached-known"): _NO_CACHE,
    ("sglang-diffusion", "stream"): "an image or a video comes whole: its API streams none",
    ("sglang-diffusion", "queue-known"): _TOLD_BY_NOBODY,
    ("sglang-diffusion", "cached-known"): _NO_CACHE,
    ("openai-images", "queue-known"): _TOLD_BY_NOBODY,
    ("openai-images", "cached-known"): "the usage of its images has no such count",
    ("comfyui", "tokens-exact"): _NO_TOKENS,
    ("comfyui", "cached-known"): "it keeps outputs of nodes between prompts, and names those in messages of its socket only",
}
