"""The live page as a document: one, small, allowed to load nothing, and its texts can be read in either theme."""

import re
from base64 import b64encode
from hashlib import sha256

import pytest

from perjoule.sidecar.admin.page import document

LIMIT_BYTES = 60 * 1024
TEXT = 4.5  # WCAG 2.2, 1.4.3
BODY, POLICY = document()


def test_it_is_one_file_that_may_load_nothing():
    """Its policy allows its own style and script by their hashes, and talking to where it came from."""
    (style,), (script,) = re.findall(r"<style>(.*?)</style>", BODY, re.DOTALL), re.findall(r"<script>(.*?)</script>", BODY, re.DOTALL)
    digests = [f"'sha256-{b64encode(sha256(part.encode()).digest()).decode()}'" for part in (style, script)]
    expected = (f"default-src 'none'; style-src {digests[0]}; script-src {digests[1]}; connect-src 'self'; img-src data:; "
                "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    assert expected == POLICY
    assert set(re.findall(r'(?:src|href|action)="([^"]*)"', BODY)) == {"data:,"}
    assert not re.search(r"@import|url\(|%%|innerHTML|insertAdjacentHTML|document\.write|https?:", BODY)
    assert " style=" not in BODY
    assert len(BODY.encode()) <= LIMIT_BYTES


def palettes():
    """The variables of each theme."""
    found = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root[^{]*\{([^}]*)\}", BODY)]
    assert len(found) == 3
    assert found[1] == found[2]  # dark because the system is, and dark because it was chosen
    return found[:2]


def luminance(colour):
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), [
    *((text, ground) for text in ("ink", "muted", "accent", "good", "bad") for ground in ("paper", "panel")),
    ("ink", "notice"), ("ink", "soft"), ("panel", "accent")])
def test_texts_stand_out(palette, text, ground):
    """Contrast is 4.5 and more."""
    low, high = sorted((luminance(palette[text]), luminance(palette[ground])))
    assert (high + 0.05) / (low + 0.05) >= TEXT
