"""`pipeline("image-text-to-text")` and chat templates, with our class and with a stock model inside `reduced`."""

import pytest
import torch
from PIL import Image
from tiny_llava import CHAT_TEMPLATE, save_tiny_llava
from transformers import AutoProcessor, LlavaForConditionalGeneration, pipeline

from pumer_hf import PuMerLlavaForConditionalGeneration, reduced

PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.25}
GREEDY = {"max_new_tokens": 6, "do_sample": False}
QUESTIONS = ("what digit is red?", "red?")
PROMPTS = [f"<image> user: {question} assistant:" for question in QUESTIONS]
SPREAD = 12.0
"""What the first weights are multiplied by, so that answers depend on the image tokens."""


@pytest.fixture(scope="module")
def stock_folder(tmp_path_factory):
    """A folder of transformers' class, with a processor that has a chat template."""
    folder = tmp_path_factory.mktemp("llava") / "stock"
    torch.manual_seed(1)
    save_tiny_llava(folder, chat_template=CHAT_TEMPLATE)
    model = LlavaForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(SPREAD if parameter.ndim > 1 else 1)
    model.generation_config.eos_token_id = None  # every answer has all its tokens
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(stock_folder):
    return PuMerLlavaForConditionalGeneration.from_pretrained(stock_folder, reduction=PUMER).eval()


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    """A folder of our class."""
    folder = tmp_path_factory.mktemp("llava") / "ours"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def processor(stock_folder):
    return AutoProcessor.from_pretrained(stock_folder)


@pytest.fixture(scope="module")
def pictures():
    values = torch.randint(0, 256, (2, 48, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return [Image.fromarray(value.numpy()) for value in values]


@pytest.fixture(params=("instance", "folder"))
def pipe(request, folder, model, processor):
    """The pipeline with our class, made from a model or from the name of its folder."""
    if request.param == "folder":
        return pipeline("image-text-to-text", model=folder)
    return pipeline("image-text-to-text", model=model, processor=processor)


def chats(pictures):
    return [
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}],
            }
        ]
        for picture, question in zip(pictures, QUESTIONS, strict=True)
    ]


def answers(model, processor, inputs):
    """The words that `generate` adds to each prompt."""
    new = model.generate(**inputs, **GREEDY)[:, inputs["input_ids"].shape[1] :]
    return processor.batch_decode(new, skip_special_tokens=True)


def prompted(processor, pictures, texts):
    return processor(images=pictures, text=texts, padding=True, return_tensors="pt")


@pytest.fixture(scope="module")
def expected(model, processor, pictures):
    """The reduced answers. The reduction changes them, else the tests below could not tell."""
    both = prompted(processor, pictures, PROMPTS)
    found = answers(model, processor, both)
    with model.token_reduction.using({}):
        assert all(a != b for a, b in zip(found, answers(model, processor, both), strict=True))
    return found


def test_plain_prompts(pipe, processor, pictures, expected):
    assert type(pipe.model) is PuMerLlavaForConditionalGeneration
    for picture, prompt, answer in zip(pictures, PROMPTS, expected, strict=True):
        (one,) = pipe(images=picture, text=prompt, generate_kwargs=GREEDY)
        assert one["generated_text"].startswith(prompt)
        assert one["generated_text"].removeprefix(prompt).strip() == answer
    batch = pipe(images=[[picture] for picture in pictures], text=PROMPTS, batch_size=2, generate_kwargs=GREEDY)
    assert [one["generated_text"].removeprefix(prompt).strip() for one, prompt in zip(batch, PROMPTS)] == expected


def test_chats(pipe, pictures, expected):
    given = chats(pictures)
    (one,) = pipe(text=given[0], generate_kwargs=GREEDY)
    assert one["generated_text"][-1] == {"role": "assistant", "content": one["generated_text"][-1]["content"]}
    assert one["generated_text"][-1]["content"].strip() == expected[0]
    found = pipe(text=given, return_full_text=False, generate_kwargs=GREEDY)
    assert [one["generated_text"].strip() for (one,) in found] == expected


def test_several_images_in_a_chat(pipe, model, processor, pictures):
    content = [*({"type": "image", "image": picture} for picture in pictures), {"type": "text", "text": "red?"}]
    (one,) = pipe(text=[{"role": "user", "content": content}], return_full_text=False, generate_kwargs=GREEDY)
    inputs = prompted(processor, pictures, ["<image> <image> user: red? assistant:"])
    assert [one["generated_text"].strip()] == answers(model, processor, inputs)


def test_a_chat_without_an_image_is_that_of_the_stock_model(pipe, stock_folder, processor):
    (one,) = pipe(
        text=[{"role": "user", "content": [{"type": "text", "text": "red?"}]}],
        return_full_text=False,
        generate_kwargs=GREEDY,
    )
    inputs = processor(text=["user: red? assistant:"], return_tensors="pt")
    stock = LlavaForConditionalGeneration.from_pretrained(stock_folder).eval()
    assert [one["generated_text"].strip()] == answers(stock, processor, inputs)


def test_tokenized_chats(model, processor, pictures, expected):
    inputs = processor.apply_chat_template(
        chats(pictures),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    assert answers(model, processor, inputs) == expected


def test_a_stock_model_inside_reduced(stock_folder, processor, pictures, expected):
    stock = LlavaForConditionalGeneration.from_pretrained(stock_folder).eval()
    pipe = pipeline("image-text-to-text", model=stock, processor=processor)
    unreduced = answers(stock, processor, prompted(processor, pictures, PROMPTS))
    with reduced(stock, PUMER) as traces:
        chat = pipe(text=chats(pictures), return_full_text=False, generate_kwargs=GREEDY)
        (plain,) = pipe(images=pictures[0], text=PROMPTS[0], return_full_text=False, generate_kwargs=GREEDY)
    assert [one["generated_text"].strip() for (one,) in chat] == expected
    assert plain["generated_text"].strip() == expected[0]
    assert [len(one.kept) for call in traces for one in call] == [9, 9, 9]
    after = pipe(text=chats(pictures), return_full_text=False, generate_kwargs=GREEDY)
    assert [one["generated_text"].strip() for (one,) in after] == unreduced
