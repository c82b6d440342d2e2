"""The page in a real Chromium, by file://: what people click, what they see, that it asks for nothing and complains of nothing."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.bench.board.page import page as made_page
from perjoule.bench.board.references import References
from perjoule.bench.board.rows import row
from perjoule.bench.measures.result import result_of
from tests.bench.board.chromium import Visit, chromium
from tests.bench.board.made import GPUS, MODELS, invalid, result, sweep
from tests.bench.measures.made import made_run

SWEEP = sweep(models=5, concurrencies=(8, 64, 512))
ROWS = [row(one) for one in SWEEP]
REFERENCES = References("Others", ({"model_id": "x/Y-14B", "energy_per_token_joules": 1.366, "median_itl_ms": 33.6, "gpu_model": "B200"},
                                   {"model_id": "x/Z-70B", "energy_per_token_joules": 3.76, "gpu_model": "H100"}))
NUMBERS = count()


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all tests here, closed before tests with event loops of their own."""
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser, tmp_path) -> Iterator[Callable[..., Visit]]:
    """Opens results as a page; at the end each one must have been silent and must have asked for nothing."""
    opened: list[Visit] = []

    def open_(results=SWEEP, references=None, hash_="", **options) -> Visit:
        file = tmp_path / f"page-{next(NUMBERS)}.html"
        file.write_text(made_page(results, references=references))
        visited = Visit(browser, file, hash_, **options)
        opened.append(visited)
        return visited

    yield open_
    for visited in opened:
        visited.close()


def shown(page):
    """The run ids in the table, in their order."""
    return page.eval_on_selector_all(".board tbody tr[data-run]", "rows => rows.map(row => row.dataset.run)")


def by(key, rows=ROWS, reverse=False):
    """Run ids by a column, the unknown last."""
    there = sorted((one for one in rows if one[key] is not None), key=lambda one: one[key], reverse=reverse)
    return [one["run_id"] for one in there] + [one["run_id"] for one in rows if one[key] is None]


def test_the_table_sorts_by_any_column_by_mouse_and_by_key(visit):
    """Least energy first; a click on a column sorts by it, another turns it, and Enter does what a click does."""
    page = visit().page
    assert shown(page) == by("energy_per_output_token_j")
    header = page.get_by_role("button", name="Power W")
    header.click()
    assert shown(page) == by("avg_power_w")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("Power")
    page.keyboard.press("Enter")
    assert shown(page) == by("avg_power_w", reverse=True)
    assert page.locator("th[aria-sort=descending]").count() == 1
    assert page.evaluate("document.activeElement.dataset.key") == "avg_power_w"


@pytest.mark.parametrize(("act", "matches"), [
    (lambda page: page.locator("[data-filter=model]").select_option("Qwen/Qwen3-8B"), lambda one: one["model_id"] == "Qwen/Qwen3-8B"),
    (lambda page: page.locator("[data-filter=gpu]").select_option("H200"), lambda one: one["gpu"] == "H200"),
    (lambda page: page.locator("[data-filter=workload]").select_option("azure2023-code"), lambda one: one["workload"] == "azure2023-code"),
    (lambda page: page.locator("[data-filter=valid]").check(), lambda one: one["valid"]),
    (lambda page: page.get_by_role("searchbox").fill("qwen 512"), lambda one: "Qwen" in one["model_id"] and one["load_size"] == 512),
    (lambda page: page.get_by_role("searchbox").fill("nothing like it"), lambda one: False),
])
def test_filters_leave_what_matches_and_the_address_brings_it_back(visit, act, matches):
    """Each filter alone; the same address in another tab shows the same."""
    opened = visit()
    act(opened.page)
    expected = [run for run in by("energy_per_output_token_j") if matches(next(one for one in ROWS if one["run_id"] == run))]
    assert shown(opened.page) == expected
    assert len(expected) < len(ROWS)
    told = opened.page.evaluate("location.hash")
    assert told
    assert shown(opened.tab(told)) == expected


