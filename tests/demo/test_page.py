"""The page: what its controls do, and how it is put together."""

import json
import re
import socket
import sys

import pytest
from PIL import Image
from tiny import noise
from tiny_tasks import LABELS, REDUCTION, save_tiny, tiny

from pumer_hf.cli import main
from pumer_hf.demo import asker as asker_module
from pumer_hf.demo.asker import NOTHING, SAME_WEIGHTS, Asker, Times
from pumer_hf.demo.launching import check_address
from pumer_hf.demo.page import Handlers, build_page, costs, introduction
from pumer_hf.demo.parts import HINT
from pumer_hf.demo.schedules import slider_values
from pumer_hf.explain.pictures import LEGEND

SCENE = noise()
QUESTION = "what digit is red?"


@pytest.fixture
def handlers():
    return Handlers(Asker(*tiny("vilt")))


def start_values(handlers):
    return [value for part in handlers.asker.schedule.parts for value in slider_values(part).values()]


KNOWN = {"gflops": 0.5, "full_gflops": 1.25, "removed": 9}


def test_an_answer_follows_the_sliders(handlers):
    start = start_values(handlers)
    answers, layers, steps, table, known, scores = handlers.answer(SCENE, QUESTION, SAME_WEIGHTS, 1, *start)
    assert "Unreduced model" in answers
    assert layers.count("<figure><img") == 3
    for layer, prune in ((0, 0.1), (2, 0.3)):
        assert f"<b>Layer {layer}</b> (asked for: prune {prune}, image merge 0.3, text merge 0.2)" in steps
    assert "being measured" in table
    assert known == scores
    assert set(known["answers"]) == set(known["full_answers"]) == set(LABELS["vqa"])
    moved = handlers.answer(SCENE, QUESTION, NOTHING, 1, 0.5, *start[1:])
    assert moved[1] != layers
    assert "(asked for: prune 0.75" in moved[2]
    assert moved[4]["gflops"] < known["gflops"] < known["full_gflops"]


def test_without_comparison_there_is_one_card(handlers):
    answers, *_, known, _ = handlers.answer(SCENE, QUESTION, NOTHING, 1, *start_values(handlers))
    assert answers.count('class="card"') == 1
    assert "Unreduced" not in answers
    assert known["full_answers"] is None


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_scores_are_shown_as_what_they_are(backbone):
    sigmoids = Handlers(Asker(*tiny(backbone)))
    answers, *_, known, _ = sigmoids.answer(SCENE, QUESTION, NOTHING, 1, *start_values(sigmoids))
    best, score = next(iter(known["answers"].items()))
    assert f'<span class="name">{best}</span> <span class="score">{score:.2f}</span>' in answers
    assert "%" not in re.sub(r'style="[^"]*"', "", answers)
    shares = Handlers(Asker(*tiny(backbone, "snli_ve")))
    answers, *_ = shares.answer(SCENE, "there is a red digit", NOTHING, 1, *start_values(shares))
    assert sum(float(share) for share in re.findall(r"score\">([\d.]+) %<", answers)) == pytest.approx(100, abs=0.2)
    assert "100 % together" in answers


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_what_was_not_read_is_said_above_the_answers(backbone):
    handlers = Handlers(Asker(*tiny(backbone)))
    for text, said in {
        "what elephant is red?": "“elephant”",
        "what digit is слон?": "слон",
        "what digit is red? " * 30: "longer than 40 tokens",
    }.items():
        answers, *_, known, _ = handlers.answer(SCENE, text, NOTHING, 1, *start_values(handlers))
        assert said in answers.partition("Answers to")[0]
        assert said in known["notes"][0]
    answers, *_, known, _ = handlers.answer(SCENE, QUESTION, NOTHING, 1, *start_values(handlers))
    assert known["notes"] == []
    assert "problem" not in answers


def test_an_animation_is_seen_in_part(handlers, tmp_path):
    SCENE.save(tmp_path / "a.gif", save_all=True, append_images=[SCENE.rotate(90)])
    answers, *_ = handlers.answer(str(tmp_path / "a.gif"), QUESTION, NOTHING, 1, *start_values(handlers))
    assert "The image has 2 frames" in answers


def test_what_visitors_write_is_shown_as_they_wrote_it(handlers):
    answers, layers, *_ = handlers.answer(SCENE, "is <b>red</b> <script>?", NOTHING, 1, *start_values(handlers))
    assert "<script" not in answers + layers
    assert "is &lt;b&gt;red&lt;/b&gt; &lt;script&gt;?" in answers


