"""The report in a real browser: how it reads on a phone and a desk, light and dark, and printed."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from launch import cli
from launch.model.variants import VARIANTS

from .. import sample_bench, sample_trees
from ..conftest import HYBRID, UNSTRUCTURED

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAYERS = 24
SIZES = {"phone": (390, 844), "desk": (1280, 900)}
SCHEMES = ("light", "dark")

CONTRAST = """
selector => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const once = (found, key, make) => found.has(key) ? found.get(key) : found.set(key, make()).get(key);
  const colours = new Map(), cells = new Map();
  const parts = colour => once(colours, colour, () => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  });
  const luminance = ([r, g, b]) => [r, g, b]
    .map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    throw new Error('no background');
  };
  const inside = element => {  // what a number of a heat map stands on
    const box = element.getBBox(), x = box.x + box.width / 2, y = box.y + box.height / 2;
    const map = element.ownerSVGElement;
    const [cell] = once(cells, map, () =>
      [...map.querySelectorAll('.cell')].map(cell => [cell, cell.getBBox()])
    ).find(([, area]) =>
      area.x < x && x < area.x + area.width && area.y < y && y < area.y + area.height
    ) || [];
    return cell ? parts(getComputedStyle(cell).fill) : ground(map.parentElement);
  };
  return [...document.querySelectorAll(selector)].map(element => {
    const drawn = element instanceof SVGElement;
    const colour = parts(getComputedStyle(element)[drawn ? 'fill' : 'color']);
    const pair = [luminance(colour), luminance(drawn ? inside(element) : ground(element))];
    return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  });
}
"""
"""Gives the contrast ratio of WCAG 2.1 of each selected element's text and what it stands on."""


def executable() -> str:
    """The machine's browser; a reason to skip where there is none, or to fail where one is required."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        reason = f"there is no Chromium on PATH ({', '.join(BROWSERS)})"
        if os.environ.get("KIT_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{reason}, and KIT_REQUIRE_BROWSER=1", pytrace=False)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Pages of five trees as deep as BERT-large: sound ones; two damaged and one missing; one alone."""
    found = {}
    for name in ("sound", "damaged", "alone"):
        out = tmp_path_factory.mktemp(name)
        for variant in VARIANTS.values():
            if name != "alone" or variant.name == HYBRID:
                content = sample_trees.document(variant, sample_trees.spec(variant, LAYERS))
                sample_trees.write(out, variant, content)
        if name == "sound":
            (out / "bench").mkdir()
            (out / "bench/bench.json").write_text(json.dumps(sample_bench.make_content()))
        if name == "damaged":
            sample_trees.damage(out / HYBRID / f"{HYBRID}-8bit.onnx")
            (out / HYBRID / ("a_long_name_" * 12)).write_text("")
            (out / UNSTRUCTURED / "provenance.json").unlink()
            shutil.rmtree(str(out / "90pc_sparse-06_head-1536_ffnn"))
        cli.main(["report", "--out", str(out)])
        found[name] = out / "report.html"
    return found


