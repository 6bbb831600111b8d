"""`ReducedDecoder`: what our classes of decoder models add to those of transformers."""

from functools import wraps
from typing import Any, ClassVar

import torch
from torch import nn

from ...configuration import ReductionHolder
from ...reducers import ReductionConfig, Schedule, TokenReducer, build_reducer
from ...reducers.base import HasInit, Layout
from ..reducible import ReducibleModel
from ..reduction import ReducerHost, Reduction
from .budget import DecoderCounter
from .calls import ReducedCalls, Watch
from .family import DecoderFamily
from .hooks import install_hooks


class DecoderConfig(ReductionHolder):
    """What our configs of decoder models add to those of transformers: `reduction`.

    They also read the `config.json` of the stock model.
    """

    keys_to_ignore_at_inference: ClassVar = ["past_key_values", "cache", "reduction", "labels"]
    family: ClassVar[DecoderFamily]

    @property
    def sites(self) -> dict[str, int]:
        """The sites at which the model can reduce tokens, and how many layers each has."""
        return self.family.sites_of(self)

    @property
    def layout(self) -> Layout:
        return self.family.layout(self)

    def check_schedule(self, schedule: Schedule) -> None:
        self.family.check_schedule(self, schedule)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if f"pumer_{config_dict.get('model_type')}" == cls.model_type:
            config_dict = {**config_dict, "model_type": cls.model_type}
        return config_dict, kwargs


class LayersSite(nn.Module):
    """Holds what reduces tokens inside the decoder.

    Args:
        config: the config of the text model.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.config = config
        self.reducer: TokenReducer | None = None


class ReducedDecoder(ReducibleModel):
    """What our classes of decoder models add to those of transformers. It comes first among their bases.

    Image tokens are reduced before the decoder, inside it, or both. `forward` and `generate` are transformers' own.
    The output of `generate` begins with the whole prompt. Outputs have `reduction`, an [`ImageTrace`] for each image
    and each place where tokens were reduced. If labels are given, outputs also have `labels`, those of the columns
    that the decoder got, in the order of `logits`. Without a schedule or an image, the model is the stock one.
    """

    family: ClassVar[DecoderFamily]
    watch: Watch | None = None
    """What is called with the traces of each call that reduced tokens."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any):
        super().__init__(config, *args, **kwargs)
        self.reducer: TokenReducer | None = None
        self.layers_site = LayersSite(self.config.get_text_config())
        if "layers" in self.config.sites:
            install_hooks(self)
        self.token_reduction.build()

    def __init_subclass__(cls, **kwargs: Any):
        # so that whoever looks at the signatures (`generate`, the Trainer) sees those of transformers' own methods
        super().__init_subclass__(**kwargs)
        for name in ("forward", "generate"):
            setattr(cls, name, _reduced_method(getattr(super(ReducibleModel, cls), name), name))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HasInit):
            module.reset()

    @property
    def calls(self) -> ReducedCalls:
        """The methods with fewer image tokens."""
        return ReducedCalls(self.family, self, lambda: self.token_reduction.reducers, self.watch)

    @property
    def token_reduction(self) -> Reduction:
        return Reduction(self)

    def reducer_hosts(self) -> dict[str, ReducerHost]:
        return {"inputs": self, "layers": self.layers_site}

    def make_reducer(self, part: ReductionConfig) -> TokenReducer:
        return build_reducer(part, self.config.get_text_config().hidden_size, in_decoder=True)

    def flops_counter(self) -> DecoderCounter:
        return DecoderCounter(self, self.family, self.token_reduction.using)


def _reduced_method(stock: Any, name: str) -> Any:
    @wraps(stock)
    def method(self: ReducedDecoder, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.calls, name)(stock.__get__(self), *args, **kwargs)

    return method
