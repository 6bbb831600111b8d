"""Decoder models of ours and of transformers read each other's folders."""

import json

import pytest
import torch
from models.decoders.oracle import NAMES, stock
from models.decoders.tiny import ONE, TWO, tiny_inputs, tiny_model
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText

from pumer_hf.models.families import DECODERS

PUMER = {"method": "pumer", "site": "inputs", "keep_ratio": 0.3}
PROMPTS = [[5, 6, ONE, 7], [8, ONE, 9, 9, TWO, 3]]
GREEDY = {"max_new_tokens": 4, "do_sample": False}


def weight_names(folder):
    names = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    return names


def without_the_class(folder):
    config = json.loads((folder / "config.json").read_text())
    for key in ("model_type", "architectures", "auto_map", "reduction"):
        config.pop(key, None)
    return config


@pytest.mark.parametrize("name", NAMES)
def test_folders(name, tmp_path):
    row = DECODERS[name]
    inputs = tiny_inputs(stock(name), name, PROMPTS)
    model = tiny_model(name, ours=True, reduction=PUMER)
    assert isinstance(model, row.stock_class)
    assert type(model).__name__ == f"PuMer{row.stock_class.__name__}"
    assert model.state_dict().keys() == stock(name).state_dict().keys()
    expected = model.generate(**inputs, **GREEDY)

    # a folder of ours, through the Auto classes
    model.save_pretrained(tmp_path / "ours")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours")
    assert type(loaded) is row.model_class
    assert loaded.reduction == model.reduction
    assert torch.equal(loaded.generate(**inputs, **GREEDY), expected)
    assert AutoConfig.from_pretrained(tmp_path / "ours").model_type == f"pumer_{row.stock_type}"

    # a folder of the stock class, whose weights may have older names
    stock(name).save_pretrained(tmp_path / "stock")
    assert weight_names(tmp_path / "ours") == weight_names(tmp_path / "stock")
    found, info = row.model_class.from_pretrained(tmp_path / "stock", reduction=PUMER, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(found.generate(**inputs, **GREEDY), expected)
    assert found.config.reduction == model.config.reduction
    whole = row.model_class.from_pretrained(tmp_path / "stock")
    assert whole.reduction is None
    assert torch.equal(whole.generate(**inputs, **GREEDY), stock(name).generate(**inputs, **GREEDY))

    # our folder in the stock class, by one line of its config
    assert without_the_class(tmp_path / "ours") == without_the_class(tmp_path / "stock")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps({**config, "model_type": row.stock_type}))
    back = row.stock_class.from_pretrained(tmp_path / "ours")
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path / "ours")) is row.stock_class
    assert torch.equal(back.generate(**inputs, **GREEDY), stock(name).generate(**inputs, **GREEDY))


def test_old_names_of_weights_are_converted(tmp_path):
    from safetensors.torch import save_file

    model = tiny_model("llava")
    model.save_pretrained(tmp_path)
    old = {}
    for key, value in model.state_dict().items():
        key = key.replace("model.language_model.", "language_model.model.").replace(
            "lm_head.", "language_model.lm_head."
        )
        key = key.replace("model.vision_tower.", "vision_tower.vision_model.")
        old[key.replace("model.multi_modal_projector.", "multi_modal_projector.")] = value.contiguous()
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    plain, info = DECODERS["llava"].stock_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"], "the old names are right"
    found, info = DECODERS["llava"].model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    for key, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)


def test_a_changed_schedule_is_saved(tmp_path):
    model = tiny_model("llava", ours=True, reduction=PUMER)
    model.set_reduction({"method": "grid", "site": "inputs", "num_keep": 4})
    model.save_pretrained(tmp_path)
    loaded = DECODERS["llava"].model_class.from_pretrained(tmp_path)
    assert loaded.config.reduction == {"method": "grid", "site": "inputs", "num_keep": 4}
    assert json.loads((tmp_path / "config.json").read_text())["reduction"] == loaded.config.reduction


def test_layers_on_disk(tmp_path):
    pytest.importorskip("accelerate", reason="device_map needs accelerate")
    model = tiny_model("llava", ours=True, reduction=PUMER)
    inputs = tiny_inputs(stock("llava"), "llava", PROMPTS)
    expected = model.generate(**inputs, **GREEDY)
    model.save_pretrained(tmp_path / "model")
    places = {"model.vision_tower": "cpu", "model.multi_modal_projector": "disk", "model.language_model": "disk"}
    spread = type(model).from_pretrained(
        tmp_path / "model", device_map={**places, "lm_head": "cpu"}, offload_folder=tmp_path / "disk"
    )
    assert torch.equal(spread.generate(**inputs, **GREEDY), expected)
