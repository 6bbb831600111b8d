"""What the heads of both families take, and in which precision they score."""

import pytest
import torch
from PIL import Image as PILImage
from tiny_models import FAMILIES
from tiny_tasks import tiny
from torch.nn import functional as F

HEADS = ("model_class", "entailment_class", "retrieval_class", "images_class")
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def model_and_inputs(family, head):
    torch.manual_seed(0)
    several = {"num_images": 2, "modality_type_vocab_size": 3} if head == "images_class" else {}
    inputs = family.inputs()
    if several:
        for name in inputs.keys() & {"pixel_values", "pixel_mask"}:
            inputs[name] = torch.stack([inputs[name], inputs[name].flip(0)], dim=1)
    return getattr(family, head)(family.config(**several)).eval(), inputs


def last_layer(model):
    return model.rank_output if hasattr(model, "rank_output") else model.classifier[-1]


# precision


@each_family
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["autocast", "weights"])
def test_logits_are_computed_in_float32(family, head, weights):
    model, inputs = model_and_inputs(family, head)
    model, seen = model.to(weights), []
    inputs["pixel_values"] = inputs["pixel_values"].to(weights)
    layer = last_layer(model)
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=weights == torch.float32):
        logits = model(**inputs).logits
    assert seen[0].dtype == torch.bfloat16
    exact = F.linear(seen[0].double(), layer.weight.double(), layer.bias.double())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact.detach().view_as(logits), atol=1e-5, rtol=1e-5)


@each_family
def test_scores_of_different_candidates_do_not_tie_in_bfloat16(family):
    model, inputs = model_and_inputs(family, "retrieval_class")
    candidates = torch.randint(1, 40, (1, 200, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = model(input_ids=candidates, pixel_values=inputs["pixel_values"][:1]).logits
        assert len(scores.unique()) > 190


def test_encoded_pairs_are_scored_in_float32():
    model, inputs = model_and_inputs(FAMILIES["meter"], "retrieval_class")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        texts = model.encode_texts({name: inputs[name] for name in ("input_ids", "attention_mask")})
        scores = model.score(texts, model.encode_images({"pixel_values": inputs["pixel_values"]}))
        assert scores.dtype == torch.float32
        assert torch.equal(scores, model(**inputs).logits[:, 0])


def test_double_precision_stays():
    model, inputs = model_and_inputs(FAMILIES["vilt"], "retrieval_class")
    inputs["pixel_values"] = inputs["pixel_values"].double()
    assert model.double()(**inputs).logits.dtype == torch.float64


# inputs


@pytest.mark.parametrize("task", ["vqa", "snli_ve", "nlvr2", "retrieval"])
@pytest.mark.parametrize("backbone", ["vilt", "meter"])
def test_every_head_takes_all_that_its_processor_returns(backbone, task):
    model, processor = tiny(backbone, task)
    picture = PILImage.linear_gradient("L").convert("RGB").resize((48, 48))
    pictures = [picture, picture.rotate(90)][: 2 if task == "nlvr2" else 1]
    inputs = processor(images=pictures, text=["is there a red digit?"], return_tensors="pt")
    assert ("token_type_ids" in inputs) == (backbone == "vilt")
    if task == "nlvr2":
        inputs |= {name: value.unsqueeze(0) for name, value in inputs.items() if name.startswith("pixel")}
    least = {name: inputs[name] for name in ("input_ids", "pixel_values")}
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, model(**least).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_meter_takes_what_the_tokenizer_of_bert_and_the_images_of_vilt_add(head):
    model, inputs = model_and_inputs(FAMILIES["meter"], head)
    more = {
        "token_type_ids": torch.zeros_like(inputs["input_ids"]),
        "pixel_mask": torch.ones_like(inputs["pixel_values"].select(-3, 0), dtype=torch.long),
    }
    with torch.no_grad():
        assert torch.equal(model(**inputs, **more).logits, model(**inputs).logits)
    more["pixel_mask"][..., -1] = 0
    with pytest.raises(ValueError, match="pixel_mask .*zeros"):
        model(**inputs, **more)


@pytest.mark.parametrize("name", ["token_type_ids", "inputs_embeds"])
def test_candidates_have_segments_and_embeddings_of_their_own(name):
    model, inputs = model_and_inputs(FAMILIES["vilt"], "retrieval_class")
    generator = torch.Generator().manual_seed(0)
    ids, segments = (torch.randint(high, (3, 4, 9), generator=generator) for high in (40, 2))
    texts = {"input_ids": ids, "token_type_ids": segments}
    if name == "inputs_embeds":
        texts = {"inputs_embeds": model.get_input_embeddings()(ids), "token_type_ids": segments}
    with torch.no_grad():
        logits = model(**texts, pixel_values=inputs["pixel_values"]).logits
        assert logits.shape == (3, 4)
        for candidate in range(4):
            alone = {key: value[:, candidate] for key, value in texts.items()}
            one = model(**alone, pixel_values=inputs["pixel_values"]).logits
            torch.testing.assert_close(logits[:, candidate], one[:, 0], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(logits, model(input_ids=ids, pixel_values=inputs["pixel_values"]).logits)


def test_numbers_of_candidates_that_do_not_fit_are_named():
    model, inputs = model_and_inputs(FAMILIES["vilt"], "retrieval_class")
    with pytest.raises(ValueError, match="3 input_ids, 2 pixel_values"):
        model(
            input_ids=inputs["input_ids"].unsqueeze(1).expand(-1, 3, -1),
            pixel_values=inputs["pixel_values"].unsqueeze(1).expand(-1, 2, -1, -1, -1),
        )
