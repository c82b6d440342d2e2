"""perjoule: what each inference request cost in joules, measured in front of the engine that served it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("perjoule")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+source"
