"""The report's page in a real browser: it loads, sorts, filters, slides, and fits a phone."""

import shutil
from collections.abc import Iterator

import pytest

pytest.importorskip("pandas", reason="reports need the extra `ablation`")
pytest.importorskip("jinja2", reason="reports need the extra `ablation`")
pytest.importorskip("playwright", reason="browser tests need the package playwright")

from browser_cases import READ_CONTRAST, Visit
from page_cases import DICE, SHIFTS, page_study
from playwright.sync_api import Browser, sync_playwright

from fewshot_seg.ablation.report.page import write_report

PHONE = {"width": 360, "height": 740}
CONTRAST = 4.5
SLICES = "section:has(.slices)"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    study = page_study(tmp_path_factory.mktemp("study"))
    return write_report(study, tmp_path_factory.mktemp("report")).as_uri()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium: Browser, address: str) -> Iterator[Visit]:
    visit = Visit(chromium, address)
    yield visit
    assert visit.complaints == []  # whatever the tests did with it
    assert [one for one in visit.requests if not one.startswith("data:")] == [address]


def test_it_loads_without_a_complaint_and_asks_nobody(opened: Visit, address: str) -> None:
    assert opened.page.title() == "Three modules"
    assert opened.complaints == []
    assert [one for one in opened.requests if not one.startswith("data:")] == [address]
    widths = opened.page.evaluate("[...document.images].map((one) => one.naturalWidth)")
    assert len(widths) > 3
    assert min(widths) > 100