def test_the_percentile_changes_column_picture_and_limits(visit):
    """p99 instead of the median, everywhere where latency is shown; sorting follows."""
    page = visit().page
    page.locator("th button[data-key=p50_itl_ms]").click()
    page.get_by_role("button", name="p99", exact=True).click()
    assert shown(page) == by("p99_itl_ms")
    assert page.locator(".axis-label").filter(has_text="p99").count() == 1
    assert page.get_by_label(re.compile("Deadline: p99")).count() == 1
    cells = page.locator(".board tbody tr").first.locator("td")
    first = next(one for one in ROWS if one["run_id"] == shown(page)[0])
    assert cells.nth(8).inner_text() == page.evaluate("value => perjoule.num(value)", first["p99_itl_ms"])


def beaten(points, one):
    """Whether another point is no worse in both and better in one."""
    return any(x <= one[0] and y <= one[1] and (x, y) != tuple(one) for x, y in points)


@pytest.fixture(scope="module")
def functions(browser, tmp_path_factory):
    """The page's own functions, to be called."""
    file = tmp_path_factory.mktemp("functions") / "page.html"
    file.write_text(made_page(SWEEP[:1]))
    visited = Visit(browser, file)
    yield visited.page
    visited.close()


@settings(max_examples=150, deadline=None)
@given(points=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_the_front_is_what_nothing_beats(functions, points):
    """No worse in both and better in one, by the slow and obvious test: ties included, equal points all kept, in order of latency."""
    front = functions.evaluate("points => perjoule.paretoFront(points.map(([x, y]) => ({x, y}))).map(point => [point.x, point.y])", points)
    assert front == sorted(list(one) for one in points if not beaten(points, one))


def test_the_front_leaves_out_a_tie_that_is_worse_on_the_other_axis(functions):
    """ML.ENERGY's page keeps such a point, because it is not beaten in both."""
    assert functions.evaluate("perjoule.paretoFront([{x: 1, y: 5}, {x: 1, y: 4}, {x: 3, y: 4}, {x: 3, y: 2}])") == [
        {"x": 1, "y": 4}, {"x": 3, "y": 2}]


def test_the_picture_marks_the_front_of_the_valid_and_hides_models_by_the_legend(visit):
    """Points that nothing beats are marked; those that are not valid are hollow and never on the front."""
    page = visit().page
    drawn = page.locator("path.dot")
    assert drawn.count() == len(ROWS)
    points = {one["run_id"]: (one["p50_itl_ms"], one["energy_per_output_token_j"]) for one in ROWS if one["valid"]}
    expected = {run for run, point in points.items() if not beaten(points.values(), point)}
    best = page.eval_on_selector_all("path.dot.best", "dots => dots.map(dot => dot.dataset.run)")
    assert set(best) == expected
    assert page.locator("path.dot.invalid").count() == sum(not one["valid"] for one in ROWS) > 0
    gone = next(one["model_id"] for one in ROWS if one["run_id"] in expected)
    page.locator(f".legend button[data-model='{gone}']").click()
    left = page.eval_on_selector_all("path.dot", "dots => dots.map(dot => dot.dataset.run)")
    assert set(left) == {one["run_id"] for one in ROWS if one["model_id"] != gone}
    assert page.locator(".legend button[aria-pressed=false]").count() == 1
    assert page.locator(f".recommended tr[data-model='{gone}']").count() == 0


def test_of_repeats_only_the_median_one_is_on_the_front_and_advised(visit):
    """Three of one configuration: the luckiest beats the others in both, and is neither marked nor recommended."""
    repeats = [result(concurrency=64, seed=seed) for seed in (1, 2, 3)]
    for one, energy, itl_ms in zip(repeats, (0.30, 0.25, 0.28), (20.0, 18.0, 21.0), strict=True):
        one["metrics"]["energy_per_output_token"]["value"], one["p50_itl_ms"] = energy, itl_ms
    page = visit(repeats).page
    assert page.eval_on_selector_all("path.dot.best", "dots => dots.map(dot => dot.dataset.run)") == [repeats[2]["run_id"]]
    assert page.locator("path.dot.repeat").count() == 2
    assert page.locator(".recommended tbody td").all_inner_texts()[1:3] == ["0.280", "21.0"]
    assert page.get_by_text("the median of 3 repeats").count() == 1
    assert page.get_by_text("one of 3 repeats").count() == 2


def test_a_point_tells_itself_and_opens(visit):
    """Under the pointer, and by keyboard for those on the front."""
    page = visit().page
    link = page.locator(".drawing a").first
    link.focus()
    told = page.locator("#tip").inner_text()
    assert "J per token" in told
    assert "On the Pareto front" in told
    box = page.locator("path.dot").first.bounding_box()
    run = page.locator("path.dot").first.get_attribute("data-run")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#tip").is_visible()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert f"run={run}" in page.evaluate("location.hash")
    assert page.locator("#tip").is_hidden()


def test_axes_may_be_linear(visit):
    """The ticks of a linear axis begin at nothing."""
    page = visit().page
    page.locator("[data-filter=log]").uncheck()
    assert page.locator(".drawing").first.locator(".tick text").filter(has_text=re.compile("^0$")).count() == 2


def test_others_points_are_drawn_hollow_and_listed_with_their_source(visit):
    """A circle where the latency is known, else an arrow at the axis; under the pointer the source is named."""
    page = visit(references=REFERENCES).page
    kinds = "paths => paths.map(path => path.getAttribute('d').includes('a') ? 'circle' : 'arrow')"
    assert page.eval_on_selector_all(".drawing path.reference", kinds) == ["circle", "arrow"]
    axis = page.locator(".drawing line.axis").first.bounding_box()["x"]
    arrow = page.locator(".drawing path.reference").nth(1).bounding_box()
    assert arrow["x"] == pytest.approx(axis, abs=4)  # the stroke stands out
    page.mouse.move(arrow["x"] + 2, arrow["y"] + 5)
    assert "Published: Others" in page.locator("#tip").inner_text()
    page.get_by_text("2 published rows beside ours: Others").click()
    assert page.locator(".references tbody tr").count() == 2
    page.get_by_role("button", name="p99", exact=True).click()
    assert page.eval_on_selector_all(".drawing path.reference", kinds) == ["arrow", "arrow"]


def test_what_has_no_place_on_a_logarithmic_axis_is_left_out_of_the_picture(visit):
    """Zero joules, as without a sensor, are in the table, and drawn where the axis has a zero."""
    nothing = result(run_id="nothing")
    nothing["metrics"]["energy_per_output_token"] = {"value": 0.0, "low": 0.0, "high": 0.0, "unit": "J", "n": 9}
    page = visit([nothing, *SWEEP[:2]]).page
    assert "nothing" in shown(page)
    assert page.locator("path.dot").count() == 2
    page.locator("[data-filter=log]").uncheck()
    assert page.locator("path.dot").count() == 3


def three(energies=(2.0, 1.0, 0.4), latencies=(10.0, 20.0, 40.0)):
    """One model under three loads, numbers set by hand."""
    made = []
    for concurrency, energy, latency in zip((8, 64, 512), energies, latencies, strict=True):
        one = result(MODELS[0], GPUS[0], concurrency, p50_itl_ms=latency)
        one["metrics"]["energy_per_output_token"] = {"value": energy, "low": energy * 0.9, "high": energy * 1.1, "unit": "J", "n": 9}
        made.append(one)
    return made


def slide(page, name, value):
    """Move a slider to the step that is nearest to a limit at or above a value, by its own scale."""
    page.evaluate("""([name, value]) => {
        const input = document.getElementById(`slide-${name}`), output = () => input.parentElement.querySelector("output").textContent;
        for (let step = 0; step <= 200; step += 1) {
            input.value = step;
            input.dispatchEvent(new Event("input"));
            const said = output();
            if (said === "no limit" || parseFloat(said.replace("at most ", "").replace(",", "")) >= value) return;
        }
    }""", [name, value])


def test_the_advice_is_the_least_energy_within_both_limits_and_what_it_saves(visit):
    """By hand: 0.4 J against 2 J saves 80 %; a deadline of 25 ms leaves 1 J, 50 % less; a budget below all leaves nothing."""
    page = visit(three()).page
    cells = page.locator(".recommended tbody td")
    assert cells.all_inner_texts()[1:] == ["0.400", "40.0", "80 %", "80 %"]
    slide(page, "deadline", 25)
    assert cells.all_inner_texts()[1:] == ["1.00", "20.0", "50 %", "50 %"]
    assert page.locator("rect.beyond").count() == 1
    told = page.evaluate("location.hash")
    slide(page, "deadline", 11)
    assert cells.all_inner_texts()[1:] == ["2.00", "10.0", "same", "same"]
    slide(page, "budget", 0.5)
    assert page.locator(".recommended tbody tr").count() == 0
    assert page.get_by_text("Llama-3.1-8B-Instruct has no configuration that meets both.").is_visible()
    page.goto(page.url.partition("#")[0] + told)
    page.wait_for_function("document.querySelector('.recommended tbody td:nth-child(2)')?.textContent === '1.00'")
    assert page.locator(".slider output").first.inner_text().startswith("at most 25")


def test_a_slider_moves_by_keys(visit):
    """End is no limit, and an arrow from there is one."""
    page = visit(three()).page
    page.locator("#slide-deadline").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("#slide-deadline").get_attribute("aria-valuetext").startswith("at most")
    page.keyboard.press("End")
    assert page.locator("#slide-deadline").get_attribute("aria-valuetext") == "no limit"


def test_what_is_not_valid_is_grey_with_its_reason_and_is_never_advised(visit):
    """The best number of all, of a client that could not keep up."""
    runs = three()
    runs[2] = invalid(runs[2])
    page = visit(runs).page
    assert page.locator("tr.invalid").count() == 1
    assert "p99 send lag 12 ms" in page.locator("tr.invalid").inner_text()
    assert page.locator(".recommended tbody td").all_inner_texts()[1] == "1.00"
    assert page.locator("path.dot.best").count() == 2
    assert "One is not valid" in page.locator(".lead").inner_text()


def test_a_result_opens_whole_and_back_returns(visit):
    """Its sum, its formulas, its histogram on every axis, its timeline; then back to where one was."""
    page = visit().page
    page.get_by_role("searchbox").fill("qwen")
    wanted = shown(page)
    page.locator(".board td.model a").first.click()
    page.locator("main.detail").wait_for()
    assert page.get_by_text("Adds up to the counter, to the microjoule.").is_visible()
    said = [float(part) for part in re.findall(r"[\d.]+", page.locator(".sum").inner_text().replace(",", ""))]
    assert sum(said[:3]) == pytest.approx(said[3], abs=1e-6)
    widths = page.eval_on_selector_all(".closure span", "parts => parts.map(part => part.getBoundingClientRect().width)")
    assert sum(widths) == pytest.approx(page.locator(".closure").bounding_box()["width"], abs=0.5)
    assert page.locator("path.line.power").count() == page.locator("path.line.flight").count() == page.locator("rect.steady").count() == 1
    formula = page.get_by_text("energy of the steady window ÷ output tokens in it")
    assert formula.is_hidden()
    page.locator("tr[data-metric=energy_per_output_token] summary").click()
    assert formula.is_visible()
    bars = page.locator("rect.bar").evaluate_all("bars => bars.map(bar => Number(bar.getAttribute('x')))")
    page.locator("[data-log=x]").check()
    assert page.locator("rect.bar").evaluate_all("bars => bars.map(bar => Number(bar.getAttribute('x')))") != bars
    page.locator("[data-log=y]").check()
    page.get_by_role("button", name="TTFT").click()
    assert page.locator(".drawing[class] svg[aria-label^='Time to first token']").count() == 1
    page.go_back()
    page.locator("main.all").wait_for()
    assert shown(page) == wanted


def test_every_joule_of_a_histogram_is_drawn(visit):
    """As many answers as the bars' tooltips say in all, and as there were."""
    page = visit([result()]).page
    total = 0
    bars = page.locator("rect.bar")
    for at in range(bars.count()):
        box = bars.nth(at).bounding_box()
        bars.nth(at).dispatch_event("pointermove", {"clientX": box["x"], "clientY": box["y"]})
        total += int(re.search(r"(\d+) of", page.locator("#tip").inner_text())[1])
    assert total == result()["completed"]


def test_one_result_opens_by_itself(visit):
    """A run's own page is its details, with nothing to go back to."""
    page = visit([result()]).page
    assert page.locator("main.detail h1").inner_text() == "Llama-3.1-8B-Instruct"
    assert page.locator("#crumbs a").count() == 0
    assert page.title() == "Llama-3.1-8B-Instruct · H100 · bfloat16 · 64 at once – perjoule"


def test_two_results_beside_each_other_differences_of_setting_first(visit):
    """Two ticks, one click: what differs is listed, what is equal is folded, numbers have a difference and its interval."""
    opened = visit()
    page = opened.page
    page.locator("[data-filter=model]").select_option(MODELS[0].model_id)
    page.locator("[data-filter=gpu]").select_option("H100")
    for at in (0, 1):
        page.locator(".board tbody input").nth(at).check()
    a, b = (next(one for one in SWEEP if one["run_id"] == run) for run in shown(page)[:2])
    page.get_by_role("link", name="Compare", exact=True).click()
    page.locator("main.compare").wait_for()
    assert set(page.locator(".differs tbody th").all_inner_texts()) == {"load: concurrency", "schedule sha256"}
    one, other = (run["metrics"]["energy_per_output_token"] for run in (a, b))
    difference = (other["value"] - one["value"]) / one["value"]
    told = page.locator("tr[data-metric=energy_per_output_token] td").nth(3).inner_text()
    assert told == f"{difference:+.0%}".replace("%", " %").replace("-", "−")
    assert f"B takes {abs(difference):.0%}".replace("%", " %") in page.locator(".lead").inner_text()
    assert page.locator("circle.forest-dot").count() == 3
    page.locator("select[data-side=b]").select_option(a["run_id"])
    page.get_by_text("Nothing: these two ran under the same setting and load.").wait_for()
    assert page.get_by_text("No difference in joules per output token can be told").is_visible()
    other_tab = opened.tab(page.evaluate("location.hash"))
    assert other_tab.locator("main.compare").is_visible()


def test_two_runs_that_differ_as_runs_of_one_thing_do_are_not_told_apart(visit):
    """One percent apart, with intervals of a tenth of one: by the requests alone that would be a difference."""
    runs = three((1.0, 1.01, 1.1))
    for one in runs:
        metric = one["metrics"]["energy_per_output_token"]
        metric |= {"low": metric["value"] * 0.999, "high": metric["value"] * 1.001}
    a, b, c = (one["run_id"] for one in runs)
    said = [visit(runs, hash_=f"#a={a}&b={other}&view=compare").page.locator(".lead").inner_text() for other in (b, c)]
    assert said[0].startswith("No difference in joules per output token can be told")
    assert said[1].startswith("B takes 10 % more energy per output token than A")


def test_the_interval_of_a_difference_is_newcombes(functions):
    """By hand: 10 (9 to 12) and 20 (17 to 21): 10, from 10 − √(3² + 2²) to 10 + √(1² + 1²); 0.2 of 10 from run to run are 2² more."""
    found = functions.evaluate("perjoule.differenceOf({value: 10, low: 9, high: 12}, {value: 20, low: 17, high: 21}, 0)")
    assert found == {"difference": 10, "low": pytest.approx(10 - 13**0.5), "high": pytest.approx(10 + 2**0.5)}
    found = functions.evaluate("perjoule.differenceOf({value: 10, low: 9, high: 12}, {value: 20, low: 17, high: 21}, 0.2)")
    assert found == {"difference": 10, "low": pytest.approx(10 - 17**0.5), "high": pytest.approx(10 + 6**0.5)}
    found = functions.evaluate("perjoule.differenceOf({value: 10}, {value: 20, low: 17, high: 21})")
    assert found == {"difference": 10, "low": None, "high": None}


@pytest.mark.parametrize(("value", "unit", "said"), [
    (0.0702, "J", "70.2 mJ"), (1.366, "J", "1.37 J"), (9600, "J", "9.60 kJ"), (1.164e6, "J", "1.16 MJ"), (0, "J", "0 J"),
    (999.9, "W", "1.00 kW"), (33.6, "ms", "33.6 ms"), (1234.0, "ms", "1.23 s"), (None, "J", "–"), (12, "tokens", "12.0 tokens"),
    (0.00012, "J", "120 µJ")])
def test_numbers_have_three_digits_and_the_unit_of_their_size(functions, value, unit, said):
    """What is not known is a dash, never a zero."""
    assert functions.evaluate("([value, unit]) => perjoule.withUnit(value, unit)", [value, unit]) == said


@pytest.mark.parametrize(("low", "high", "unit", "said"), [
    (0.9, 1.1, "", "0.900 to 1.10"), (1.0482, 1.0517, "1/J", "1.048 to 1.052 /J"), (379.85, 380.15, "W", "379.85 to 380.15 W"),
    (5, 5, "W", "5.00 to 5.00 W"), (0.0691, 0.0722, "J", "69.1 to 72.2 mJ"), (None, 1, "J", ""), (-0.02, 0.01, "", "-0.0200 to 0.0100")])
def test_ends_of_intervals_can_be_told_apart(functions, low, high, unit, said):
    """Narrow ones take more digits."""
    assert functions.evaluate("([low, high, unit]) => perjoule.interval(low, high, unit, high)", [low, high, unit]) == said


def brightness(page):
    """How bright the page and its text are, 0 to 255."""
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    return [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in colours]


def test_the_theme_is_the_systems_until_it_is_chosen_and_the_choice_stays(visit):
    """Dark with a dark system; the button overrides it, and a reload keeps that."""
    opened = visit(color_scheme="dark")
    page = opened.page
    paper, ink = brightness(page)
    assert paper < 60 < 200 < ink
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Theme: light"
    paper, ink = brightness(page)
    assert ink < 60 < 200 < paper
    assert brightness(opened.tab()) == [paper, ink]


CONTRAST = """() => {
    const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = (element) => { for (let at = element; at; at = at.parentElement) { const colour = getComputedStyle(at).backgroundColor;
        if (!/, 0\\)|transparent|\\/ /.test(colour)) return colour; } return "rgb(255, 255, 255)"; };
    return [...document.querySelectorAll("p, td:not(.invalid *), th, a, small, summary, .choice button, h1, h2, .tile b, output, .chip")]
        .filter((one) => one.textContent.trim() && one.checkVisibility() && !one.closest(".invalid"))
        .map((one) => { const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
            return [(a + 0.05) / (b + 0.05), one.className + " " + one.textContent.slice(0, 40)]; }).filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("many", [1, 5])
def test_text_can_be_read(visit, scheme, many):
    """Every text that is not greyed on purpose has the contrast that WCAG AA asks for, in both themes and both views."""
    assert visit(SWEEP[:many], color_scheme=scheme).page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("hash_", ["", f"#run={SWEEP[0]['run_id']}", f"#a={SWEEP[0]['run_id']}&b={SWEEP[1]['run_id']}&view=compare"])
def test_a_phone_shows_it_without_scrolling_sideways(visit, hash_):
    """360 px wide: nothing sticks out, and rows of the table are cards with the columns' names."""
    page = visit(hash_=hash_, viewport={"width": 360, "height": 740}, references=REFERENCES).page
    page.wait_for_function("document.querySelector('main').children.length > 1 && document.querySelector('table')")
    assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [360, 360]
    if not hash_:
        assert page.evaluate("getComputedStyle(document.querySelector('.board td.strong'), '::before').content") == '"J / token"'
        page.locator(".sorter").select_option("avg_power_w")
        assert shown(page) == by("avg_power_w")


CUT = """() => [...document.querySelectorAll("th")].filter((head) => head.checkVisibility() && head.scrollWidth > head.clientWidth)
    .map((head) => `${head.innerText}: ${head.scrollWidth} > ${head.clientWidth}`)"""
OUTSIDE = """() => { const { left, right } = document.body.getBoundingClientRect();
    return [...document.querySelectorAll("table")].filter((table) => table.checkVisibility())
        .map((table) => table.closest(".scroll, .advice-table") ?? table).map((box) => [box.className, box.getBoundingClientRect()])
        .filter(([, box]) => box.left < left || box.right > right).map(([name]) => name); }"""


@pytest.mark.parametrize("width", [1360, 1180, 1100, 1024, 768, 390])
def test_no_width_cuts_a_header_or_lets_a_table_out_of_the_page(visit, width):
    """Sorted by any column, whose arrow needs room, too; what is wider than the page scrolls in its own box."""
    opened = visit(viewport={"width": width, "height": 900}, references=REFERENCES)
    for key in (None, "uncertainty", "p50_ttft_ms", "load_size"):
        page = opened.tab(f"#sort={key}") if key else opened.page
        page.wait_for_function("document.querySelectorAll('.board, .recommended').length === 2")
        assert page.evaluate(CUT) == page.evaluate(OUTSIDE) == []
        assert page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]") == [width, width]


