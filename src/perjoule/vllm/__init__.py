"""What runs inside vLLM: a plugin that tells a sidecar of each step of the engine, over a unix socket (docs/engines.md).

    telling  a step in numbers, sent without ever waiting; the standard library alone
    plugin   the stat logger that vLLM loads by its entry point; the only module that imports vllm
"""
