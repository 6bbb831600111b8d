"""The page: what its controls do, and how it is put together."""

import socket
import sys

import pytest
from PIL import Image
from tiny_tasks import save_tiny, tiny

from pumer_hf.cli import main
from pumer_hf.demo import asker as asker_module
from pumer_hf.demo.asker import NOTHING, SAME_WEIGHTS, Asker, Times
from pumer_hf.demo.page import HINT, Handlers, costs
from pumer_hf.demo.schedules import slider_values

SCENE = Image.effect_noise((48, 48), 90).convert("RGB")
QUESTION = "what digit is red?"


@pytest.fixture
def handlers():
    return Handlers(Asker(*tiny("vilt")))


def test_an_answer_follows_the_sliders(handlers):
    start = list(slider_values(handlers.asker.schedule).values())
    answers, full, picture, words, table, gflops = handlers.answer(SCENE, QUESTION, SAME_WEIGHTS, 1, *start)
    assert set(answers) == set(full)
    assert words == (
        "Schedule: layer 0: prune 0.1, image merge 0.3, text merge 0.2; "
        "layer 2: prune 0.3, image merge 0.3, text merge 0.2"
    )
    assert "measuring" in table
    moved = handlers.answer(SCENE, QUESTION, NOTHING, 1, 0.5, *start[1:])
    assert moved[1] is None
    assert moved[2].tobytes() != picture.tobytes()
    assert "layer 2: prune 0.75" in moved[3]
    assert moved[5][0] < gflops[0] < gflops[1]


def test_times_come_in_a_second_step(handlers, monkeypatch):
    monkeypatch.setattr(asker_module, "SECONDS", 0.0)
    start = list(slider_values(handlers.asker.schedule).values())
    table = handlers.time((0.5, 1.25), SCENE, QUESTION, SAME_WEIGHTS, 2, *start)
    assert "time for a batch of 2" in table
    assert "| reduced | 0.5 | " in table
    assert "| unreduced | 1.25 | " in table
    assert "Medians of 5 forward passes after 2 to warm up" in table


def test_a_measurement_gives_way_to_a_question(handlers, monkeypatch):
    monkeypatch.setattr(handlers.asker, "measure", lambda *args: None)
    table = handlers.time((0.5, None), SCENE, QUESTION, NOTHING, 2, 0.2, 0.3, 0.2)
    assert "| reduced | 0.5 | not measured: another question came first; press Ask |" in table


def test_a_table_of_costs():
    table = costs((0.5, 1.25), Times(8, 7, seconds=0.0123, full_seconds=0.0246))
    assert "| reduced | 0.5 | 12.3 ms |" in table
    assert "| unreduced | 1.25 | 24.6 ms |" in table
    assert "**2.00 times as fast as the unreduced model.** Medians of 7" in table
    alone = costs((0.5, None), Times(8, 7, seconds=0.0123, full_seconds=None))
    assert "unreduced" not in alone
    assert "| reduced | 0.5 | 12.3 ms |" in alone


def test_what_is_wrong_with_a_picture_is_shown(handlers, gradio, tmp_path):
    Image.new("F", (48, 48), 200).save(tmp_path / "a.tif")
    start = list(slider_values(handlers.asker.schedule).values())
    with pytest.raises(gradio.Error, match=r"a\.tif: its values are in \[200, 200\]"):
        handlers.answer(str(tmp_path / "a.tif"), QUESTION, NOTHING, 1, *start)


@pytest.mark.parametrize(("image", "text"), [(None, QUESTION), (SCENE, None), (SCENE, "  ")])
def test_nothing_is_asked_without_image_and_text(image, text, handlers):
    assert handlers.answer(image, text, NOTHING, 1, 0.1, 0.1, 0.1) == (None, None, None, "", HINT, None)
    assert handlers.time(None, image, text, NOTHING, 1, 0.1, 0.1, 0.1) == HINT


def test_the_page_is_put_together(gradio, tmp_path, monkeypatch):
    launched = []
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: launched.append((page, options)))
    checkpoint = save_tiny(tmp_path / "model", "meter", "snli_ve")
    assert main(["demo", checkpoint, "--host", "0.0.0.0", "--port", "7999"]) == 0
    page, options = launched.pop()
    assert (options["server_name"], options["server_port"], options["share"]) == ("0.0.0.0", 7999, False)
    assert "image-rendering: pixelated" in options["css"]
    assert page.title == "PuMer: model"
    assert not page.analytics_enabled
    parts = {part["props"].get("elem_id"): part["props"] for part in page.get_config_file()["components"]}
    assert parts["text"]["label"] == "Hypothesis"
    assert parts["text"]["value"].startswith("there is a ")
    values = [parts[name]["value"] for name in ("prune_ratio", "image_merge_ratio", "text_merge_ratio")]
    assert values == [0.2, 0.3, 0.2]
    events = [event for event in page.fns.values() if event.name in ("answer", "time")]
    assert sorted(event.concurrency_id for event in events) == ["answer"] * 2 + ["time"] * 2  # of controls, examples
    assert {event.concurrency_limit for event in events} == {1}


def test_without_gradio_the_error_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", save_tiny(tmp_path / "model", "vilt")]) == 2
    captured = capsys.readouterr()
    assert "pumer-hf demo: error: the page needs Gradio: pip install 'gradio" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "99999"], "--port 99999: must be in [1, 65535]"),
        (["--port", "0"], "--port 0: must be in [1, 65535]"),
        (["--port", "-1"], "--port -1: must be in [1, 65535]"),
        (["--host", "not a host"], "--host not a host: cannot serve there"),
        (["--host", "192.0.2.1", "--port", "7999"], "--host 192.0.2.1 --port 7999: cannot serve there"),
    ],
)
def test_an_address_where_nothing_can_be_served_is_refused_before_the_work(flags, message, gradio, capsys):
    assert main(["demo", "no/such/model", *flags]) == 2
    captured = capsys.readouterr()
    assert f"pumer-hf demo: error: {message}" in captured.err
    assert "Traceback" not in captured.err


def test_a_port_in_use_is_refused(gradio, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert main(["demo", "no/such/model", "--port", port]) == 2
    assert f"--port {port}: cannot serve there: Address already in use" in capsys.readouterr().err