def test_a_table_of_one_model_is_shown_whole_on_a_small_desktop(visit):
    """1180 px: no column of it is beyond the edge of its box."""
    page = visit(sweep(models=1, concurrencies=(8, 64, 256)), viewport={"width": 1180, "height": 900}).page
    widths = page.eval_on_selector_all(".board, .recommended", "all => all.map((one) => [one.offsetWidth, one.parentElement.clientWidth])")
    assert len(widths) == 2
    assert all(table <= box for table, box in widths), widths


def test_on_paper_there_is_no_ink_for_controls_and_none_for_a_dark_background(visit):
    """Printed from a dark theme it is black on white; filters, sliders and buttons are gone, and a PDF comes out."""
    page = visit(color_scheme="dark").page
    page.emulate_media(media="print")
    paper, ink = brightness(page)
    assert (paper, ink) == (255, 0)
    for control in (".tools", ".slider input >> nth=0", "#theme", ".downloads", ".board .pick >> nth=0"):
        assert page.locator(control).is_hidden(), control
    assert page.locator(".board").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_printing_opens_the_formulas_and_closes_them_again(visit):
    """On paper nobody can click."""
    page = visit([result()]).page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0


def test_downloads_are_the_rows_as_they_are_shown(visit):
    """Filtered and sorted, every field; a comma and a quote in a text survive."""
    runs = [{**one, "name": 'say "joule", please'} for one in SWEEP]
    page = visit(runs).page
    page.locator("[data-filter=gpu]").select_option("H100")
    page.locator("th button[data-key=avg_power_w]").click()
    for kind in ("csv", "json"):
        with page.expect_download() as coming:
            page.locator(f"[data-save={kind}]").click()
        text = coming.value.path().read_text()
        got = json.loads(text) if kind == "json" else list(csv.DictReader(io.StringIO(text, newline="")))
        assert [one["run_id"] for one in got] == shown(page)
        assert {one["name"] for one in got} == {'say "joule", please'}
        first = next(one for one in ROWS if one["run_id"] == got[0]["run_id"])
        assert float(got[0]["energy_per_output_token_j"]) == pytest.approx(first["energy_per_output_token_j"], rel=1e-5)


HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">"


def test_texts_of_results_are_texts(visit):
    """A model, a note, an error and a setting that would be elements are shown as they are written."""
    one = invalid(result(name=HOSTILE, run_id="hostile"))
    one["setting"] = {**one["setting"], "model_id": HOSTILE, "engine": HOSTILE}
    one["workload"] = {**one["workload"], "notes": [HOSTILE]}
    one["outcomes"] = {**one["outcomes"], "errors": {HOSTILE: 3}}
    one["reasons"] = [{"code": HOSTILE, "text": HOSTILE}]
    opened = visit([one, *SWEEP[:2]])
    opened.page.locator("tr.invalid td.model a").click()
    opened.page.locator("main.detail").wait_for()
    assert opened.page.get_by_text(HOSTILE).count() >= 3
    assert opened.page.locator("img").count() == 0
    assert "perjoule" in opened.page.title()


def test_what_is_not_known_is_last_whichever_way_the_rest_goes(visit):
    """A result without the number that is sorted by is never the best nor the worst."""
    unknown = [{**result(run_id=name), "metrics": {}} for name in ("one", "two")]
    page = visit([unknown[0], *SWEEP[:3], unknown[1], *SWEEP[3:6]]).page
    known = by("energy_per_output_token_j", ROWS[:6])
    assert shown(page) == [*known, "one", "two"]
    page.locator("th button[data-key=energy_per_output_token_j]").click()
    assert shown(page) == [*reversed(known), "one", "two"]


