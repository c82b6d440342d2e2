"""The quick starts, played in front of the real engines that run here."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.engines.diffusers_images import running_diffusers
from tests.engines.llama_server import running_llama
from tests.engines.transformers_serve import BATCHING, running_transformers
from tests.engines.vllm_cpu import API_KEY, FLAGS, MODEL, Vllm
from tests.walkthrough import play

PAGES = Path(__file__).parents[2] / "docs" / "quickstart"
SMALL = {"1024x1024": "64x64", "832x480": "64x64", "seconds=4": "seconds=1"}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """One for the engine, one for the reader."""
    engine, reader = tmp_path / "engine", tmp_path / "reader"
    engine.mkdir()
    reader.mkdir()
    return engine, reader


def play_it(page: str, url: str, model: str, folder: Path, *, variables: str = "", flags: str = "",
            words: dict[str, str] | None = None) -> None:
    """Every command after the engine's start, with the tiny model and simulated joules in place of a reader's."""
    (theirs,) = set(re.findall(r'"model": "([^"]+)"', (PAGES / page).read_text()))
    ours = {f'"model": "{theirs}"': f'"model": "{model}"', "perjoule serve": f"{variables}perjoule serve --energy simulated {flags}"}
    play(PAGES / page, folder, {"8000": str(urlsplit(url).port)}, ours | (words or {}))


@pytest.mark.vllm
def test_vllm(vllm: Vllm, tmp_path: Path) -> None:
    """From a running vLLM to its first joule."""
    play_it("vllm.md", vllm.url, MODEL, tmp_path, variables=f"PERJOULE_UPSTREAM_KEY={API_KEY} ")


def test_vllm_knows_the_flags_of_its_page() -> None:
    """What the page tells to start vLLM with is what it runs with in these tests."""
    (command,) = [line for line in (PAGES / "vllm.md").read_text().splitlines() if line.startswith("vllm serve ")]
    assert {word for word in command.split() if word.startswith("--enable-")} <= set(FLAGS)


def test_transformers(folders: tuple[Path, Path]) -> None:
    """From `transformers serve` to its first joule."""
    with running_transformers(folders[0], *BATCHING) as engine:
        play_it("transformers.md", engine.url, engine.model, folders[1])


def test_llamacpp(folders: tuple[Path, Path]) -> None:
    """From llama.cpp's server to its first joule."""
    with running_llama(folders[0], "--metrics") as engine:
        play_it("llamacpp.md", engine.url, engine.model, folders[1])


def test_images_and_video(folders: tuple[Path, Path]) -> None:
    """From a server over a diffusers pipeline to its first image and its first video, both small."""
    with running_diffusers(folders[0]) as engine:
        play_it("diffusion.md", engine.url, engine.model, folders[1], flags="--engine diffusion", words=SMALL)
