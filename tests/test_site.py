"""The documentation as a site, and every command in it that can run here: what a reader may type does what the page says."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.walkthrough import blocks, play

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PLAYED = [page for page in sorted(DOCS.rglob("*.md")) if blocks(page)]
WITH_AN_ENGINE = {DOCS / "quickstart" / page for page in ("diffusion.md", "llamacpp.md", "transformers.md", "vllm.md")}
"""Which tests/engines/test_quickstarts.py plays."""
AT_A_TIME = 3
LOADING = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//|'
                     r'<link\b[^>]*\brel="?(?:stylesheet|icon|preload|preconnect)[^>]*\bhref="?(?:https?:)?//|'
                     r'<link\b[^>]*\bhref="?(?:https?:)?//[^>]*\brel="?(?:stylesheet|icon|preload|preconnect)')
ODD = re.compile(r"<p>(?:(?!</p>).)*?\n(?:- |\d+\. |\||```)[^\n]*|<code>[^<]*\\\|", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as it can be: every page has its place, every link and anchor leads somewhere."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)], cwd=ROOT, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, timeout=240)
    assert built.returncode == 0, built.stdout
    return folder


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, Future[list[str]]]]:
    """What playing each page came to, of those that are asked for: several at a time, since they mostly wait."""
    asked = [item.callspec.params["page"] for item in request.session.items
             if isinstance(item, pytest.Function) and item.function is test_the_commands_of_a_page_do_what_it_says]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {page: pool.submit(play, page, tmp_path_factory.mktemp(page.stem)) for page in asked}


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """It is read where there is no network, and tells nobody who reads it."""
    pages = {page.name: page.read_text() for page in site.rglob("*.html")}
    sheets = {sheet.name: sheet.read_text() for sheet in site.rglob("*.css")}
    assert pages
    assert sheets
    assert not [name for name, text in pages.items() if LOADING.search(text)]
    assert not [name for name, text in sheets.items() if re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text)]


def test_pages_look_in_the_site_as_on_a_code_host(site: Path) -> None:
    """The two read Markdown a little differently: a list needs an empty line before it, a table's code spans lose their backslashes."""
    for page in sorted(site.rglob("*.html")):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        assert article or page.name == "404.html"
        odd = ODD.search(re.sub(r"<pre>.*?</pre>", "", article, flags=re.DOTALL))
        assert not odd, f"{page.name}: {odd[0]}"


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("curl"), reason="the pages are played on Linux, with curl")
@pytest.mark.parametrize("page", [page for page in PLAYED if page not in WITH_AN_ENGINE], ids=lambda page: str(page.relative_to(DOCS)))
def test_the_commands_of_a_page_do_what_it_says(page: Path, outcomes: dict[Path, Future[list[str]]]) -> None:
    """Played in order, in an empty folder, as a reader would."""
    outcomes[page].result()


@pytest.mark.parametrize("lie", [
    "<!-- run, prints two -->\n```bash\necho one\n```\n",
    "<!-- run -->\n```bash\nfalse\n```\n",
    "<!-- run -->\n```bash\nfalse\necho later\n```\n",
    "<!-- run, exit 1 -->\n```bash\ntrue\n```\n",
    "<!-- run -->\n```bash\ntrue\n```\n\n<!-- run, prints x -->\n```bash\nexit 0\n```\n",
    "<!-- run, shows one -->\n```bash\necho one\n```\n"], ids=["text", "failure", "failure in the middle", "success", "end", "word"])
def test_a_page_that_lies_is_found(lie: str, tmp_path: Path) -> None:
    """Another output, another exit code, a block that is never reached, a comment that says nothing."""
    page = tmp_path / "page.md"
    page.write_text(lie)
    with pytest.raises(AssertionError, match=r"page\.md"):
        play(page, tmp_path)


def test_a_page_that_is_true_is_played(tmp_path: Path) -> None:
    """In one shell, with ports of its own, and what it starts in the background ends with it."""
    page = tmp_path / "page.md"
    page.write_text("<!-- run, prints ^a -->\n```bash\nsleep 600 &\nNAME=a; echo $NAME http://127.0.0.1:8000 $!\n```\n\n"
                    "<!-- run, prints a b, exit 3 -->\n```bash\necho $NAME b; exit 3\n```\n")
    told, _ = play(page, tmp_path)
    assert ":8000" not in told
    assert not Path(f"/proc/{told.split()[-1]}/cmdline").exists() or not Path(f"/proc/{told.split()[-1]}/cmdline").read_bytes()