def test_the_least_result_there_can_be_is_shown(visit):
    """A run that was broken off before anything came: no metric, no window, no histogram, and still a page, alone and among others."""
    least = {"schema_version": 1, "run_id": "least", "valid": False, "partial": True, "setting": {}, "load": {}, "metrics": {},
             "windows": {}}
    page = visit([least]).page
    assert page.locator(".verdict").inner_text().startswith("Not valid")
    page = visit([least, SWEEP[0]]).page
    assert shown(page) == [SWEEP[0]["run_id"], "least"]
    page.goto(page.url.partition("#")[0] + f"#a=least&b={SWEEP[0]['run_id']}&view=compare")
    page.locator("main.compare").wait_for()


@pytest.mark.parametrize("hash_", ["#run=unknown", "#p=p12&dir=sideways&sort=nothing&deadline=-3&budget=x", "#a=one&view=compare",
                                   "#%%%&=&model=none"])
def test_an_address_that_means_nothing_shows_the_board(visit, hash_):
    """Old links and typing errors harm nobody."""
    page = visit(hash_=hash_).page
    page.locator("main.all").wait_for()
    assert page.locator("h1").inner_text() == "What a token costs in joules"


def test_a_measured_result_is_shown_whole(visit):
    """What `measures` makes of a run: every metric, every distribution with its formula, and its sum."""
    measured = json.loads(json.dumps(result_of(made_run())))
    page = visit([measured]).page
    assert page.locator(".verdict").inner_text() == "Valid"
    assert page.locator(".metrics tbody tr").count() == len(measured["metrics"])
    for one in page.locator("td summary").all():
        one.click()
    said = page.locator("td details p").all_inner_texts()
    assert len(said) == len(measured["metrics"]) + len(measured["distributions"])
    assert all(len(text.split()) > 3 for text in said)
    assert page.get_by_text("Adds up to the counter, to the microjoule.").is_visible()
    assert "NaN" not in page.locator("main").inner_text()
    assert "undefined" not in page.locator("main").inner_text()


