"""How far a result is from attention in float64, on tiles drawn from every stream of the sequence."""

from __future__ import annotations

import math

import numpy
import torch

from core import GUIDANCE, IMAGE, TEXT

HEADS = 8
TILES_OF_STREAM = {TEXT: 2, IMAGE: 5, GUIDANCE: 1}  # of each of those heads: about 4,000 rows


def difference(pairs):
    """Over pairs of tensors (result, expected)."""
    sums = torch.zeros(6, dtype=torch.float64)
    for result, expected in pairs:
        result, expected = result.double(), expected.double()
        off = result - expected
        parts = (result * expected, result.square(), expected.square(), off.abs(), expected.abs(), off.square())
        sums += torch.stack([part.sum() for part in parts]).cpu()
    both, square, expected_square, off, expected, off_square = sums.tolist()
    return {"cosine": both / math.sqrt(square * expected_square), "relative_l1": off / expected,
            "relative_l2": math.sqrt(off_square / expected_square)}


class Reference:
    """Rows of the exact result; `head_of(head)` gives query, key, value of one head in float64."""

    def __init__(self, geometry, heads, head_of, seed=3):
        random = numpy.random.default_rng(seed)
        self._rows = []  # (head, first token, token after the last, [rows, head_dim])
        streams = geometry.tiles["stream"]
        for head in random.choice(heads, min(HEADS, heads), replace=False).tolist():
            query, key, value = head_of(head)
            for stream, count in TILES_OF_STREAM.items():
                of_stream = numpy.flatnonzero(streams == stream)
                for tile in random.choice(of_stream, min(count, len(of_stream)), replace=False).tolist():
                    first, end = geometry.tokens_of(tile, tile + 1)
                    listed = [geometry.tokens_of(*tiles) for tiles in geometry.ranges_of(tile)]
                    keys = torch.cat([key[slice(*tokens)] for tokens in listed])
                    values = torch.cat([value[slice(*tokens)] for tokens in listed])
                    scores = query[first:end] @ keys.T * key.shape[-1] ** -0.5
                    self._rows.append((head, first, end, scores.softmax(-1) @ values))

    def compare(self, output):
        """output [tokens, heads, head_dim] → how far it is from these rows, and the relative L1 of the worst tile"""
        pairs = [(output[first:end, head], exact) for head, first, end, exact in self._rows]
        worst = max(difference([pair])["relative_l1"] for pair in pairs)
        return {**difference(pairs), "worst_tile_l1": worst}
