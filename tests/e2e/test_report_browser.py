"""The report in a real browser: headless Chromium, from disk, without a network."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import start, step, write_run

from nemolaunch.cli.commands import report
from nemolaunch.observe.report import server as serving

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

FIRST, SECOND = (37, 99, 201), (209, 89, 15)  # --c0 and --c1 on light paper
FIRST_DARK = (110, 168, 255)
# the number of opaque pixels of a chart with approximately this colour
COUNT = """([id, wanted]) => {
    const canvas = document.querySelector(`#chart-${id} canvas`);
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4)
        if (pixels[i + 3] > 200 && wanted.every((c, k) => Math.abs(pixels[i + k] - c) < 24)) count++;
    return count;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write two runs: one with a restart, a spike and an evaluation, and a short one."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [start(), *(step(n, 9.0 - n / 20) for n in range(1, 61)), start(50)]
    rows += [step(n, 9.0 - n / 20) for n in range(51, 101)]
    rows += [{"event": "loss spike", "step": 80, "time": 1080.0, "text": "loss 9 after 5"}]
    rows += [{"step": 100, "time": 1101.0, "val_loss": 4.25, "validation_s": 1.0}]
    one = write_run(folder / "one", rows, lr=1e-3)
    evaluation = {"step": 100, "checkpoint": "c", "eval_perplexity": 12.5, "samples": []}
    (one / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    two = write_run(folder / "two", [start(), *(step(n, 8.5 - n / 30) for n in range(1, 41))], lr=2e-3)
    return [one, two]


class View:
    """A report opened in the browser, with all console messages and requests."""

    def __init__(self, browser: Any, folders: list[Path], output: Path, **options: Any) -> None:
        assert report.main([*map(str, folders), "-o", str(output)]) == 0
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(output.as_uri())

    def pixels(self, chart: str, colour: tuple[int, int, int]) -> int:
        found: int = self.page.evaluate(COUNT, [chart, list(colour)])
        return found

    def point_at(self, chart: str, share: float) -> str:
        """Move the pointer to a fraction of a chart's width. Return the text of the tooltip."""
        over = self.page.locator(f"#chart-{chart} .u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        self.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        text: str = self.page.locator(f"#chart-{chart} .tip").inner_text()
        return text


@pytest.fixture
def view(browser: Any, runs: list[Path], tmp_path: Path) -> Iterator[View]:
    found = View(browser, runs[:1], tmp_path / "page.html")
    yield found
    found.page.close()


@pytest.fixture
def both(browser: Any, runs: list[Path], tmp_path: Path) -> Iterator[View]:
    found = View(browser, runs, tmp_path / "both.html")
    yield found
    found.page.close()


def test_every_chart_is_drawn_without_messages_or_network(view: View, tmp_path: Path) -> None:
    charts = [chart["id"] for chart in view.page.evaluate("data.charts")]
    assert {"loss", "lr", "norm", "speed", "step-time", "memory", "perplexity"} <= set(charts)
    for chart in charts:
        assert view.pixels(chart, FIRST) > 20, chart
    assert view.pixels("loss", SECOND) > 5  # the point of the validation loss
    picture = tmp_path / "report.png"
    view.page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 50_000
    assert view.messages == []
    assert [url for url in view.requests if not url.startswith(("file:", "data:"))] == []


def test_the_tooltip_shows_step_values_and_events(view: View) -> None:
    assert "step 50" in view.point_at("loss", 49 / 99)
    text = view.point_at("loss", 79 / 99)
    assert "step 80" in text
    assert "5" in text.split("raw")[1].split("\n")[1]
    assert "loss spike: loss 9 after 5" in text
    view.page.mouse.move(5, 5)
    assert not view.page.locator("#chart-loss .tip").is_visible()


def test_the_legend_toggles_lines(view: View) -> None:
    button = view.page.locator(".chart.wide .legend button", has_text="validation")
    before = view.pixels("loss", SECOND)
    button.click()
    assert view.pixels("loss", SECOND) == 0
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert view.pixels("loss", SECOND) == before


def test_the_axis_may_be_tokens_or_hours(view: View) -> None:
    view.page.select_option("#axis", "tokens")
    assert "tokens" in view.point_at("lr", 0.5)
    view.page.select_option("#axis", "hours")
    assert "hours of training" in view.point_at("lr", 0.5)
    view.page.click("#log")
    assert view.pixels("loss", FIRST) > 20
    assert view.messages == []


def test_dragging_zooms_all_charts_and_a_button_zooms_out(view: View) -> None:
    view.point_at("loss", 0.2)
    view.page.mouse.down()
    view.point_at("loss", 0.4)
    view.page.mouse.up()
    spans = view.page.evaluate("data.charts.map(c => c.plot.scales.x.max - c.plot.scales.x.min)")
    assert all(span < 30 for span in spans[:4])
    view.page.click("#whole")
    assert view.page.evaluate("data.charts[0].plot.scales.x.max") == 100


def test_runs_are_distinguished_and_toggled(both: View) -> None:
    first, second = both.pixels("lr", FIRST), both.pixels("lr", SECOND)
    assert first > 20
    assert second > 20
    assert "one" in both.point_at("lr", 0.2)
    both.page.click("[data-run='1']")
    assert both.pixels("lr", SECOND) == 0
    assert "two" not in both.point_at("lr", 0.2)
    assert both.messages == []


def test_dark(browser: Any, runs: list[Path], tmp_path: Path) -> None:
    view = View(browser, runs[:1], tmp_path / "dark.html", color_scheme="dark")
    assert view.pixels("lr", FIRST_DARK) > 20
    assert view.pixels("lr", FIRST) == 0
    paper = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(map(int, paper.removeprefix("rgb(").removesuffix(")").split(","))) < 40
    view.page.emulate_media(color_scheme="light")
    for _ in range(100):  # a busy machine takes more than a frame to redraw
        if view.pixels("lr", FIRST) > 20:
            break
        view.page.wait_for_timeout(50)
    assert view.pixels("lr", FIRST) > 20  # redrawn when the colour scheme changes


def test_on_a_phone_nothing_is_cut_off(browser: Any, runs: list[Path], tmp_path: Path) -> None:
    view = View(browser, runs, tmp_path / "phone.html", viewport={"width": 360, "height": 740})
    assert view.page.evaluate("document.documentElement.scrollWidth") <= 360
    widths = view.page.evaluate("[...document.querySelectorAll('.chart')].map(c => c.offsetWidth)")
    assert min(widths) > 300  # one below the other
    assert view.pixels("loss", FIRST) > 20


def test_print_opens_folded_sections_and_hides_controls(view: View, tmp_path: Path) -> None:
    assert not view.page.locator("details td").first.is_visible()
    view.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    view.page.emulate_media(media="print")
    assert view.page.locator("details td").first.is_visible()
    assert not view.page.locator("#axis").is_visible()
    view.page.evaluate("dispatchEvent(new Event('afterprint'))")
    view.page.emulate_media(media="screen")
    assert not view.page.locator("details td").first.is_visible()
    assert len(view.page.pdf(path=tmp_path / "page.pdf")) > 50_000


def test_a_served_page_shows_new_steps_by_itself(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REFRESH_S", 0.2)
    run = write_run(tmp_path / "run", [start(), *(step(n, 9 - n / 10) for n in range(1, 11))])
    server = serving.server_of([run], "127.0.0.1", None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.get_by_text("8.900 → 8.000").wait_for()
        with open(run / "metrics.jsonl", "a") as file:
            file.write(json.dumps(step(11, 2.5)) + "\n")
        page.get_by_text("8.900 → 2.500").wait_for()
        assert messages == []
        server.shutdown()
        server.server_close()
        page.get_by_text("the server has ended").wait_for()
    finally:
        page.close()