def test_requests_of_others_are_a_part_of_the_sum(visit):
    """A sidecar that somebody else used meanwhile."""
    one = result()
    one["closure"] = {**one["closure"], "others_j": 2.0, "others": 3, "counter_j": one["closure"]["counter_j"] + 2.0}
    page = visit([one]).page
    assert "+ 2.000 +" in page.locator(".sum").inner_text()
    assert page.get_by_text("3 records of requests that were not this run's").is_visible()
    assert page.locator(".closure .others").count() == 1


def test_simulated_joules_are_called_so(visit):
    """No sensor, no silence about it: on the board and in the details."""
    one = result()
    one["setting"] = {**one["setting"], "energy_status": "simulated"}
    assert "joules are simulated" in visit([one]).page.locator(".verdict").inner_text()
    assert "No sensor stands behind these joules" in visit([one, {**one, "run_id": "other"}]).page.locator(".hero").inner_text()


def test_what_does_not_add_up_is_said(visit):
    """The closure of a run whose sum is off by a microjoule."""
    one = result()
    one["closure"] = {**one["closure"], "difference_uj": 1, "exact": False}
    page = visit([one]).page
    assert page.get_by_text("Does not add up: 1 µJ between the sum and the counter.").is_visible()
    assert "≠" in page.locator(".sum").inner_text()


def test_five_hundred_results_are_shown(visit):
    """All of them, in the table and in the picture."""
    many = sweep(12, (8, 16, 32, 64, 128, 256, 512), 2, 3)
    page = visit(many).page
    assert len(shown(page)) == page.locator("path.dot").count() == 504
