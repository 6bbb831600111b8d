"""`PuMerViltConfig`: the config of stock ViLT, and how tokens are reduced."""

from typing import Any, ClassVar

from transformers import ViltConfig

from ....configuration import PuMerConfig


class PuMerViltConfig(PuMerConfig, ViltConfig):
    """[`ViltConfig`] with `reduction`, `semantics` and `pooled_only` ([`PuMerConfig`]).

    It also reads the `config.json` of a stock ViLT.

    Args:
        text_layer_norm_eps: epsilon in the LayerNorm of the text embeddings; default: `layer_norm_eps`. Original ViLT
            has 1e-12 here and 1e-6 everywhere else.
    """

    model_type = "pumer_vilt"
    keys_to_ignore_at_inference: ClassVar = ["hidden_states", "attentions", "reduction"]

    text_layer_norm_eps: float | None = None

    @property
    def max_patches(self) -> int | None:
        return self.max_image_length if self.max_image_length > 0 else None

    @property
    def num_patches(self) -> int:
        (height, width), (rows, columns) = as_size(self.image_size), as_size(self.patch_size)
        number = (height // rows) * (width // columns)
        return number if self.max_patches is None else min(number, self.max_patches)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") == ViltConfig.model_type:
            config_dict = {**config_dict, "model_type": cls.model_type}
        return config_dict, kwargs


def as_size(value: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Return a size as (height, width)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])