def test_the_pictures_have_a_legend_and_a_text_alternative(handlers):
    _, layers, *_ = handlers.answer(SCENE, QUESTION, NOTHING, 1, *start_values(handlers))
    assert all(line in layers for line in LEGEND.values())
    alternatives = re.findall(r'<img [^>]*alt="([^"]+)"', layers)
    assert len(alternatives) == 3
    assert "of 36 patches" in alternatives[1]
    assert 'download="layers.png"' in layers


def test_times_come_in_a_second_step(handlers, monkeypatch):
    monkeypatch.setattr(asker_module, "SECONDS", 0.0)
    table = handlers.time(KNOWN, SCENE, QUESTION, SAME_WEIGHTS, 2, *start_values(handlers))
    assert "time for a batch of 2" in table
    assert "| reduced | 0.5 | " in table
    assert "| unreduced | 1.25 | " in table
    assert "Medians of 5 forward passes after 2 to warm up" in table


@pytest.mark.parametrize("full", [None, 1.25])
def test_a_measurement_gives_way_to_a_question_and_says_so_once(handlers, monkeypatch, full):
    monkeypatch.setattr(handlers.asker, "measure", lambda *args: None)
    table = handlers.time({**KNOWN, "full_gflops": full}, SCENE, QUESTION, NOTHING, 2, 0.2, 0.3, 0.2)
    assert "| reduced | 0.5 |" in table
    assert table.count("not measured, as another question came first") == 1
    assert "ms" not in table
    assert " time for" not in table


def test_a_table_of_costs():
    table = costs(KNOWN, Times(8, 7, seconds=0.0123, full_seconds=0.0246))
    assert "| reduced | 0.5 | 12.3 ms |" in table
    assert "| unreduced | 1.25 | 24.6 ms |" in table
    assert "**2.00 times as fast as the unreduced model.**" in table
    assert "Medians of 7" in table
    alone = costs({**KNOWN, "full_gflops": None}, Times(8, 7, seconds=1.23, full_seconds=None))
    assert "unreduced" not in alone
    assert "| reduced | 0.5 | 1.23 s |" in alone


@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_ratios_of_zero_say_why_the_costs_differ(backbone):
    handlers = Handlers(Asker(*tiny(backbone)))
    *_, table, known, _ = handlers.answer(SCENE, QUESTION, SAME_WEIGHTS, 1, 0.0, 0.0, 0.0)
    assert known["removed"] == 0
    assert known["answers"] == pytest.approx(known["full_answers"], abs=1e-5)
    assert known["gflops"] > known["full_gflops"]
    assert "No token is removed" in table
    assert f"{known['gflops'] - known['full_gflops']:.2g} GFLOPs more" in table
    *_, table, _, _ = handlers.answer(SCENE, QUESTION, SAME_WEIGHTS, 1, *start_values(handlers))
    assert "No token is removed" not in table


def test_what_is_wrong_with_a_picture_is_said_in_place_of_answers(handlers, gradio, tmp_path):
    Image.new("F", (48, 48), 200).save(tmp_path / "a.tif")
    (tmp_path / "a.png").write_text("I am no picture")
    for name, reason in {"a.tif": "its values are in [200, 200]", "a.png": "it is in no format"}.items():
        found = handlers.answer(str(tmp_path / name), QUESTION, NOTHING, 1, *start_values(handlers))
        assert f"{name}: {reason}" in found[0]
        assert 'role="alert"' in found[0]
        assert str(tmp_path) not in found[0]
        assert found[1:] == ("", "", "", None, None)
        assert handlers.check(str(tmp_path / name)) == found[0]
    SCENE.save(tmp_path / "b.png")
    assert handlers.check(str(tmp_path / "b.png")) == handlers.check(None) == gradio.skip()


@pytest.mark.parametrize("value", [None, 5, "a"])
def test_what_is_wrong_with_a_number_is_said_in_place_of_answers(value, handlers):
    message, *rest = handlers.answer(SCENE, QUESTION, NOTHING, 1, value, 0.3, 0.2)
    assert f"prune_ratio={value}: must be a number in [0, 0.63]" in message
    assert rest == ["", "", "", None, None]


@pytest.mark.parametrize(("image", "text"), [(None, QUESTION), (SCENE, None), (SCENE, "  ")])
def test_nothing_is_asked_without_image_and_text(image, text, handlers):
    message, *rest = handlers.answer(image, text, NOTHING, 1, 0.1, 0.1, 0.1)
    assert HINT in message
    assert rest == ["", "", "", None, None]
    assert handlers.time(None, image, text, NOTHING, 1, 0.1, 0.1, 0.1) == ""


