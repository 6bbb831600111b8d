"""The page in a real browser: headless Chromium, driven by Playwright."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from PIL import Image
from tiny_tasks import save_tiny

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = os.environ.get("PUMER_SCREENSHOTS")
"""A folder to leave screenshots in."""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install it")]


@contextmanager
def served(*arguments):
    """The address of `pumer-hf demo`, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pumer_hf.cli", "demo", *arguments, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            assert process.poll() is None, process.stdout.read()
            try:
                urlopen(address, timeout=5).close()
                break
            except URLError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[demo]'")
    folder = tmp_path_factory.mktemp("models")
    student = save_tiny(folder / "student", "vilt")
    with served(student, "--teacher", save_tiny(folder / "teacher", "vilt", reduction=None, seed=1)) as address:
        yield address


@pytest.fixture
def browser():
    reason = "there is no Playwright to drive Chromium with: pip install playwright"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """Someone who looks at the page and uses it."""

    def __init__(self, browser, address):
        self.outside, self.errors = [], []
        self.page = browser.new_page(viewport={"width": 1366, "height": 900})
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(address)
        self.page.get_by_text("forward passes after").wait_for(timeout=60_000)

    def _request(self, request):
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(request.url)

    def text(self, part):
        return self.page.locator(f"#{part}").inner_text()

    def picture(self):
        return self.page.locator("#layers img").get_attribute("src")

    def do(self, action):
        """Do something to the page, and wait until it has answered and measured."""
        before = self.picture()
        action(self.page)
        self.page.wait_for_function(
            "before => { const image = document.querySelector('#layers img');"
            " return image && image.getAttribute('src') !== before; }",
            arg=before,
            timeout=60_000,
        )
        self.page.get_by_text("forward passes after").wait_for(timeout=60_000)

    def slide(self, name, value):
        def action(page):
            number = page.locator(f"#{name} input[type=number]")
            number.fill(str(value))
            number.press("Enter")

        self.do(action)

    def shoot(self, name):
        if SHOTS:
            self.page.wait_for_timeout(1000)
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def schedule(visitor):
    """Prune ratios of the layers, as the page says them."""
    return [float(value) for value in re.findall(r"prune ([\d.]+)", visitor.text("schedule"))]


def test_load_ask_and_slide(browser, address):
    visitor = Visitor(browser, address)
    visitor.shoot("browser_start")
    assert schedule(visitor) == [0.1, 0.3]
    assert "%" in visitor.text("answers")
    assert "%" in visitor.text("full_answers")
    assert "times as fast as the unreduced model" in visitor.text("speed")

    def ask(page):
        page.locator("#text textarea").fill("is there a red digit?")
        page.locator("#ask").click()

    visitor.do(ask)
    gflops = visitor.text("speed").split("reduced")[1].split()[0]
    visitor.slide("prune_ratio", 0.4)
    assert schedule(visitor) == [0.2, 0.6]
    assert float(visitor.text("speed").split("reduced")[1].split()[0]) < float(gflops)
    visitor.shoot("browser_moved")
    assert visitor.outside == []
    assert visitor.errors == []


def test_click_an_example_and_compare_with_nothing(browser, address):
    visitor = Visitor(browser, address)
    visitor.do(lambda page: page.locator("#examples tbody tr").nth(1).click())
    examples = visitor.page.locator("#examples tbody tr").nth(1).inner_text()
    assert visitor.page.locator("#text textarea").input_value() in examples
    visitor.page.get_by_label("nothing").click()
    visitor.page.locator("#speed", has_not_text="unreduced").get_by_text("forward passes after").wait_for()
    assert "reduced" in visitor.text("speed")
    assert "%" not in visitor.text("full_answers")


def test_upload_a_picture(browser, address, tmp_path):
    Image.effect_noise((90, 60), 90).save(tmp_path / "wide.png")
    visitor = Visitor(browser, address)

    def upload(page):
        page.locator("#image").get_by_label("Remove Image").click()
        page.locator("#image input[type=file]").set_input_files(tmp_path / "wide.png")
        page.locator("#image img").wait_for()
        page.locator("#ask").click()

    visitor.do(upload)
    width = visitor.page.evaluate("document.querySelector('#layers img').naturalWidth")
    assert 3 * 336 < width < 3 * 1.4 * 336  # three panels of 9 x 9 patches: as in training, images become squares
    visitor.shoot("browser_uploaded")


def test_two_visitors_have_their_own_sliders(browser, address):
    first, second = Visitor(browser, address), Visitor(browser, address)
    first.slide("prune_ratio", 0.4)
    second.slide("prune_ratio", 0.1)
    assert schedule(first) == [0.2, 0.6]
    assert schedule(second) == [0.05, 0.15]
    first.do(lambda page: page.locator("#text textarea").fill("is there a two?") or page.locator("#ask").click())
    assert schedule(first) == [0.2, 0.6]
