"""Which tokens stay inside a decoder: a loop over the stock layers, written from the papers, computes it all anew."""

import math

import pytest
import torch
from models.decoders.layers_oracle import pumer
from models.decoders.oracle import stock
from models.decoders.test_layers_oracles import deep
from models.decoders.tiny import IMAGE, ONE, TWO, tiny_inputs
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

PROMPTS = [[8, ONE, 9, 9, TWO, 3, 4, 11]], [[5, 6, ONE, 7]]


class Loop:
    """A stock model, layer by layer, with the tokens of one prompt that are left.

    Args:
        name: `"llava"` or `"qwen2_vl"`.
        inputs: one prompt.
    """

    def __init__(self, name, inputs):
        self.model, self.inputs = deep(name, False), inputs
        self.text = self.model.get_decoder()
        self.columns = list(range(inputs["input_ids"].shape[1]))
        self.is_image = (inputs["input_ids"][0] == IMAGE).tolist()
        last_image = max(column for column in self.columns if self.is_image[column])
        self.words = [column for column in self.columns if column > last_image]
        self.size = dict.fromkeys(self.columns, 1)
        self.sized = False
        self.holder = {column: column for column in self.columns if self.is_image[column]}

    def run(self, reduce):
        """The logits of what is left. After each layer, `reduce` may change what is left."""

        def begin(layer, args, kwargs):
            self.states, self.rope = args[0][0], kwargs["position_embeddings"]

        handle = self.text.layers[0].register_forward_pre_hook(begin, with_kwargs=True)
        self.model(**self.inputs)
        handle.remove()
        for index, layer in enumerate(self.text.layers):
            self.query, self.key = self.projected(layer)
            self.states = layer(
                self.states.unsqueeze(0), position_embeddings=self.taken_rope, attention_mask=self.mask[None, None]
            )[0]
            reduce(self, index)
        return self.model.lm_head(self.text.norm(self.states))

    @property
    def taken_rope(self):
        return tuple(part[..., self.columns, :] for part in self.rope)

    @property
    def mask(self):
        mask = torch.full((len(self.columns), len(self.columns)), -torch.inf).triu(1)
        return mask + torch.tensor([math.log(self.size[column]) for column in self.columns]) if self.sized else mask

    def projected(self, layer):
        """Queries and keys (heads, tokens, 8) of a layer."""
        states = layer.input_layernorm(self.states)
        query, key = (
            project(states).unflatten(-1, (-1, 8)).transpose(0, 1).unsqueeze(0)
            for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *self.taken_rope)  # the angles of M-RoPE are joined already
        return query[0], key[0]

    @property
    def images(self):
        """Places of the image tokens that are left."""
        return [place for place, column in enumerate(self.columns) if self.is_image[column]]

    def saliency(self, columns):
        """How much the words in some columns attend to each image token, in the mean of heads and words."""
        total = dict.fromkeys(self.images, 0.0)
        rows = [self.columns.index(column) for column in columns]
        for head, query in enumerate(self.query):
            scores = query @ self.key[head // 2].T / math.sqrt(8) + self.mask
            for row in rows:
                probabilities = scores[row].softmax(dim=0)
                for place in total:
                    total[place] += float(probabilities[place]) / len(self.query) / len(rows)
        return total

    def matched(self, order, number):
        """Pairs (source, target) of places. The even tokens of an order, whose token 0 is empty, look for odd ones."""
        keys = F.normalize(self.key.mean(dim=0), dim=-1)
        order = [None, *order]
        edges = []
        for source in order[2::2]:
            best = max(order[1::2], key=lambda target: float(keys[source] @ keys[target]))
            edges.append((float(keys[source] @ keys[best]), source, best))
        return [edge[1:] for edge in sorted(edges, reverse=True)[: min(number, len(order[:-1]) // 2)]]

    def leave(self, kept, pairs, sized=False):
        """Keep some image tokens, and merge those of the pairs. A merged one stands where its first one stood."""
        groups = {place: [place] for place in kept}
        for source, target in pairs:
            groups[target] += groups.pop(source)
        self.sized = self.sized or sized
        new = {place: (self.columns[place], self.states[place]) for place in range(len(self.columns))}
        for place in self.images:
            del new[place]
        moved = {}
        sizes = dict(self.size)
        for members in groups.values():
            weights = torch.tensor([float(self.size[self.columns[place]]) if self.sized else 1.0 for place in members])
            mean = (weights / weights.sum()) @ self.states[members]
            column = self.columns[min(members)]
            new[min(members)] = (column, mean)
            sizes[column] = sum(self.size[self.columns[place]] for place in members)
            moved |= {self.columns[place]: column for place in members}
        self.size = sizes
        self.holder = {column: moved.get(holder, -1) for column, holder in self.holder.items()}
        self.columns = [new[place][0] for place in sorted(new)]
        self.states = torch.stack([new[place][1] for place in sorted(new)])


def pumer_by_hand(loop, layers, prune, merge):
    def reduce(loop, index):
        if index not in layers:
            return
        number = len(loop.images)
        saliency = loop.saliency(loop.words)
        order = sorted(loop.images, key=lambda place: -saliency[place])[: number - round(prune * number)]
        loop.leave(order, loop.matched(order, round(merge * number)))

    return loop.run(reduce)


def tome_by_hand(loop, layers, merge):
    def reduce(loop, index):
        if index in layers:
            loop.leave(loop.images, loop.matched(loop.images, round(merge * len(loop.images))), sized=True)

    return loop.run(reduce)


def fastv_by_hand(loop, layers, prune):
    def reduce(loop, index):
        if index in layers:
            number = len(loop.images)
            saliency = loop.saliency(loop.words[-1:])
            order = sorted(loop.images, key=lambda place: -saliency[place])[: number - round(prune * number)]
            loop.leave(order, [])

    return loop.run(reduce)


@pytest.mark.parametrize(
    ("schedule", "by_hand", "given"),
    (
        (pumer(1, prune=0.5), pumer_by_hand, ((1,), 0.5, 0.0)),
        (pumer(0, prune=0.3, merge=0.3), pumer_by_hand, ((0,), 0.3, 0.3)),
        (pumer(2, prune=0.0, merge=0.9), pumer_by_hand, ((2,), 0.0, 0.9)),
        (pumer(0, 1, 3, prune=0.2, merge=0.2), pumer_by_hand, ((0, 1, 3), 0.2, 0.2)),
        ({"method": "tome", "layers": [1], "merge_ratio": 0.4}, tome_by_hand, ((1,), 0.4)),
        ({"method": "tome", "layers": [0, 1, 3], "merge_ratio": 0.3}, tome_by_hand, ((0, 1, 3), 0.3)),
        ({"method": "fastv", "layers": [1], "prune_ratio": 0.6}, fastv_by_hand, ((1,), 0.6)),
        ({"method": "pyramid", "layers": [0, 2], "prune_ratio": 0.4}, fastv_by_hand, ((0, 2), 0.4)),
    ),
    ids=("prune", "both", "merge", "cascade", "tome", "tome_cascade", "fastv", "pyramid"),
)
@pytest.mark.parametrize("name", ("llava", "qwen2_vl"))
@torch.no_grad()
def test_a_loop_over_the_stock_layers(name, schedule, by_hand, given):
    model = deep(name, True)
    model.set_reduction(schedule)
    for prompts in PROMPTS:
        inputs = tiny_inputs(stock(name), name, prompts)
        outputs = model(**inputs)
        loop = Loop(name, inputs)
        expected = by_hand(loop, *given)
        last = [trace for trace in outputs.reduction if trace.layer == given[0][-1]]
        found = {
            column: holder
            for trace in last
            for column, holder in zip(trace.columns.tolist(), trace.holder.tolist(), strict=True)
        }
        assert found == loop.holder
        torch.testing.assert_close(outputs.logits[0, loop.columns], expected, atol=1e-5, rtol=1e-5)
        gone = sorted(set(range(outputs.logits.shape[1])) - set(loop.columns))
        assert len(gone) > 10
        assert not outputs.logits[0, gone].any()
