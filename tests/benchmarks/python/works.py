"""The works, and how one is measured: peers first, then the core, on the same inputs."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

import torch

from accuracy import Reference, difference
from core import CudaAttention, CudaAttentionBackward, Geometry, Unsupported
from inputs import Inputs, Preparation, read_recorded
from peers import FlexAttention, FlexAttentionBackward, Sdpa
from timing import Sensors, attention_alone, kernel_milliseconds, measure

HEADS, HEAD_DIM = 24, 128
FLEX_BLOCKS = (64, 64), (128, 64), (128, 128)
# Blocks of the mask, tiles, warps; 64 x 128 x 128 x 64 with 8 warps is torch's own choice for a H100.
FLEX_BACKWARD = (((64, 64), (64, 64, 64, 64), 4), ((64, 64), (64, 64, 64, 64), 8),
                 ((128, 128), (64, 128, 128, 64), 8), ((128, 128), (64, 64, 64, 64), 4))
# Of a gradient's difference from the peer's, relative L2: both round weights, their gradients and results to bfloat16.
BACKWARD_BOUND = 1e-2
# Against float64, as in the core's own tests: beyond them something is broken. A strong channel takes bits from the
# others of its keys.
BOUNDS = {"INT8": {"cosine": 0.9993, "relative_l1": 0.037}, "bfloat16": {"relative_l2": 4e-3}}


@dataclass(frozen=True)
class Work:
    name: str
    image_width: int  # tokens
    image_height: int
    text_tokens: int = 512
    ratio: int = 4
    reach: int = 1
    guidance_margin: int = 3

    @classmethod
    def named(cls, name):
        if name in WORKS:
            return WORKS[name]
        pixels = re.fullmatch(r"(\d+)x(\d+)", name)
        if pixels is None or any(int(side) % 16 for side in pixels.groups()):
            known = ", ".join(WORKS)
            raise ValueError(f"{name} given, expected {known}, or WIDTHxHEIGHT in pixels, multiples of 16")
        return cls(name, *(int(side) // 16 for side in pixels.groups()))

    def geometry(self, core):
        options = asdict(self)
        del options["name"]
        return Geometry(core, **options)


WORKS = {work.name: work for work in (
    Work("4096x4096", 256, 256), Work("own-window", 256, 256, reach=0, guidance_margin=0),
    Work("dense", 274, 256, text_tokens=0, ratio=0, reach=4096, guidance_margin=0),
    Work("2048x2048", 128, 128), Work("8192x8192", 512, 512), Work("3008x5008", 188, 313))}


class Bench:
    def __init__(self, core, contenders, peers, runs):
        """contenders: pairs of an arithmetic and a family of kernels; peers: of gpu_attention.PEERS"""
        self.sensors = Sensors()
        self.failures = []
        self._core = core
        self._contenders = contenders
        self._peers = peers
        self._runs = runs
        self._flex_blocks = FLEX_BLOCKS[0]  # the fastest so far

    def measure(self, work):
        """The work, and a row for each peer and contender."""
        geometry = work.geometry(self._core)
        tokens, operations = geometry.info.tokens, 4 * HEAD_DIM * HEADS * geometry.info.pairs
        raw = [Inputs.normal(tokens, HEADS, HEAD_DIM, seed=1)]
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        raw += [Inputs.normal(tokens, HEADS, HEAD_DIM, seed) for seed in range(2, 2 + 2 * cache // raw[0].bytes())]
        preparation = Preparation(tokens, work.text_tokens, HEAD_DIM, seed=1)
        prepared = [preparation(inputs) for inputs in raw]
        references = {True: Reference(geometry, HEADS, lambda head: preparation.head(raw[0], head)),
                      False: Reference(geometry, HEADS, prepared[0].head)}
        rows = self._compare(work.name, self._all(geometry, preparation), {True: raw, False: prepared}, references,
                             BOUNDS, timed=True)
        for row in rows:
            for time, rate in ("milliseconds", "teraops"), ("attention_milliseconds", "attention_teraops"):
                row[rate] = operations / row[time] * 1e-9 if row.get(time) else None
        return {**asdict(work), "tokens": tokens, "pairs": geometry.info.pairs, "operations": operations, "rows": rows}

    def accuracy(self, work, recorded):
        """Rows for inputs of other kinds, all of them normed and rotated already."""
        geometry = work.geometry(self._core)
        normal = Inputs.normal(geometry.info.tokens, HEADS, HEAD_DIM, seed=1)
        cases = [("normal", geometry, normal, BOUNDS), ("key bias", geometry, normal.with_key_bias(), BOUNDS),
                 ("outlier channels", geometry, normal.with_outliers(), BOUNDS)]
        if recorded is not None:
            inputs, options = read_recorded(recorded)
            cases.append(("recorded", Geometry(self._core, **options), inputs, BOUNDS))
        rows = []
        for case, geometry, inputs, bounds in cases:
            references = {False: Reference(geometry, inputs.query.shape[1], inputs.head)}
            flex = [FlexAttention(geometry, self._flex_blocks)] if "flex" in self._peers else []
            rows += self._compare(case, flex + self._ours(geometry), {False: [inputs]}, references, bounds, timed=False)
        return rows

    def backward(self, work):
        """A row for each peer and family of kernels: the gradients of query, key and value from the output's."""
        geometry = work.geometry(self._core)
        operations = 10 * HEAD_DIM * HEADS * geometry.info.pairs  # five products, whatever is computed twice
        inputs = Inputs.normal(geometry.info.tokens, HEADS, HEAD_DIM, seed=1)
        gradient = Inputs.normal(geometry.info.tokens, HEADS, HEAD_DIM, seed=2).query
        contenders = [FlexAttentionBackward(geometry, *choice) for choice in FLEX_BACKWARD] \
            if "flex" in self._peers else []
        families = dict.fromkeys(kernels for arithmetic, kernels in self._contenders if arithmetic == "bfloat16")
        contenders += [CudaAttentionBackward(geometry, kernels) for kernels in families]
        rows, best, best_gradients = [], None, None
        for contender in contenders:
            row = {"case": work.name + " backward", "name": contender.name}
            rows.append(row)
            try:
                call = contender.on(inputs, gradient)
                gradients = contender.gather(call())
                row.update(measure([call], self._runs, self.sensors))
            except contender.absent as error:
                row["note"] = str(error).strip().split("\n")[0] or type(error).__name__
                continue
            row["teraops"] = operations / row["milliseconds"] * 1e-9
            if contender.arithmetic is None:
                if best is None or row["milliseconds"] < best["milliseconds"]:
                    best, best_gradients = row, gradients
                continue
            row["kernels"] = kernel_milliseconds(call)
            if best is not None:
                row["times_peer"] = best["milliseconds"] / row["milliseconds"]
                for name, ours, theirs in zip(("query", "key", "value"), gradients, best_gradients):
                    heads = range(ours.shape[1])
                    off = difference((ours[:, head], theirs[:, head]) for head in heads)["relative_l2"]
                    row[name + "_l2"] = off
                    if not off <= BACKWARD_BOUND:
                        self.failures.append(f"{row['case']}, {row['name']}: the {name}'s gradient is {off:.5f} from "
                                             f"{best['name']}'s, expected at most {BACKWARD_BOUND}")
        return rows

    def _all(self, geometry, preparation):
        dense = geometry.info.pairs == geometry.info.tokens ** 2
        if dense:
            yield from (Sdpa(peer) for peer in Sdpa.BACKENDS if peer in self._peers)
        if not dense and "flex" in self._peers:
            yield from (FlexAttention(geometry, blocks) for blocks in FLEX_BLOCKS)
        if not dense and "unmasked" in self._peers:
            yield from (FlexAttention(geometry, blocks, exact=False) for blocks in FLEX_BLOCKS[1:])
        yield from self._ours(geometry, preparation)

    def _ours(self, geometry, preparation=None):
        return [CudaAttention(geometry, *contender, preparation) for contender in self._contenders]

    def _compare(self, case, contenders, inputs, references, bounds, timed):
        """inputs, references: by whether queries and keys have yet to be normed and rotated. The first inputs are
        compared; all are timed."""
        rows, best, best_output = [], None, None
        for contender in contenders:
            row = {"case": case, "name": contender.name}
            rows.append(row)
            try:
                calls = [contender.on(each) for each in inputs[contender.prepares]]
                output = contender.gather(calls[0]())
                if timed:
                    row.update(measure(calls, self._runs, self.sensors))
            except contender.absent as error:
                row["note"] = str(error).strip().split("\n")[0] or type(error).__name__
                continue
            row.update(references[contender.prepares].compare(output))
            if contender.arithmetic is None:
                if contender.exact and (best is None or timed and row["milliseconds"] < best["milliseconds"]):
                    best, best_output = row, output
                    self._flex_blocks = getattr(contender, "blocks", self._flex_blocks)
                continue
            if timed:
                row["kernels"] = kernel_milliseconds(calls[0])
                row["attention_milliseconds"] = attention_alone(row["kernels"])
            if best is not None:
                heads = range(output.shape[1])
                row["to_peer"] = difference((output[:, head], best_output[:, head]) for head in heads)
                row["times_peer"] = best["milliseconds"] / row["milliseconds"] if timed else None
            self._check(row, output, bounds[contender.arithmetic])
        return rows

    def _check(self, row, output, bounds):
        where = f"{row['case']}, {row['name']}: "
        if not output.isfinite().all():
            self.failures.append(where + "not all of the output is finite")
        for figure, bound in bounds.items():
            least = figure == "cosine"
            if not (row[figure] >= bound if least else row[figure] <= bound):  # a NaN does not hold
                expected = f"at {'least' if least else 'most'} {bound}"
                self.failures.append(f"{where}{figure} is {row[figure]:.5f}, expected {expected}")