def test_what_others_put_into_the_page_does_not_run(chromium: Browser, address: str) -> None:
    visit = Visit(chromium, address)
    visit.page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.stolen = 1";
      document.body.append(script);
      const picture = new Image();
      picture.src = "http://127.0.0.1:9/";
      document.body.append(picture);
    }""")
    assert visit.page.evaluate("window.stolen") is None
    assert any("Content Security Policy" in one for one in visit.complaints)
    visit.page.close()


def column(visit: Visit, number: int) -> list[str]:
    """The words of one column of the leaderboard, from top to bottom."""
    return visit.page.locator("table").first.evaluate(
        "(table, number) => [...table.tBodies[0].rows].map((row) => row.cells[number].innerText)",
        number,
    )


def test_a_click_on_a_heading_sorts_and_a_third_one_restores(opened: Visit) -> None:
    table = opened.page.locator("table").first
    before = column(opened, 0)
    number = table.locator("thead th").all_inner_texts().index("mean %")
    heading = table.locator("thead th").nth(number)
    for state, falling in (("descending", True), ("ascending", False)):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == state
        values = [float(words.split()[0]) for words in column(opened, number)]
        assert values == sorted(values, reverse=falling)
        assert len(set(values)) == len(DICE)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "none"
    assert column(opened, 0) == before


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_keyboard_sorts_words(opened: Visit, key: str) -> None:
    heading = opened.page.locator("table").first.locator("thead th").first
    heading.locator("button").focus()
    opened.page.keyboard.press(key)
    names = column(opened, 0)
    assert heading.get_attribute("aria-sort") == "ascending"
    assert names == sorted(DICE, key=lambda name: (name.lower().replace("+", "!"), name))
    opened.page.keyboard.press(key)
    assert column(opened, 0) == names[::-1]
    opened.page.keyboard.press(key)
    assert heading.get_attribute("aria-sort") == "none"


def test_what_is_unknown_comes_last_in_both_directions(opened: Visit) -> None:
    table = opened.page.locator("table").first
    number = table.locator("thead th").all_inner_texts().index("paper %")
    button = table.locator("thead th").nth(number).locator("button")
    for expected in (["80.0", "50.0"], ["50.0", "80.0"]):
        button.click()
        assert column(opened, number) == [*expected, *["-"] * (len(DICE) - 2)]
    button.click()


def test_the_filter_hides_rows_and_counts_them(opened: Visit) -> None:
    box = opened.page.locator(".table").first
    rows = box.locator("tbody tr")
    field = box.get_by_label("Filter")
    field.fill("fem +")
    visible = [row.locator("th").inner_text() for row in rows.all() if row.is_visible()]
    assert sorted(visible) == ["FEM+MGD", "FEM+SCL"]
    assert box.locator("output").inner_text() == f"2 of {len(DICE)} rows"
    field.fill("")
    assert all(row.is_visible() for row in rows.all())
    assert box.locator("output").inner_text() == ""


def test_the_slider_moves_through_the_scan(opened: Visit) -> None:
    slices = opened.page.locator(SLICES)
    slider = slices.get_by_label("Slice", exact=False).and_(opened.page.locator("[type=range]"))
    told = slices.locator("output")
    assert told.inner_text() == "3 of 5"  # where the truth is largest
    middle = opened.pixels()
    assert len(middle) == len(SHIFTS)
    assert len(set(middle)) == len(SHIFTS)
    captions = slices.locator("figcaption").all_inner_texts()
    for name, dice in (("none", "44.4"), ("FEM+SCL", "84.0"), ("all", "100.0")):
        # a square of 12 pixels, moved by 4, 1 and 0 of them to both sides
        assert any(text.startswith(name) and f"{dice} in this slice" in text for text in captions)
    slider.focus()
    opened.page.keyboard.press("ArrowLeft")
    opened.page.wait_for_function("document.querySelector('.slices output').value === '2 of 5'")
    before = opened.pixels()
    assert all(one != other for one, other in zip(before, middle))
    assert "slice 1 of the scan" in slider.get_attribute("aria-valuetext")
    slices.locator("[data-part=stage]").focus()
    opened.page.keyboard.press("ArrowRight")
    opened.page.wait_for_function(
        "document.querySelector('.stage canvas').ariaLabel.includes('3 of 5')"
    )
    assert opened.pixels() == middle
    for _ in range(9):
        opened.page.keyboard.press("ArrowRight")
    assert told.inner_text() == "5 of 5"
    for _ in range(2):
        opened.page.keyboard.press("ArrowLeft")


def test_outlines_lie_where_the_masks_are(opened: Visit) -> None:
    slices = opened.page.locator(SLICES)
    slices.get_by_label("Variant").select_option("none")
    truth, prediction = slices.get_by_label("ground truth"), slices.get_by_label("prediction")
    prediction.uncheck()
    # rows run upwards in scans, and a pixel is twice as high as wide
    assert coloured(opened, "r > b + 60") == pytest.approx((14, 26, 14, 26), abs=0.2)
    prediction.check()
    truth.uncheck()
    assert coloured(opened, "b > r + 60") == pytest.approx((18, 30, 10, 22), abs=0.2)
    prediction.uncheck()
    assert coloured(opened, "Math.abs(r - b) > 2") is None
    truth.check()
    prediction.check()
    slices.get_by_label("Variant").select_option("")


def coloured(visit: Visit, rule: str) -> list[float] | None:
    """Left, right, top and bottom of the pixels that fulfil `rule`, in pixels of the mask."""
    visit.settled()
    return visit.page.evaluate(
        """() => {
          const canvas = document.querySelector(".stage canvas");
          const { width, height } = canvas;
          const copy = document.createElement("canvas");
          Object.assign(copy, { width, height });
          const pen = copy.getContext("2d", { willReadFrequently: true });
          pen.drawImage(canvas, 0, 0);
          const { data } = pen.getImageData(0, 0, width, height);
          const xs = [], ys = [];
          for (let i = 0; i < data.length; i += 4) {
            const r = data[i], b = data[i + 2];
            if (RULE) { xs.push((i / 4) % width); ys.push(Math.floor(i / 4 / width)); }
          }
          if (!xs.length) return null;
          const [x, y] = [40 / width, 40 / height];
          const ends = (list) => list.reduce(
            ([low, high], one) => [Math.min(low, one), Math.max(high, one)], [1e9, -1e9]);
          const [left, right] = ends(xs), [top, bottom] = ends(ys);
          const line = 2 * 40 / canvas.clientWidth / 2;
          return [left * x + line, (right + 1) * x - line,
                  top * y + line, (bottom + 1) * y - line];
        }""".replace("RULE", rule)
    )


def test_class_scan_and_variant_can_be_chosen(opened: Visit) -> None:
    slices = opened.page.locator(SLICES)
    first = opened.pixels()
    scans = slices.get_by_label("Scan").locator("option")
    assert [words.split("(")[-1].rstrip(")") for words in scans.all_inner_texts()[:3]] == [
        "best", "median", "worst",
    ]  # fmt: skip
    slices.get_by_label("Variant").select_option("all")
    assert len(opened.pixels()) == 1
    slices.get_by_label("Class").select_option("spleen")
    assert slices.get_by_label("Variant").input_value() == "all"
    assert "spleen" in slices.locator("canvas").get_attribute("aria-label")
    slices.get_by_label("Variant").select_option("")
    slices.get_by_label("Class").select_option("liver")
    assert opened.pixels() == first


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_sticks_out_and_all_words_can_be_read(
    chromium: Browser, address: str, scheme: str
) -> None:
    visit = Visit(chromium, address, viewport=PHONE, color_scheme=scheme)
    contrasts = visit.page.evaluate(READ_CONTRAST)
    assert len(contrasts) > 200
    assert [one for one in contrasts if one[0] < CONTRAST] == []
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    boxes = visit.page.evaluate(
        "[...document.querySelectorAll('.scroll')].map((one) => [one.scrollWidth, one.clientWidth])"
    )
    assert any(inside > outside for inside, outside in boxes)  # tables scroll in their own box
    background = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = sum(map(int, background.removeprefix("rgb(").rstrip(")").split(","))) > 3 * 128
    assert bright == (scheme == "light")
    visit.page.close()


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(
    chromium: Browser, address: str
) -> None:
    visit = Visit(chromium, address, reduced_motion="reduce")
    page = visit.page
    style = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page.evaluate(style) == "auto"
    wanted = page.evaluate("""() => {
      const kinds = "a, button, input, select, summary, [tabindex='0']";
      const all = [...document.querySelectorAll(kinds)].filter((one) => one.checkVisibility());
      window.reached = new Map();
      document.addEventListener("focusin", ({ target }) => {
        window.reached.set(target, getComputedStyle(target).outlineStyle);
      });
      return all.length;
    }""")
    for _ in range(wanted):
        page.keyboard.press("Tab")
    outlines = page.evaluate("[...window.reached.values()]")
    assert len(outlines) == wanted
    assert "none" not in outlines
    page.close()
