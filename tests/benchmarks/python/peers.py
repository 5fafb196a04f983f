"""What PyTorch offers for the same attention: FlexAttention under the same mask, and SDPA where nothing is masked."""

from __future__ import annotations

import functools

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from core import TILE_TOKENS

TILE_BITS = TILE_TOKENS.bit_length() - 1


class Slots:
    """The sequence with every tile extended to 64 tokens and their number to an even one, so that blocks of 64 and 128
    tokens never straddle a tile. On grids of whole cells that adds a tile at most."""

    def __init__(self, geometry, device):
        tokens = torch.from_numpy(geometry.tiles["tokens"].astype("int64"))
        self.tiles = len(tokens) + len(tokens) % 2
        valid = torch.zeros(self.tiles, TILE_TOKENS, dtype=torch.bool)
        valid[:len(tokens)] = torch.arange(TILE_TOKENS) < tokens[:, None]
        self.valid = valid.flatten().to(device)
        self._slot = self.valid.nonzero().flatten()  # of each token

    def spread(self, tensor):
        """[tokens, heads, head_dim] → [1, heads, slots, head_dim]"""
        _, heads, head_dim = tensor.shape
        spread = tensor.new_zeros(1, heads, len(self.valid), head_dim)
        spread[0, :, self._slot] = tensor.transpose(0, 1)
        return spread

    def gather(self, tensor):
        """[1, heads, slots, head_dim] → [tokens, heads, head_dim]"""
        return tensor[0, :, self._slot].transpose(0, 1)


def block_mask(geometry, slots, query_block, key_block, exact=True):
    """The geometry's mask in blocks of so many tokens. Blocks that all their queries see whole run without a mask, the
    others under one that looks tiles up in a table; if not exact, these count as seen whole as well."""
    listed = torch.zeros(slots.tiles, slots.tiles, dtype=torch.bool)
    for tile in range(len(geometry.tiles)):
        for first, end in geometry.ranges_of(tile):
            listed[tile, first:end] = True
    listed = listed.to(slots.valid.device)
    valid = slots.valid
    ragged = not valid[:len(geometry.tiles) * TILE_TOKENS].all()

    def mask_mod(batch, head, query, key):
        seen = listed[query >> TILE_BITS, key >> TILE_BITS]
        return seen & valid[key] if ragged else seen

    def in_blocks(tiles):
        rows, columns = query_block // TILE_TOKENS, key_block // TILE_TOKENS
        return tiles.view(slots.tiles // rows, rows, slots.tiles // columns, columns)

    whole = listed & valid.view(-1, TILE_TOKENS).all(1)
    whole[len(geometry.tiles):] = True  # no queries are there
    seen = in_blocks(listed).any(3).any(1)
    full = seen & in_blocks(whole).all(3).all(1) if exact else seen

    def lists(blocks):
        order = blocks.byte().argsort(dim=1, descending=True, stable=True)
        return blocks.sum(1).int()[None, None], order.int()[None, None]

    return BlockMask.from_kv_blocks(*lists(seen & ~full), *lists(full), BLOCK_SIZE=(query_block, key_block),
                                    mask_mod=mask_mod if exact else None, seq_lengths=(len(valid), len(valid)))


class Peer:
    """Queries and keys come normed and rotated. Whatever keeps a peer from running is no failure of the core's."""

    absent = Exception
    prepares = False
    arithmetic = None
    exact = True


class FlexAttention(Peer):
    def __init__(self, geometry, blocks, exact=True):
        self.name = f"FlexAttention {blocks[0]}x{blocks[1]}" + ("" if exact else ", blocks whole")
        self.exact = exact
        self.blocks = blocks
        self._slots = Slots(geometry, "cuda")
        self._mask = block_mask(geometry, self._slots, *blocks, exact)
        # A warp for 16 rows and three stages: torch's own choice for 128 rows on a H100.
        self._options = {"BLOCK_M": blocks[0], "BLOCK_N": blocks[1], "num_warps": blocks[0] // 16, "num_stages": 3}

    @functools.cached_property
    def _compiled(self):
        # Another shape than before would be compiled for any shape, and slower; after too many, none is compiled.
        torch._dynamo.reset()
        return torch.compile(flex_attention, dynamic=False)

    def on(self, inputs):
        """A call that gives [1, heads, slots, head_dim]."""
        query, key, value = (self._slots.spread(tensor) for tensor in (inputs.query, inputs.key, inputs.value))
        return lambda: self._compiled(query, key, value, block_mask=self._mask, kernel_options=self._options)

    def gather(self, output):
        """→ [tokens, heads, head_dim]"""
        return self._slots.gather(output)


class FlexAttentionBackward(Peer):
    """The gradients, with tiles of so many rows where it gathers those of keys (1) and those of queries (2)."""

    def __init__(self, geometry, blocks, tiles, warps):
        self.name = f"FlexAttention {blocks[0]}x{blocks[1]}, tiles {'x'.join(map(str, tiles))}, {warps} warps"
        self._slots = Slots(geometry, "cuda")
        self._mask = block_mask(geometry, self._slots, *blocks)
        names = "BLOCK_M1", "BLOCK_N1", "BLOCK_M2", "BLOCK_N2"
        self._options = {f"bwd_{name}": rows for name, rows in zip(names, tiles)}
        self._options |= {"bwd_num_warps": warps, "bwd_num_stages": 2}
        self._options |= {"fwd_BLOCK_M": blocks[0], "fwd_BLOCK_N": 64}

    def on(self, inputs, gradient):
        """A call that gives the gradients of query, key and value: [1, heads, slots, head_dim] each."""
        torch._dynamo.reset()
        torch._functorch.config.donated_buffer = False  # the same graph is gone through again and again
        compiled = torch.compile(flex_attention, dynamic=False)
        operands = [self._slots.spread(tensor).requires_grad_()
                    for tensor in (inputs.query, inputs.key, inputs.value)]
        output = compiled(*operands, block_mask=self._mask, kernel_options=self._options)
        spread = self._slots.spread(gradient)
        return lambda: torch.autograd.grad(output, operands, spread, retain_graph=True)

    def gather(self, gradients):
        """→ [tokens, heads, head_dim] each"""
        return [self._slots.gather(gradient) for gradient in gradients]


class Sdpa(Peer):
    """Dense."""

    BACKENDS = {"FlashAttention-2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}

    def __init__(self, backend):
        self.name = f"SDPA {backend}"
        self._backend = self.BACKENDS[backend]

    def on(self, inputs):
        """A call that gives [1, heads, tokens, head_dim]."""
        query, key, value = (tensor.transpose(0, 1)[None].contiguous()
                             for tensor in (inputs.query, inputs.key, inputs.value))

        def attend():
            with sdpa_kernel(self._backend):
                return torch.nn.functional.scaled_dot_product_attention(query, key, value)

        return attend

    @staticmethod
    def gather(output):
        """→ [tokens, heads, head_dim]"""
        return output[0].transpose(0, 1)
