"""Inference engines: how each is recognised, and what it says of itself where it is asked beside the traffic.

    questions         what is asked of an engine at a URL: who it is, its largest batch, its load
    adapter           what there is to know of one engine
    pages             its pages, each fetched once while one question is answered
    samples           the numbers of a metrics page that somebody wants, however long the page is
    vllm              vLLM
    vllm_omni         vLLM-Omni: images, videos and speech
    sglang            SGLang
    sglang_diffusion  SGLang's server for images and videos
    tgi               Text Generation Inference
    llamacpp          llama.cpp's server
    transformers      `transformers serve`
    comfyui           ComfyUI
"""
