"""Several parts of a schedule at one site of a model, each in layers of its own."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..tokens import Evidence, LayerTrace, TokenPair
from .base import SITES, ReductionConfig, TokenReducer


@dataclass(frozen=True)
class SeveralConfig(ReductionConfig):
    """The parts that work at one site.

    Args:
        members: the parts. Each names its layers, and no layer is named twice.
    """

    method: ClassVar[str] = "several"
    sites: ClassVar[tuple[str, ...]] = SITES

    members: tuple[ReductionConfig, ...]

    @classmethod
    def of(cls, members: Sequence[ReductionConfig]) -> "SeveralConfig":
        """Join parts of the same site.

        Raises:
            ValueError: a part does not name its layers, or two parts name the same layer.
        """
        site = members[0].site
        layers = Counter(layer for part in members for layer in part.layers)
        twice = [layer for layer, times in layers.items() if times > 1]
        if twice or not all(part.layers for part in members):
            found = f"layer {twice[0]} twice" if twice else "no layers in one of them"
            raise ValueError(
                f"reduction.site={site!r} stands in {len(members)} schedules, which name {found}: give one schedule "
                "per site, or several that each name other layers"
            )
        return cls(tuple(sorted(layers)), tuple(members), site=site)

    @property
    def parts(self) -> tuple[ReductionConfig, ...]:
        return self.members


class SeveralReducer(TokenReducer):
    """Passes each layer to the reducer of its part.

    The modules of the reducers are children of this one, with the names that they have in a reducer alone. So the
    names of saved weights do not depend on how many parts a site has.

    Args:
        reducers: one for each part, of which at most one has weights.

    Raises:
        ValueError: several of them have weights.
    """

    config_class = SeveralConfig
    summary = "work in several ways"
    paper = "several papers"

    def __init__(self, reducers: Sequence[TokenReducer]):
        super().__init__(SeveralConfig.of([reducer.config for reducer in reducers]), 0)
        self.reducers = tuple(reducers)  # a tuple does not register them as children
        learning = [reducer for reducer in reducers if next(reducer.children(), None) is not None]
        if len(learning) > 1:
            methods = ", ".join(repr(reducer.config.method) for reducer in learning)
            raise ValueError(f"reduction.method: {methods} at one site have weights: use only one such part at a site")
        for reducer in learning:
            for name, child in reducer.named_children():
                self.add_module(name, child)
        self.uses_prior = any(reducer.uses_prior for reducer in reducers)
        self.uses_attention = any(reducer.uses_attention for reducer in reducers)
        self.uses_text = any(reducer.uses_text for reducer in reducers)
        self.learns = any(reducer.learns for reducer in reducers)
        self.learns_apart = any(reducer.learns_apart for reducer in reducers)

    @property
    def parts(self) -> tuple[TokenReducer, ...]:
        return self.reducers

    def at(self, layer: int) -> TokenReducer:
        return next(reducer for reducer in self.reducers if reducer.config.reduces(layer))

    def accepts(self, config: ReductionConfig) -> bool:
        """Return whether each reducer can be reused with the part of its place."""
        if len(config.parts) != len(self.reducers):
            return False
        return all(reducer.accepts(part) for reducer, part in zip(self.reducers, config.parts, strict=True))

    def use(self, config: ReductionConfig) -> None:
        super().use(config)
        for reducer, part in zip(self.reducers, config.parts, strict=True):
            reducer.use(part)

    def train(self, mode: bool = True) -> "SeveralReducer":
        for reducer in self.reducers:
            reducer.train(mode)
        return super().train(mode)

    def output_lengths(self, layer: int, num_text: int, num_image: int) -> tuple[int, int]:
        return self.at(layer).output_lengths(layer, num_text, num_image)

    def num_keep(self, layer: int, num_image: int) -> int:
        return self.at(layer).num_keep(layer, num_image)

    def forward(self, layer: int, pair: TokenPair, evidence: Evidence) -> tuple[TokenPair, LayerTrace]:
        return self.at(layer)(layer, pair, evidence)


def joined(reducers: Sequence[TokenReducer]) -> TokenReducer | None:
    """Return the reducer of a site from those of its parts; None if there is no part."""
    return SeveralReducer(reducers) if len(reducers) > 1 else next(iter(reducers), None)