def test_gradio_hands_over_whatever_was_given(gradio, tmp_path):
    """It would fail on what is no picture or no number, with an error for each part of the page."""
    asker = Asker(*tiny("vilt"))
    with build_page(asker, "tiny") as page:
        parts = {part.elem_id: part for part in page.blocks.values()}
    (tmp_path / "a.png").write_text("I am no picture")
    payload = gradio.data_classes.ImageData(path=str(tmp_path / "a.png"), orig_name="a.png")
    assert parts["image"].preprocess(payload) == str(tmp_path / "a.png")
    assert parts["image"].preprocess(None) is None
    assert (
        parts["image"].preprocess(gradio.data_classes.ImageData(url="data:image/png;base64,AA==")).startswith("data:")
    )
    assert parts["image"].preprocess(gradio.data_classes.ImageData(url="http://127.0.0.1/a.png")) is None
    assert parts["prune_ratio"].preprocess(None) is None
    assert parts["prune_ratio"].maximum == 0.63
    assert parts["image_merge_ratio"].maximum == parts["text_merge_ratio"].maximum == 0.5


def test_another_picture_stops_what_is_said_of_the_one_before(gradio):
    asker = Asker(*tiny("vilt"))
    page = build_page(asker, "tiny", [(SCENE, QUESTION)])
    image = next(number for number, part in page.blocks.items() if part.elem_id == "image")
    spoken = {number for number, event in page.fns.items() if event.name in ("answer", "time")}
    assert len(spoken) == 4
    for happens in ("upload", "clear"):
        events = [event for event in page.fns.values() if (image, happens) in event.targets]
        assert spoken == {number for event in events for number in event.cancels}
        (shown,) = [event.js for event in events if isinstance(event.js, str)]
        assert json.loads(shown.removeprefix("() => "))[1:] == ["", "", ""]


CHOICE = {"method": "lookahead", "site": "inputs", "keep_ratio": 0.25, "rank": 8}
TOWER = {"method": "tome", "site": "tower", "merge_ratio": 0.1}


def test_each_part_of_a_schedule_has_its_sliders(gradio):
    asker = Asker(*tiny("meter", reduction=[CHOICE, REDUCTION, TOWER]))
    page = build_page(asker, "model")
    parts = {part["props"].get("elem_id"): part["props"] for part in page.get_config_file()["components"]}
    assert parts["inputs_keep_ratio"]["label"] == "Keep ratio, before the first layer"
    assert [parts["inputs_keep_ratio"][name] for name in ("minimum", "value", "maximum")] == [0.005, 0.25, 1.0]
    assert parts["tower_merge_ratio"]["label"] == "Merge ratio, in the image tower"
    assert parts["prune_ratio"]["label"] == "Prune ratio, the mean over the layers"
    assert [parts["faster"][name] for name in ("minimum", "value", "maximum")] == [0, 1, 2.0]
    handlers = Handlers(asker)
    start = start_values(handlers)
    assert handlers.schedule(start) == asker.schedule
    assert handlers.speed(1) == handlers.speed(None) == start
    assert handlers.schedule(handlers.speed(0)).at("inputs").keep_ratio == 1.0
    assert handlers.schedule([0.1, 0.5, *start[2:]]).at("inputs").keep_ratio == 0.5
    steps = handlers.answer(SCENE, QUESTION, NOTHING, 1, *start)[2]
    assert "<b>Before the first layer</b> (asked for: keep 0.25)" in steps
    assert "<b>Image tower, layer 0</b> (asked for: merge 0.1)" in steps
    assert "This model has layers in its image tower that merge similar tokens" in introduction(asker)
    assert "It also has a step before its first layer, to drop the patches" in introduction(asker)


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
        (["--port", "99999"], "--port 99999: "),
        (["--port", "0"], "--port 0: "),
        (["--port", "-1"], "--port -1: "),
        (["--host", "not a host"], "--host not a host: "),
        (["--host", "192.0.2.1", "--port", "7999"], "--host 192.0.2.1 --port 7999: "),
    ],
)
def test_an_address_where_nothing_can_be_served_is_refused_before_the_work(flags, message, gradio, capsys):
    assert main(["demo", "no/such/model", *flags]) == 2
    captured = capsys.readouterr()
    assert f"pumer-hf demo: error: {message}" in captured.err
    assert "Traceback" not in captured.err


def test_without_host_and_port_the_error_says_where(monkeypatch):
    def refuse(*_, **__):
        raise OSError(99, "Cannot assign requested address")

    monkeypatch.setattr("pumer_hf.demo.launching.socket.create_server", refuse)
    with pytest.raises(ValueError, match=r"^127\.0\.0\.1: .*Cannot assign"):
        check_address(None, None)


def test_a_port_in_use_is_refused(gradio, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert main(["demo", "no/such/model", "--port", port]) == 2
    assert re.search(f"--port {port}: .*Address already in use", capsys.readouterr().err)
