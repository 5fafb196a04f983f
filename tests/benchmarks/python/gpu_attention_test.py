"""What of the benchmark needs no GPU, with torch for CPUs:

    python3 tests/benchmarks/python/gpu_attention_test.py [LIBRARY]
"""

from __future__ import annotations

import ctypes
import sys
import unittest
from ctypes import byref, c_float, c_int32, c_size_t, c_void_p
from pathlib import Path

import numpy
import torch
from torch.nn.attention.flex_attention import flex_attention

from accuracy import Reference, difference
from core import GUIDANCE, IMAGE, TEXT, Core, Geometry, TensorView, check_structures, length, pointer
from gpu_attention import ROOT
from inputs import Inputs, Preparation
from peers import Slots, block_mask

LIBRARY = ROOT / "build/release/native/libscaledit.so"
CELL, WINDOW = 8, 16
FLOAT32 = 0


class AttentionArguments(ctypes.Structure):
    _fields_ = [("geometry", c_void_p), ("heads", c_int32), ("head_dim", c_int32), ("scale", c_float),
                ("arithmetic", c_int32), ("instruction_set", c_int32), ("threads", c_int32), ("query", TensorView),
                ("key", TensorView), ("value", TensorView), ("output", TensorView), ("log_sum_exp", c_void_p),
                ("workspace", c_void_p), ("workspace_bytes", c_size_t)]


def grids(core):
    for width, height, text, ratio, reach, margin in (
            (37, 29, 77, 4, 1, 3), (32, 48, 64, 4, 1, 3), (40, 24, 130, 2, 0, 0), (24, 16, 0, 0, 4096, 0),
            (33, 17, 5, 8, 2, 1)):
        yield Geometry(core, text_tokens=text, image_width=width, image_height=height, ratio=ratio, reach=reach,
                       guidance_margin=margin), reach, margin


