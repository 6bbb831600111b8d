"""`pumer-hf generate`."""

import json

import pytest
import torch
from PIL import Image
from tiny_tasks import save_tiny
from transformers import AutoProcessor

from pumer_hf.answering import answer_checkpoint, ask, prompt_inputs
from pumer_hf.cli import main
from pumer_hf.models.decoder_loading import load_decoder
from pumer_hf.recipes.small_llava import new_llava

TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**TOWER, "image_size": 24, "patch_size": 4}
SCHEDULE = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endfor %} answer"
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model, processor = new_llava(VISION, TOWER, ["what is it? a red digit, answer"], 0.5, 0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "picture.png"
    Image.linear_gradient("L").resize((30, 20)).save(path)
    return str(path)


def stock_text(checkpoint, picture, new_tokens):
    model = load_decoder(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = prompt_inputs(model, processor, Image.open(picture).convert("RGB"), "what is it?")
    tokens = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_an_answer_streams_with_its_tokens_and_seconds(checkpoint, picture, capsys):
    words = ["--reduction", json.dumps(SCHEDULE), "--compare", "--max-new-tokens", "5"]
    assert main(["generate", checkpoint, picture, "what is it?", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[3]] == ["reduced by pumer:", "unreduced:"]
    assert "9 of 36 image tokens" in lines[2]
    assert "all 36 image tokens" in lines[5]
    assert lines[4].strip() == stock_text(checkpoint, picture, 5).strip()


def test_without_a_schedule_the_model_answers_unreduced(checkpoint, picture):
    answers = answer_checkpoint(checkpoint, picture, "what is it?", max_new_tokens=3)
    assert list(answers) == ["unreduced"]
    answer = answers["unreduced"]
    assert answer.image_tokens == 36
    assert 1 <= answer.new_tokens <= 3
    assert 0 < answer.first_token <= answer.seconds


def test_keeping_all_gives_the_same_answer(checkpoint, picture):
    all_kept = {"method": "diverse", "site": "inputs", "keep_ratio": 1.0}
    answers = answer_checkpoint(checkpoint, picture, "what is it?", reduction=all_kept, compare=True, max_new_tokens=5)
    assert answers["reduced"].text == answers["unreduced"].text
    assert answers["reduced"].image_tokens == 36


def test_an_answer_that_is_not_wanted_any_more_is_interrupted(checkpoint, picture):
    model, processor = load_decoder(checkpoint, SCHEDULE), AutoProcessor.from_pretrained(checkpoint)
    inputs = prompt_inputs(model, processor, Image.open(picture).convert("RGB"), "what is it?")
    asked = iter([False, False, True])
    with pytest.raises(InterruptedError):
        ask(model, processor, inputs, 9, stops=lambda: next(asked))
    assert model.watch is None
    answer = ask(model, processor, inputs, 2)  # the model is as it was
    assert answer.kept == "9 of 36 image tokens"
    assert [len(trace.kept) for trace in answer.traces] == [9]


def test_the_chat_template_makes_the_prompt(checkpoint, picture):
    model, processor = load_decoder(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    image = Image.open(picture).convert("RGB")
    plain = prompt_inputs(model, processor, image, "what is it?")["input_ids"]
    processor.chat_template = TEMPLATE
    chat = prompt_inputs(model, processor, image, "what is it?")["input_ids"]
    answer = processor.tokenizer.convert_tokens_to_ids("answer")
    assert chat.tolist() == [[*plain[0].tolist(), answer]]


def test_a_template_that_writes_the_first_token_gets_no_second_one(checkpoint, picture):
    model, processor = load_decoder(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    processor.chat_template = "<s>" + TEMPLATE
    ids = prompt_inputs(model, processor, Image.open(picture).convert("RGB"), "what is it?")["input_ids"][0].tolist()
    assert ids.count(processor.tokenizer.bos_token_id) == 1


def test_a_question_with_the_placeholder_is_the_whole_prompt(checkpoint, picture):
    model, processor = load_decoder(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    processor.chat_template = TEMPLATE
    image = Image.open(picture).convert("RGB")
    ids = prompt_inputs(model, processor, image, "what <image> is it?")["input_ids"][0].tolist()
    words = processor.tokenizer.convert_ids_to_tokens(ids)
    assert words == ["<s>", "what", *["<image>"] * 36, "is", "it", "?"]


def test_a_prompt_without_a_place_for_the_image_is_named(checkpoint, picture, tmp_path, capsys):
    processor = AutoProcessor.from_pretrained(checkpoint)
    processor.chat_template = "{{ messages[0]['content'][1]['text'] }}"
    load_decoder(checkpoint).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert main(["generate", str(tmp_path), picture, "what is it?"]) == 2
    assert "one image needs one placeholder: write <image>" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare"], "nothing to compare"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--dtype", "int8"], "dtype='int8'"),
        (["--device", "tpu"], "device='tpu'"),
        (["--reduction", "{"], "--reduction='{'"),
        (["--reduction", '{"method": "pumer", "layers": [1], "prune_ratio": 0.1}'], "reduction"),
    ],
)
def test_a_bad_argument_is_named(words, message, checkpoint, picture, capsys):
    assert main(["generate", checkpoint, picture, "what is it?", *words]) == 2
    assert message in capsys.readouterr().err


def test_what_is_no_image_is_named(checkpoint, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no picture")
    for name, message in (("notes.txt", "notes.txt: it is in no format"), ("nothing.png", "there is no such image")):
        assert main(["generate", checkpoint, str(tmp_path / name), "what is it?"]) == 2
        assert message in capsys.readouterr().err


def test_a_model_that_is_no_decoder_is_named(picture, tmp_path, capsys):
    folder = save_tiny(tmp_path / "model", "vilt")
    assert main(["generate", str(folder), picture, "what is it?"]) == 2
    error = capsys.readouterr().err
    assert "model_type='vilt'" in error or "model_type='pumer_vilt'" in error
    assert "LLaVA-1.5, LLaVA-NeXT" in error


def test_a_folder_without_a_processor_is_named(checkpoint, picture, tmp_path, capsys):
    load_decoder(checkpoint).save_pretrained(tmp_path)
    assert main(["generate", str(tmp_path), picture, "what is it?"]) == 2
    assert "processor" in capsys.readouterr().err
