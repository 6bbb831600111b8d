"""The page for decoders: what its controls do, and how it is put together."""

import json

import pytest
import torch
from tiny import noise
from tiny_llava import save_tiny_llava

import pumer_hf.demo
from pumer_hf.cli import main
from pumer_hf.demo import space
from pumer_hf.demo.decoder_asker import DecoderAsker
from pumer_hf.demo.decoder_page import DecoderHandlers, build_decoder_page
from pumer_hf.demo.kinds import DECODERS
from pumer_hf.demo.parts import HINT

SCHEDULE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
TEXT = "what digit is red?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return str(save_tiny_llava(tmp_path_factory.mktemp("model") / "llava"))


@pytest.fixture(scope="module")
def asker(checkpoint):
    return DecoderAsker.load(checkpoint, reduction=SCHEDULE)


@pytest.fixture
def handlers(asker, gradio):
    return DecoderHandlers(asker)


def shown(handlers, image=None, text=TEXT, method="pumer", ratio=0.25, compare=True, longest=4):
    """All that the page shows for a question, from the first moment to the last."""
    return list(handlers.answer(noise() if image is None else image, text, method, ratio, compare, longest))


def test_both_answers_with_their_tokens_and_seconds(handlers):
    states = shown(handlers)
    answers, _, facts = states[-1]
    assert "With fewer image tokens (pumer)" in answers
    assert "Unreduced" in answers
    assert "<dd>9 of 36</dd>" in answers
    assert "<dd>all 36</dd>" in answers
    assert answers.count("until the first token") == 2
    assert "times as fast as unreduced" in answers
    assert facts["reduced"]["image_tokens"] == 9
    assert facts["full"]["image_tokens"] == facts["full"]["all_image_tokens"] == 36
    assert facts["reduced"]["text"] in answers
    json.dumps(facts)


def test_the_pictures_are_sent_once(handlers, gradio):
    states = shown(handlers)
    drawn = [kept for _, kept, _ in states if isinstance(kept, str) and "<img" in kept]
    assert len(drawn) == 1
    assert drawn[0].count("<figure><img") == 2
    assert "before the decoder: 9 of 36 image tokens" in drawn[0]
    assert 'download="kept.png"' in drawn[0]
    assert states[0][1] == ""  # what was there before is gone at once


def test_without_comparison_there_is_one_card(handlers):
    answers, _, facts = shown(handlers, compare=False)[-1]
    assert answers.count('class="card"') == 1
    assert "Unreduced" not in answers
    assert facts["full"] is None


def test_another_method_and_another_part(handlers):
    answers, _, facts = shown(handlers, method="tome", ratio=0.5, longest=1)[-1]
    assert "(tome)" in answers
    assert "18 of 36" in answers
    assert (facts["method"], facts["reduced"]["new_tokens"]) == ("tome", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": None}, "keep_ratio=None"),
        ({"ratio": 5}, "keep_ratio=5"),
        ({"longest": None}, "most tokens=None: must be an integer in [1, "),
        ({"longest": 0}, "most tokens=0"),
        ({"method": "magic"}, "method=&#x27;magic&#x27;: choose one of"),
        ({"text": "<image> or <image>?"}, "one image needs one placeholder"),
    ],
)
def test_what_is_wrong_is_said_in_place_of_answers(change, message, handlers):
    answers, kept, facts = shown(handlers, **change)[-1]
    assert message in answers
    assert 'role="alert"' in answers
    assert (kept, facts) == ("", None)


def test_an_image_that_cannot_be_read_is_named_without_its_folder(handlers, tmp_path):
    (tmp_path / "a.png").write_text("I am no picture")
    answers, kept, facts = shown(handlers, image=str(tmp_path / "a.png"))[-1]
    assert "a.png: it is in no format" in answers
    assert str(tmp_path) not in answers
    assert (kept, facts) == ("", None)


