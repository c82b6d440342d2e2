"""Bench: an engine whose true joules are known, the demo in front of it, and the programs that measure the sidecar."""

if __name__ == "bench":
    raise ImportError("import perjoule.bench; the folder is not the package")
