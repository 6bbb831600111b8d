"""The page for decoders in a real browser: headless Chromium, driven by Playwright."""

import json
import time

import pytest
import torch
from browser import Visitor, in_a_browser, served
from tiny import noise
from tiny_llava import save_tiny_llava

pytestmark = in_a_browser
SCHEDULE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}


class Asking(Visitor):
    """A visitor of the page for decoders."""

    def measured(self):
        """Wait until both models have answered."""
        self.page.get_by_text("times as fast as unreduced").wait_for(timeout=60_000)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install -e '.[demo]'")
    folder = tmp_path_factory.mktemp("page")
    torch.manual_seed(0)
    checkpoint = save_tiny_llava(folder / "llava")
    noise().save(folder / "a.png")
    (folder / "examples.jsonl").write_text(json.dumps({"image": "a.png", "text": "what digit is red?"}))
    arguments = [str(checkpoint), "--reduction", json.dumps(SCHEDULE), "--examples", str(folder)]
    with served(folder / "log", *arguments) as address:
        yield address


def test_ask_slide_and_choose(browser, address):
    visitor = Asking(browser, address)
    visitor.shoot("decoder_start")
    assert visitor.page.locator(".card").count() == 2
    assert "9 of 36" in visitor.text("answers")
    assert visitor.page.locator("#layers img").count() == 2
    visitor.slide("keep_ratio", 0.5)
    visitor.page.get_by_text("18 of 36", exact=True).wait_for()

    def choose(page):
        page.locator("#method input").click()
        page.get_by_role("option", name="diverse", exact=True).click()

    visitor.do(choose)
    assert "With fewer image tokens (diverse)" in visitor.text("answers")
    visitor.page.locator("#compare input").click()
    visitor.page.wait_for_function("document.querySelectorAll('.card').length == 1")
    visitor.shoot("decoder_moved")
    assert visitor.outside == []
    assert visitor.errors == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server is in this process: older Gradios cause some
def test_an_answer_grows_and_can_be_stopped(browser, gradio, tmp_path, monkeypatch):
    from pumer_hf.demo import decoder_asker
    from pumer_hf.demo.kinds import DECODERS

    torch.manual_seed(0)
    asker = DECODERS.load(str(save_tiny_llava(tmp_path)), reduction=SCHEDULE)
    page = DECODERS.build_page(asker, "slow", [(noise(), "what digit is red?")])
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **DECODERS.appearance(asker))
    try:
        visitor, ask = Asking(browser, address.rstrip("/")), decoder_asker.ask

        def slow(model, processor, inputs, new_tokens, show, stops):
            def shown(words, last):
                time.sleep(0.5)
                show(words, last)

            return ask(model, processor, inputs, new_tokens, shown, stops)

        monkeypatch.setattr(decoder_asker, "ask", slow)
        visitor.page.locator("#ask").click()
        visitor.page.get_by_text("It is answering").wait_for()
        said, seen = visitor.page.locator(".said").first, set()
        while len(seen) < 3:
            seen.add(said.inner_text())
            visitor.page.wait_for_timeout(100)
        visitor.page.locator("#stop").click()
        visitor.page.get_by_text("Stopped.").first.wait_for()
        visitor.page.wait_for_timeout(2000)
        assert visitor.page.get_by_text("until the first token").count() == 0
        monkeypatch.setattr(decoder_asker, "ask", ask)
        visitor.page.locator("#ask").click()
        visitor.measured()  # the next question does not wait for the rest of the one that was stopped
    finally:
        page.close()


def test_what_is_wrong_gets_one_sentence(browser, address, tmp_path):
    (tmp_path / "a.png").write_text("I am no picture")
    visitor = Asking(browser, address)
    visitor.page.locator("#keep_ratio input[type=number]").fill("")
    visitor.page.get_by_text("keep_ratio=None: must be a number in (0, 1]").wait_for()
    assert visitor.text("layers").strip() == ""
    visitor.upload(tmp_path / "a.png")
    visitor.page.get_by_text("a.png: it is in no format").wait_for()
    assert visitor.page.locator(".card").count() == 0
    assert visitor.errors == []


@pytest.mark.parametrize(("width", "theme"), [(1440, "light"), (390, "dark")])
def test_the_page_fits_its_window(browser, address, width, theme):
    visitor = Asking(browser, address, width, theme)
    visitor.shoot(f"decoder_{width}_{theme}")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    cut = visitor.page.evaluate(
        "[...document.querySelectorAll('.card *, figcaption, .legend li')]"
        ".filter(one => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display != 'inline').length"
    )
    assert cut == 0
