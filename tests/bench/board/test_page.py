"""The page as a file: one, small, safe; requests left out, energy of timelines kept, sums not rounded."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.board.page import as_json, data, details, page, rounded, thinned
from perjoule.bench.board.references import read_references
from tests.bench.board.made import result, sweep


class Elements(HTMLParser):
    """Every element with its attributes, and what is in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inside = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style") and data.strip():
            self.inside.append((*self.found[-1], data))


def test_the_page_is_one_file_that_may_load_nothing():
    """Its policy allows its own style and script by their hashes and nothing else, and no element names another place."""
    text = page([result()])
    elements = Elements(text)
    (policy,) = [attrs["content"] for tag, attrs in elements.found if attrs.get("http-equiv") == "Content-Security-Policy"]
    hashes = {tag: "sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
              for tag, attrs, inside in elements.inside if attrs.get("type") != "application/json"}
    assert policy == (f"default-src 'none'; style-src '{hashes['style']}'; script-src '{hashes['script']}'; img-src data:; "
                      "base-uri 'none'; form-action 'none'")
    places = [value for _, attrs in elements.found for key, value in attrs.items() if key in ("src", "href", "action", "data")]
    assert set(places) == {"#", "data:,"}
    assert not re.search(r"@import|url\(|%%", text)


HOSTILE = "</script><script>alert(1)</script><!-- \u2028 %%STYLE%% \"'&"


def test_texts_of_results_cannot_end_the_data():
    """Whatever a model is called, the page has the elements it always has, and the data come back as they were."""
    found = result(name=HOSTILE)
    found["setting"]["model_id"] = HOSTILE
    plain, hostile = Elements(page([result()])), Elements(page([found]))
    assert [tag for tag, _ in hostile.found] == [tag for tag, _ in plain.found]
    (inside,) = [text for _, attrs, text in hostile.inside if attrs.get("type") == "application/json"]
    assert json.loads(inside)["rows"][0]["model_id"] == HOSTILE


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
                    | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20))
def test_rounded_data_is_json_that_a_script_element_can_hold(found):
    """No number JSON lacks, no `<`, and everything but digits of floats survives; what is small stays within six digits."""
    text = as_json(rounded(found))
    assert "<" not in text
    back = json.loads(text)
    if isinstance(found, float):
        assert back is None if not math.isfinite(found) else math.isclose(back, found, rel_tol=1e-5)
    elif isinstance(found, str | bool | int):
        assert back == found


def test_requests_are_left_out_and_sums_are_kept_to_the_microjoule():
    """A page of hundreds stays small; what must add up is never rounded."""
    found = result()
    kept = details(found)
    assert "requests" not in kept
    assert kept["closure"] == found["closure"]
    assert kept["histograms"]["ttft_ms"]["counts"] == found["histograms"]["ttft_ms"]["counts"]
    assert data([found])["formulas"] == found["formulas"]


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=50), st.integers(1, 10), st.integers(1, 12))
def test_a_thinned_timeline_keeps_its_mean_power(power, points, repeat):
    """Neighbours are averaged, so the energy under the curve stays; and no more points remain than may."""
    power = power * points * repeat  # a whole number of equal groups, whatever `points` is
    timeline = {"t_s": [float(t) for t in range(len(power))], "power_w": power, "steady": [[1.0, 2.0]]}
    thin = thinned(timeline, points)
    assert len(thin["power_w"]) == len(thin["t_s"]) <= points
    assert thin["steady"] == [[1.0, 2.0]]
    if len(power) % -(-len(power) // points) == 0:
        assert math.isclose(math.fsum(thin["power_w"]) / len(thin["power_w"]), math.fsum(power) / len(power), rel_tol=1e-4, abs_tol=1e-9)


def test_what_is_missing_in_a_timeline_stays_missing():
    """A gap is not a zero."""
    assert thinned({"t_s": [0.0, 1.0, 2.0, 3.0], "power_w": [None, None, 4.0, None]}, 2)["power_w"] == [None, 4.0]


def test_five_hundred_results_stay_small():
    """12 models × 2 GPUs × 7 loads × 3 repeats: less than five megabytes, of which each result has the less the more there are."""
    many = sweep(12, (8, 16, 32, 64, 128, 256, 512), 2, 3)
    assert len(many) == 504
    assert len(page(many)) < 5_000_000
    assert len(data(many)["results"][0]["timeline"]["t_s"]) < len(data(many[:1])["results"][0]["timeline"]["t_s"]) == 600


def test_no_results_make_no_page():
    """An empty leaderboard is a mistake of whoever asked."""
    with pytest.raises(ValueError, match="got no results"):
        page([])


@pytest.mark.parametrize(("text", "said"), [
    ("{", "expected JSON"), ("[]", 'expected {"source": text, "rows": list}'),
    ('{"source": "x", "rows": [{"model_id": "m"}]}', "rows[0]: got")])
def test_references_that_cannot_be_read_are_named(tmp_path, text, said):
    """The file and the row are in the message."""
    path = tmp_path / "references.json"
    path.write_text(text)
    with pytest.raises(ValueError) as raised:
        read_references(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)


def test_references_keep_what_is_known_and_nothing_else(tmp_path):
    """Rows of ML.ENERGY's tables can be pasted as they are."""
    path = tmp_path / "references.json"
    path.write_text(json.dumps({"source": "S", "url": "U", "rows": [
        {"model_id": "m", "energy_per_token_joules": 1, "median_itl_ms": 33.6, "task": "gpqa", "edges": [1], "p99_itl_ms": None}]}))
    found = read_references(path)
    assert found.as_dict() == {"source": "S", "url": "U", "rows": (
        {"model_id": "m", "task": "gpqa", "energy_per_token_joules": 1.0, "median_itl_ms": 33.6},)}
