"""The page in a real browser: headless Chromium, driven by Playwright."""

import re
import time

import pytest
from browser import Visitor, in_a_browser
from PIL import Image
from tiny import noise
from tiny_tasks import tiny

pytestmark = in_a_browser


def schedule(visitor):
    """Prune ratios of the layers, as the page says them."""
    return [float(value) for value in re.findall(r"prune ([\d.]+)", visitor.text("steps"))]


def test_load_ask_and_slide(browser, address):
    visitor = Visitor(browser, address)
    visitor.shoot("browser_start")
    assert schedule(visitor) == [0.1, 0.3]
    assert "Reduced model" in visitor.text("answers")
    assert "Unreduced model" in visitor.text("answers")
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
    visitor.do(lambda page: page.locator("#examples button").nth(1).click())
    text = visitor.page.locator("#text textarea").input_value()
    assert text in visitor.page.locator("#examples button").nth(1).inner_text()
    assert f"Answers to “{text}”" in visitor.text("answers")
    assert visitor.page.locator(".card").count() == 2
    visitor.page.get_by_label("nothing").click()
    visitor.page.locator("#speed", has_not_text="unreduced").get_by_text("forward passes after").wait_for()
    assert "reduced" in visitor.text("speed")
    assert visitor.page.locator(".card").count() == 1


def test_upload_a_picture(browser, address, tmp_path):
    noise(90, 60).save(tmp_path / "wide.png")
    visitor = Visitor(browser, address)
    visitor.upload(tmp_path / "wide.png")
    visitor.page.locator("#ask").click()
    visitor.measured()
    sizes = visitor.page.locator("#layers img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert sizes == [336] * 3  # three panels of 6 x 6 patches: as in training, images become squares
    visitor.shoot("browser_uploaded")


def nothing_is_said(visitor):
    return all(visitor.text(part).strip() == "" for part in ("layers", "speed", "steps"))


def test_another_picture_clears_what_was_said_of_the_one_before(browser, address, tmp_path):
    noise(90, 60).save(tmp_path / "other.png")
    visitor = Visitor(browser, address)
    visitor.page.get_by_label("Remove Image").click()
    visitor.page.get_by_text("Give an image and a text").wait_for()
    assert nothing_is_said(visitor)
    visitor.upload(tmp_path / "other.png")
    visitor.page.get_by_text("Press Ask to ask about this image").wait_for()
    assert nothing_is_said(visitor)
    visitor.page.locator("#ask").click()
    visitor.measured()
    assert visitor.page.locator(".card").count() == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server is in this process: older Gradios cause some
def test_an_answer_that_comes_too_late_is_not_shown(browser, gradio, monkeypatch):
    from pumer_hf.demo import Asker, build_page
    from pumer_hf.demo.page import appearance

    asker = Asker(*tiny("vilt"))
    page = build_page(asker, "slow", [(Image.new("RGB", (48, 48)), "what digit is red?")])
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **appearance(asker))
    try:
        visitor = Visitor(browser, address.rstrip("/"))
        ask, asked = asker.ask, []

        def slow(*arguments):
            time.sleep(2)
            asked.append(ask(*arguments))
            return asked[-1]

        monkeypatch.setattr(asker, "ask", slow)
        visitor.page.locator("#ask").click()
        visitor.page.get_by_text("processing").wait_for()
        visitor.page.get_by_label("Remove Image").click()
        visitor.page.get_by_text("Give an image and a text").wait_for(timeout=1000)
        visitor.page.wait_for_timeout(4000)
        assert len(asked) == 1
        assert nothing_is_said(visitor)
        assert visitor.page.locator(".card").count() == 0
    finally:
        page.close()


BAD = {
    "empty.png": b"",
    "text.png": b"I am no picture",
    "pdf.png": b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF",
    "a.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "a.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
}


def test_what_cannot_be_read_gets_one_sentence(browser, address, server_log, tmp_path):
    for name, content in BAD.items():
        (tmp_path / name).write_bytes(content)
    noise(90, 60).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:1000])
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    visitor = Visitor(browser, address)
    for name in (*BAD, "cut.png", "huge.png"):
        visitor.upload(tmp_path / name)
        visitor.page.get_by_text(f"Cannot read the image {name}: ").wait_for()
        visitor.page.locator("#ask").click()
        visitor.page.wait_for_timeout(1000)
        assert visitor.text("answers").startswith(f"Cannot read the image {name}: ")
        assert "\n" not in visitor.text("answers").strip()
        assert nothing_is_said(visitor)
        assert visitor.page.locator(".error").count() == 0
    Image.new("RGB", (1, 1), "red").save(tmp_path / "one.png")
    visitor.upload(tmp_path / "one.png")
    visitor.page.locator("#ask").click()
    visitor.measured()
    assert "Traceback" not in server_log.read_text()
    assert visitor.errors == []


def test_number_fields_take_numbers(browser, address, server_log):
    visitor = Visitor(browser, address)
    number = visitor.page.locator("#prune_ratio input[type=number]")
    number.press("Control+a")
    number.press_sequentially("a0b.-3e+x")
    assert number.input_value() == "0.3"
    visitor.page.get_by_text("(asked for: prune 0.15").wait_for()
    number.fill("")
    visitor.page.get_by_text("must be a number in [0, 0.63]").wait_for()
    visitor.page.get_by_text("processing").wait_for(state="hidden")  # Gradio's own words where the speed will stand
    assert nothing_is_said(visitor)
    number.fill("9")
    visitor.page.get_by_text("prune_ratio=9: must be a number in [0, 0.63]").wait_for()
    visitor.page.keyboard.press("Tab")
    visitor.page.get_by_text("(asked for: prune 0.945").wait_for()
    assert number.input_value() == "0.63"
    assert visitor.page.locator(".error").count() == 0
    assert "Traceback" not in server_log.read_text()


def test_two_visitors_have_their_own_sliders(browser, address):
    first, second = Visitor(browser, address), Visitor(browser, address)
    first.slide("prune_ratio", 0.4)
    second.slide("prune_ratio", 0.1)
    assert schedule(first) == [0.2, 0.6]
    assert schedule(second) == [0.05, 0.15]
    first.do(lambda page: page.locator("#text textarea").fill("is there a two?") or page.locator("#ask").click())
    assert schedule(first) == [0.2, 0.6]