class Opened:
    """A page that is shown, with what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, size: str, scheme: str) -> None:
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme)
        self.page = self.context.new_page()
        self.requests: List[str] = []
        self.complaints: List[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.url = path.as_uri()
        self.page.goto(self.url)

    def js(self, expression: str, argument: Any = None) -> Any:
        return self.page.evaluate(expression, argument)

    def contrasts(self, selector: str) -> List[float]:
        found: List[float] = self.js(CONTRAST, selector)
        assert found, selector
        return found

    def overflow(self) -> int:
        return int(
            self.js("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )


@pytest.fixture
def opened(browser: Any, pages: Dict[str, Path]) -> Iterator[Any]:
    """A function that shows one of the pages."""
    shown: List[Opened] = []

    def open_(name: str = "sound", size: str = "desk", scheme: str = "light") -> Opened:
        shown.append(Opened(browser, pages[name], size, scheme))
        return shown[-1]

    yield open_
    for one in shown:
        one.context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["sound", "damaged", "alone"])
def test_the_page_fits_the_window_and_fetches_nothing(opened: Any, name: str, size: str) -> None:
    page = opened(name, size)
    assert page.overflow() <= 0
    page.js("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.overflow() <= 0
    assert page.requests == [page.url]
    assert page.complaints == []


@pytest.mark.parametrize("size", SIZES)
def test_what_is_too_wide_scrolls_in_a_box_that_the_keyboard_reaches(opened: Any, size: str) -> None:
    page = opened(size=size)
    page.js("() => document.querySelectorAll('details').forEach(one => { one.open = true; })")
    outside = page.js(
        """() => [...document.querySelectorAll('body *:not(svg *)')]
          .filter(one => !one.closest('.scroll') || one.matches('.scroll'))
          .filter(one => { const box = one.getBoundingClientRect();
                           return box.width && (box.left < 0 || box.right > innerWidth + 0.5); })
          .map(one => one.outerHTML.slice(0, 80))"""
    )
    assert outside == []
    boxes = page.js(
        """() => [...document.querySelectorAll('.scroll')]
          .map(box => [box.tabIndex, getComputedStyle(box).overflowX, box.scrollWidth > box.clientWidth])"""
    )
    assert boxes
    assert all(index == 0 and overflow == "auto" for index, overflow, _ in boxes)
    if size == "phone":
        assert any(scrolls for _, _, scrolls in boxes)
        first = page.page.locator(".scroll").first
        first.evaluate("box => { box.scrollLeft = 200; }")
        left = "box => box.querySelector('tbody th').getBoundingClientRect().left"
        assert first.evaluate(left) >= 0  # the variant's name stays in sight


@pytest.mark.parametrize("size", SIZES)
def test_every_variant_has_a_heading_and_a_cell_for_each_matrix(opened: Any, size: str) -> None:
    page = opened(size=size)
    for name in VARIANTS:
        heading = page.page.get_by_role("heading", name=name, exact=True, level=2)
        assert heading.count() == 1
        assert heading.is_visible()
    plots = page.page.locator("svg.plot").count()
    assert plots == 2  # of speed
    assert page.page.locator("figure").count() == len(VARIANTS) + plots
    assert page.page.locator("svg .cell").count() == len(VARIANTS) * 2 * LAYERS * 6
    widths = page.js("() => [...document.querySelectorAll('.panel svg')].map(one => one.clientWidth)")
    assert len(widths) == 2 * len(VARIANTS) + plots
    assert all(width >= 300 for width in widths)
    sizes = page.js(
        """() => [...document.querySelectorAll('svg text')].map(one =>
             parseFloat(getComputedStyle(one).fontSize) * one.getCTM().a)"""
    )
    assert min(sizes) >= 9, "pixels"


def test_heat_maps_have_a_role_and_a_text_alternative(opened: Any) -> None:
    page = opened()
    images = page.page.get_by_role("img", name=re.compile("^Heat map of "))
    assert images.count() == 2 * len(VARIANTS)
    assert page.page.get_by_role("img", name=re.compile("^Colour scale")).count() == len(VARIANTS)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["sound", "damaged"])
def test_text_stands_out(opened: Any, name: str, scheme: str) -> None:
    page = opened(name, scheme=scheme)
    selectors = ["p", "dd", "dt", "td", "th", "a", "summary", "pre", "code", "li"]
    selectors += [".lead", ".muted", "figcaption", "thead th", ".hash", "svg .label"]
    if name == "damaged":
        selectors += [".bad"]
    for selector in selectors:
        assert min(page.contrasts(selector)) >= 4.5, selector


@pytest.mark.parametrize("scheme", SCHEMES)
def test_numbers_stand_out_from_their_cells(opened: Any, scheme: str) -> None:
    page = opened(scheme=scheme)
    found = page.contrasts("svg .on-light, svg .on-dark")
    assert len(found) == len(VARIANTS) * 2 * LAYERS * 6
    assert min(found) >= 4.5


def test_light_and_dark_differ(opened: Any) -> None:
    def colours(page: Opened) -> List[str]:
        found: List[str] = page.js(
            """() => [getComputedStyle(document.documentElement).backgroundColor,
                      getComputedStyle(document.body).color,
                      getComputedStyle(document.querySelector('a')).color,
                      getComputedStyle(document.querySelector('svg .label')).fill]"""
        )
        return found

    light, dark = colours(opened()), colours(opened(scheme="dark"))
    assert all(one != other for one, other in zip(light, dark))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_printed_it_is_light_and_complete(opened: Any, scheme: str) -> None:
    page = opened(scheme=scheme)
    shown = """() => [...document.querySelectorAll('details > :not(summary)')].map(one =>
      one.checkVisibility({contentVisibilityAuto: true}) && one.getBoundingClientRect().height > 0)"""
    assert not any(page.js(shown))
    page.page.emulate_media(media="print", color_scheme=scheme)
    # The browser lays it out anew with the next frame.
    page.page.wait_for_function(f"() => ({shown})().every(one => one)", timeout=10_000)
    assert page.js("() => getComputedStyle(document.body).color") == "rgb(28, 31, 35)"
    assert page.js(
        "() => [...document.querySelectorAll('figure')].every(one =>"
        " getComputedStyle(one).breakInside === 'avoid')"
    )
    assert page.js(
        "() => [...document.querySelectorAll('.scroll')].every(one =>"
        " getComputedStyle(one).overflowX === 'visible')"
    )


def printed(page: Opened) -> bytes:
    # The headings are the outline's titles, which stand in the file as they are.
    content: bytes = page.page.pdf(format="A4", outline=True, tagged=True)
    return content


def test_a_pdf_has_every_variant_and_what_is_folded_on_the_screen(opened: Any) -> None:
    page = opened()
    content = printed(page)
    for name in VARIANTS:
        assert f"/Title ({name})".encode() in content
    page.js("() => document.querySelectorAll('details').forEach(one => one.remove())")
    with_all, without = (len(re.findall(rb"/Type\s*/Page\b", one)) for one in (content, printed(page)))
    assert without > len(VARIANTS)
    assert with_all >= without + 2 * len(VARIANTS)  # a table of 148 matrices takes more than two pages