@pytest.mark.parametrize(("image", "text"), [(None, TEXT), (noise(), None), (noise(), "  ")])
def test_nothing_is_asked_without_image_and_question(image, text, handlers):
    ((answers, kept, facts),) = handlers.answer(image, text, "pumer", 0.25, True, 4)
    assert HINT in answers
    assert (kept, facts) == ("", None)


def test_what_visitors_write_is_shown_as_they_wrote_it(handlers):
    for answers, kept, _ in shown(handlers, text="is <b>red</b> <script>?"):
        assert "<script" not in answers
        assert "<b>red" not in f"{answers}{kept}"
    assert "is &lt;b&gt;red&lt;/b&gt; &lt;script&gt;?" in answers


def test_another_picture_and_stop_end_the_answer(asker, gradio):
    page = build_decoder_page(asker, "tiny", [(noise(), TEXT)])
    parts = {part.elem_id: number for number, part in page.blocks.items()}
    answering = {number for number, event in page.fns.items() if event.name == "answer"}
    assert len(answering) == 2  # of the controls, and of the examples
    for happens in ((parts["image"], "upload"), (parts["image"], "clear"), (parts["stop"], "click")):
        events = [event for event in page.fns.values() if happens in event.targets]
        assert answering == {number for event in events for number in event.cancels}


def test_the_page_is_put_together(checkpoint, gradio, monkeypatch):
    launched = []
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: launched.append((page, options)))
    assert main(["demo", checkpoint, "--reduction", json.dumps(SCHEDULE)]) == 0
    page, _ = launched.pop()
    assert page.title == "PuMer: llava"
    assert not page.analytics_enabled
    parts = {part["props"].get("elem_id"): part["props"] for part in page.get_config_file()["components"]}
    assert parts["method"]["value"] == "pumer"
    assert [value for _, value in parts["method"]["choices"]][1:] == [
        *("tome", "random", "grid", "diverse", "relevant_diverse"),
    ]
    assert [parts["keep_ratio"][name] for name in ("minimum", "value", "maximum")] == [0.005, 0.25, 1.0]
    assert parts["compare"]["value"] is True


def test_an_unreduced_model_needs_a_schedule(checkpoint, gradio, capsys):
    assert main(["demo", checkpoint]) == 2
    assert "the model reduces no tokens: give a schedule, such as --reduction" in capsys.readouterr().err


def test_a_space_with_a_decoder(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "version", {"gradio": "6.1.2"}.__getitem__)
    noise().save(tmp_path / "a.png")
    (tmp_path / "examples.jsonl").write_text(json.dumps({"image": "a.png", "text": "what?"}))
    flags = ["--reduction", json.dumps(SCHEDULE), "--examples", str(tmp_path), "--export-space", str(tmp_path / "it")]
    assert main(["demo", checkpoint, *flags]) == 0
    launched = []
    monkeypatch.setattr(pumer_hf.demo, "launch", lambda **arguments: launched.append(arguments))
    monkeypatch.chdir(tmp_path / "it")
    exec(compile((tmp_path / "it" / "app.py").read_text(), "app.py", "exec"), {})
    assert launched == [{"checkpoint": "model", "name": "llava", "examples": "examples"}]
    asker = DECODERS.load("model")
    (part,) = asker.saved.parts
    assert (part.method, part.keep_ratio) == ("pumer", 0.25)
    assert [text for _, text in DECODERS.find_examples("examples", asker)] == ["what?"]


def test_examples_are_digit_scenes_or_come_from_a_folder(asker, tmp_path):
    assert DECODERS.find_examples(None, asker) == []  # it knows too few words
    scenes = DECODERS.find_examples("digit-scenes", asker)
    assert len(scenes) == 6
    assert all(image.size == (48, 48) for image, _ in scenes)
    noise().save(tmp_path / "a.png")
    (tmp_path / "examples.jsonl").write_text(json.dumps({"image": "a.png", "text": "what?"}))
    assert [text for _, text in DECODERS.find_examples(str(tmp_path), asker)] == ["what?"]