def who_sees_whom(geometry, ratio, reach, margin):
    """[tokens, tokens] from the coordinates of the tokens alone."""
    info = geometry.info
    order = numpy.zeros(info.tokens, dtype=numpy.int64)
    geometry.core.geometry_order(geometry.handle, pointer(order), length(order))
    stream = numpy.repeat((TEXT, IMAGE, GUIDANCE), (info.text_tokens, info.image_tokens, info.guidance_tokens))
    width = geometry.options["image_width"]
    row, column = numpy.zeros_like(order), numpy.zeros_like(order)
    for of, first, across in ((IMAGE, info.text_tokens, width),
                              (GUIDANCE, info.text_tokens + info.image_tokens, info.guidance_width)):
        mine = stream == of
        row[mine], column[mine] = divmod(order[mine] - first, across)
    seen = (stream[:, None] == TEXT) & (stream[None] != GUIDANCE) | (stream[None] == TEXT)
    seen |= (stream[:, None] == GUIDANCE) & (stream[None] == GUIDANCE)
    near, same_window, in_region = [], [], []
    for at, size in ((row, info.guidance_height), (column, info.guidance_width)):
        cell, window = at // CELL, at // WINDOW
        near.append(abs(cell[:, None] - cell[None]) <= reach)
        same_window.append(window[:, None] == window[None])
        if ratio:
            last = geometry.options["image_height" if at is row else "image_width"] - 1
            begin = numpy.maximum(0, cell * CELL // ratio - margin) // CELL
            end = numpy.minimum(size - 1, numpy.minimum(cell * CELL + CELL - 1, last) // ratio + margin) // CELL
            in_region.append((begin[:, None] <= cell[None]) & (cell[None] <= end[:, None]))
    image = stream[:, None] == IMAGE
    seen |= image & (stream[None] == IMAGE) & (near[0] & near[1] | same_window[0] & same_window[1])
    if ratio:
        seen |= image & (stream[None] == GUIDANCE) & in_region[0] & in_region[1]
    return torch.from_numpy(seen)


def expand(mask, slots):
    """A block mask as the kernel reads it: [tokens, tokens]"""
    rows, columns = mask.BLOCK_SIZE
    size = len(slots.valid)
    seen = torch.zeros(size, size, dtype=torch.bool)
    at = torch.arange(size)
    for numbers, indices, whole in ((mask.kv_num_blocks, mask.kv_indices, False),
                                    (mask.full_kv_num_blocks, mask.full_kv_indices, True)):
        for row in range(size // rows):
            for column in indices[0, 0, row, :numbers[0, 0, row]].tolist():
                block = slice(row * rows, (row + 1) * rows), slice(column * columns, (column + 1) * columns)
                assert not seen[block].any(), "a block is listed twice"
                seen[block] = True if whole else mask.mask_mod(0, 0, at[block[0], None], at[None, block[1]])
    return seen[slots.valid][:, slots.valid], seen[slots.valid][:, ~slots.valid]


class GpuAttentionTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.core = Core(LIBRARY)

    def test_structures_are_those_of_the_header(self):
        check_structures(ROOT / "native/include")

    def test_block_masks_are_exact(self):
        for geometry, reach, margin in grids(self.core):
            expected = who_sees_whom(geometry, geometry.options["ratio"], reach, margin)
            self.assertEqual(expected.sum().item(), geometry.info.pairs)
            slots = Slots(geometry, "cpu")
            for blocks in ((64, 64), (128, 64), (128, 128)):
                with self.subTest(blocks=blocks, **geometry.options):
                    tokens, padding = expand(block_mask(geometry, slots, *blocks), slots)
                    self.assertTrue(tokens.equal(expected))
                    self.assertFalse(padding.any())
                    more, _ = expand(block_mask(geometry, slots, *blocks, exact=False), slots)
                    self.assertTrue((more | ~expected).all())

    def test_core_flex_attention_and_reference_agree(self):
        geometry, _, _ = next(grids(self.core))
        heads, head_dim = 3, 128
        inputs = Inputs.normal(geometry.info.tokens, heads, head_dim, 1, "cpu")
        reference = Reference(geometry, heads, inputs.head)
        self.assertLess(reference.compare(self.attend(geometry, inputs))["relative_l2"], 3e-3)
        slots = Slots(geometry, "cpu")
        compiled = torch.compile(flex_attention, dynamic=False)
        for blocks in ((64, 64), (128, 64), (128, 128)):
            torch._dynamo.reset()
            mask = block_mask(geometry, slots, *blocks)
            with torch.no_grad():
                output = compiled(*(slots.spread(t) for t in (inputs.query, inputs.key, inputs.value)), block_mask=mask)
            self.assertLess(reference.compare(slots.gather(output))["relative_l2"], 1e-2, blocks)

    def attend(self, geometry, inputs):
        tokens, heads, head_dim = inputs.query.shape
        output = torch.full((tokens, heads, head_dim), torch.nan, dtype=torch.bfloat16)
        arguments = AttentionArguments(geometry=geometry.handle, heads=heads, head_dim=head_dim, scale=head_dim ** -0.5,
                                       arithmetic=FLOAT32, threads=1, query=TensorView.of(inputs.query),
                                       key=TensorView.of(inputs.key), value=TensorView.of(inputs.value),
                                       output=TensorView.of(output))
        size = c_size_t()
        self.core.attention_workspace(byref(arguments), byref(size))
        workspace = torch.empty(size.value + 64, dtype=torch.uint8)
        arguments.workspace, arguments.workspace_bytes = (workspace.data_ptr() + 63) // 64 * 64, size.value
        self.core.attention(byref(arguments))
        return output

    def test_preparation_is_the_same_in_both_precisions(self):
        inputs = Inputs.normal(200, 2, 128, 1, "cpu")
        preparation = Preparation(200, 77, 128, 1, "cpu")
        prepared = preparation(inputs)
        for head in range(2):
            for rounded, exact in zip(prepared.head(head), preparation.head(inputs, head)):
                self.assertLess(difference([(rounded, exact)])["relative_l2"], 2e-3)


if __name__ == "__main__":
    if len(sys.argv) > 1 and Path(sys.argv[-1]).suffix == ".so":
        LIBRARY = sys.argv.pop()
    unittest.main()
