"""Headless Chromium, driven by Playwright, for tests of the page."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.error import URLError
from urllib.request import urlopen

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SHOTS = os.environ.get("PUMER_SCREENSHOTS")
"""A folder to leave screenshots in."""
in_a_browser = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install it")]


@contextmanager
def served(log, *arguments):
    """The address of `pumer-hf demo`, in a process of its own, which writes to the file `log`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pumer_hf.cli", "demo", *arguments, "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            address = f"http://127.0.0.1:{port}"
            for _ in range(120):
                assert process.poll() is None, log.read_text()
                try:
                    urlopen(address, timeout=5).close()
                    break
                except URLError:
                    time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait()


@contextmanager
def chromium():
    """A browser."""
    reason = "there is no Playwright to drive Chromium with: pip install playwright"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """Someone who looks at the page and uses it."""

    def __init__(self, browser, address, width=1366, theme="light"):
        self.outside, self.errors = [], []
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/?__theme={theme}")
        self.measured()

    def measured(self):
        """Wait until the page has answered and measured."""
        self.page.get_by_text("forward passes after").wait_for(timeout=60_000)

    def _request(self, request):
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.outside.append(request.url)

    def text(self, part):
        return self.page.locator(f"#{part}").inner_text()

    def picture(self):
        """The last of the pictures of the layers."""
        return self.page.locator("#layers img").last.get_attribute("src")

    def do(self, action):
        """Do something to the page, and wait until it has answered and measured."""
        before = self.picture()
        action(self.page)
        self.page.wait_for_function(
            "before => { const image = [...document.querySelectorAll('#layers img')].at(-1);"
            " return image && image.getAttribute('src') !== before; }",
            arg=before,
            timeout=60_000,
        )
        self.measured()

    def upload(self, path):
        """Give another picture."""
        if self.page.get_by_label("Remove Image").count():
            self.page.get_by_label("Remove Image").click()
            self.page.get_by_label("Remove Image").wait_for(state="detached")
        self.page.locator("#image input[type=file]").set_input_files(path)
        self.page.get_by_label("Remove Image").wait_for()

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
