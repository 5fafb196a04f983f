"""Queries, keys and values: drawn, or taken from a model."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

EPSILON = 1e-6
# One channel of the keys, one of the values, and one value channel of zeros, as in the core's own tests.
KEY_OUTLIER, VALUE_OUTLIER = 4, 30


@dataclass
class Inputs:
    query: torch.Tensor  # [tokens, heads, head_dim], bfloat16
    key: torch.Tensor
    value: torch.Tensor

    @classmethod
    def normal(cls, tokens, heads, head_dim, seed, device="cuda"):
        """As FLUX's projections leave them, in one tensor [tokens, 3, heads, head_dim]."""
        generator = torch.Generator(device).manual_seed(seed)
        shape = tokens, 3, heads, head_dim
        return cls(*torch.randn(shape, dtype=torch.bfloat16, device=device, generator=generator).unbind(1))

    def with_key_bias(self, strength=2):
        """A bias for each head and channel, `strength` times a normal number: what the smoothing of keys is for."""
        generator = torch.Generator(self.key.device).manual_seed(7)
        bias = torch.randn(self.key.shape[1:], device=self.key.device, generator=generator)
        return Inputs(self.query, (self.key + strength * bias).bfloat16(), self.value)

    def with_outliers(self):
        key, value = self.key.clone(), self.value.clone()
        key[..., 7] *= KEY_OUTLIER
        value[..., 9] *= VALUE_OUTLIER
        value[..., 11] = 0
        return Inputs(self.query, key, value)

    def bytes(self):
        return 3 * self.query.numel() * self.query.element_size()

    def head(self, head):
        """query, key, value of one head in float64: [tokens, head_dim]"""
        return tuple(tensor[:, head].double() for tensor in (self.query, self.key, self.value))


class Preparation:
    """RMSNorm of queries and keys, text by weights of its own, and the rotary embedding."""

    def __init__(self, tokens, text_tokens, head_dim, seed, device="cuda"):
        generator = torch.Generator(device).manual_seed(seed)
        self.epsilon = EPSILON
        # Near 1, so that what was normal stays so.
        self.weights = {name: (1 + torch.randn(head_dim, device=device, generator=generator) / 16).bfloat16()
                        for name in ("query_norm", "key_norm", "text_query_norm", "text_key_norm")}
        angle = 2 * math.pi * torch.rand(tokens, head_dim // 2, device=device, generator=generator)
        self.rotation = torch.stack((angle.cos(), angle.sin()), -1)  # [tokens, head_dim / 2, 2]
        self._text_tokens = text_tokens

    def __call__(self, inputs):
        """Normed and rotated in float32, rounded to bfloat16."""
        query, key = self._each_head(inputs.query, "query_norm"), self._each_head(inputs.key, "key_norm")
        return Inputs(query, key, inputs.value)

    def _each_head(self, tensor, weight):
        heads = [self._apply(tensor[:, head].float(), weight).bfloat16() for head in range(tensor.shape[1])]
        return torch.stack(heads, 1)

    def head(self, inputs, head):
        """query, key, value of one head, normed and rotated in float64: [tokens, head_dim]"""
        query, key, value = inputs.head(head)
        return self._apply(query, "query_norm"), self._apply(key, "key_norm"), value

    def _apply(self, rows, name):
        weight = self.weights[name].to(rows.dtype).repeat(len(rows), 1)
        weight[:self._text_tokens] = self.weights["text_" + name].to(rows.dtype)
        normed = rows * (rows.square().mean(-1, keepdim=True) + self.epsilon).rsqrt() * weight
        even, odd = normed[:, 0::2], normed[:, 1::2]
        cosine, sine = self.rotation.to(rows.dtype).unbind(-1)
        return torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), -1).flatten(1)


def read_recorded(path, device="cuda"):
    """Inputs and the geometry's options from a safetensors file of `tools/bench attention-inputs`."""
    data = Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    options = {name: int(value) for name, value in header.pop("__metadata__").items()}

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        dtype = {"F32": torch.float32, "BF16": torch.bfloat16}[header[name]["dtype"]]
        numbers = torch.frombuffer(bytearray(data[8 + size + begin:8 + size + end]), dtype=dtype)
        return numbers.reshape(header[name]["shape"]).to(device, torch.bfloat16)

    return Inputs(tensor("query"), tensor("key"), tensor("value")), options
