"""Adapters: one file or folder for each thing outside, energy counters and places for records; each implements a port of the sidecar.

They do not know each other. `main` picks them by name and imports them late, so that nobody pays for what he does not use.
"""

if __name__ == "adapters":
    raise ImportError("import perjoule.adapters; the folder is not the package")
