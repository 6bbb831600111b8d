"""The page is for everyone: axe (https://github.com/dequelabs/axe-core), focus, tab stops, sizes, colours."""

import io
import shutil
import subprocess

import pytest
from browser import Visitor, in_a_browser
from PIL import Image

pytestmark = in_a_browser
WIDTHS, THEMES = (1440, 768, 390), ("light", "dark")


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The script of axe-core, from npm."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no npm to install axe-core with")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "axe-core@4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"npm cannot install axe-core: {done.stderr.strip()[-200:]}")
    return folder / "node_modules" / "axe-core" / "axe.min.js"


def findings(page, axe):
    """What axe calls serious or critical."""
    if page.evaluate("typeof axe") == "undefined":
        page.add_script_tag(path=axe)
    violations = page.evaluate("axe.run(document).then(results => results.violations)")
    return [
        f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
        for one in violations
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious(browser, address, axe, width, theme, tmp_path):
    visitor = Visitor(browser, address, width, theme)
    visitor.shoot(f"page_{width}_{theme}")
    assert findings(visitor.page, axe) == []
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.page.locator("#text textarea").fill("what elephant is red? " * 30)
    visitor.do(lambda page: page.locator("#ask").click())
    assert "longer than 40 tokens" in visitor.text("answers")
    assert findings(visitor.page, axe) == []
    visitor.shoot(f"page_{width}_{theme}_unread")
    (tmp_path / "a.png").write_text("I am no picture")
    visitor.upload(tmp_path / "a.png")
    visitor.page.get_by_text("a.png: it is in no format").wait_for()
    assert findings(visitor.page, axe) == []
    visitor.shoot(f"page_{width}_{theme}_unreadable")


def test_axe_would_find_something(browser, address, axe):
    visitor = Visitor(browser, address)
    visitor.page.evaluate("document.querySelector('#layers img').removeAttribute('alt')")
    visitor.page.add_style_tag(content=".card .name {color: #ccc !important;}")
    found = " ".join(findings(visitor.page, axe))
    assert "image-alt" in found
    assert "color-contrast" in found


@pytest.mark.parametrize("theme", THEMES)
def test_every_tab_stop_has_a_focus_that_is_seen(browser, address, theme):
    page = Visitor(browser, address, theme=theme).page
    page.evaluate("document.activeElement.blur()")
    stops = []
    while len(stops) < 80:
        page.keyboard.press("Tab")
        tag, style, width, background, colour = page.evaluate("""() => {
          const element = document.activeElement, outline = getComputedStyle(element);
          return [element.tagName, outline.outlineStyle, outline.outlineWidth,
            getComputedStyle(document.body).backgroundColor, outline.outlineColor]; }""")
        if tag == "BODY":  # once around
            break
        stops.append(tag)
        assert (style, width) == ("solid", "3px")
        assert contrast(background, colour) > 3
    assert stops.count("BUTTON") > 10
    assert not {"TR", "TD", "TH", "TABLE"} & set(stops)


def contrast(*colours):
    """The contrast of two colours as WCAG defines it; each `rgb(...)` of CSS."""
    lights = []
    for colour in colours:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_pictures_come_right_after_the_answers_and_can_be_read(browser, address, width):
    page = Visitor(browser, address, width).page
    boxes = {part: page.locator(f"#{part}").bounding_box() for part in ("answers", "layers", "speed", "prune_ratio")}
    assert list(boxes) == sorted(boxes, key=lambda part: boxes[part]["y"])
    assert boxes["layers"]["y"] - boxes["answers"]["y"] - boxes["answers"]["height"] < 40
    widths = [image.bounding_box()["width"] for image in page.locator("#layers img").all()]
    assert min(widths) >= (300 if width == 390 else 200)
    sizes = page.locator("#layers figcaption, #layers .legend").evaluate_all(
        "all => all.map(one => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 14


def test_dark_is_dark_and_transparent_is_white(browser, address, tmp_path):
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (24, 24, 40, 40))
    clear.save(tmp_path / "clear.png")
    visitor = Visitor(browser, address, theme="dark")
    edge = shot(visitor.page.locator("#layers")).getpixel((2, 2))
    assert max(edge) < 60  # no white paper around the pictures
    visitor.upload(tmp_path / "clear.png")
    visitor.page.locator("#ask").click()
    visitor.measured()
    for picture in (visitor.page.locator("#image img"), visitor.page.locator("#layers img").first):
        seen = shot(picture)
        middle = seen.width // 2
        assert seen.getpixel((middle, seen.height // 2)) == (255, 0, 0)
        assert seen.getpixel((middle, seen.height // 8)) == (255, 255, 255)


def shot(part):
    """What a part of the page looks like."""
    return Image.open(io.BytesIO(part.screenshot())).convert("RGB")
