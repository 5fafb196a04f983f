#!/usr/bin/env python3
"""Attention on a GPU against PyTorch's, on the same inputs: 24 heads x 128, bfloat16 in and out, medians over CUDA
events. Ends with 1 where a result of the core is further from float64 than it may be."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PEERS = {"flex": "FlexAttention under the same mask", "unmasked": "FlexAttention that computes its blocks whole",
         "FlashAttention-2": "torch's SDPA, where nothing is masked", "cuDNN": "likewise"}
BASE = "4096x4096"  # whose time a pair the others' are compared with
TIMES = (  # heading, key, width, format
    ("ms", "milliseconds", 8, ".3f"), ("fastest", "fastest", 8, ".3f"), ("slowest", "slowest", 8, ".3f"),
    ("T op/s", "teraops", 7, ".0f"), ("alone ms", "attention_milliseconds", 9, ".3f"),
    ("T op/s", "attention_teraops", 7, ".0f"), ("x peer", "times_peer", 7, ".2f"), ("a pair", "pair_time", 7, ".2f"),
    ("MHz", "megahertz", 6, ".0f"), ("W", "watts", 5, ".0f"))
BACKWARD_TIMES = (
    *(time for time in TIMES if time[1] in {"milliseconds", "fastest", "slowest", "times_peer", "megahertz", "watts"}),
    ("T op/s", "teraops", 7, ".0f"), ("L2 of dQ", "query_l2", 9, ".5f"), ("of dK", "key_l2", 9, ".5f"),
    ("of dV", "value_l2", 9, ".5f"))
ERRORS = (("cosine", "cosine", 9, ".5f"), ("rel. L1", "relative_l1", 8, ".4f"), ("rel. L2", "relative_l2", 8, ".4f"),
          ("worst L1", "worst_tile_l1", 9, ".4f"))
CASES = ("normal", "key bias", "outlier channels", "recorded")
GOALS = (  # on a H200: work or case, row, figure, its unit, at least, at most
    (BASE, "INT8", "milliseconds", "ms", 0, 2.4), (BASE, "INT8", "times_peer", "x FlexAttention", 2.2, None),
    (BASE, "INT8", "attention_teraops", "T op/s, attention alone", 900, None),
    ("own-window", "INT8", "milliseconds", "ms", 0, 1.7), ("dense", "INT8", "teraops", "T op/s", 1000, None),
    *((work, "INT8", "pair_time", f"x {BASE}'s time a pair", 0.85, 1.15)
      for work in ("2048x2048", "8192x8192", "3008x5008")),
    *((BASE, f"INT8 {kernels}", "times_peer", "x FlexAttention", 1.1, None) for kernels in ("sm80", "sm89")),
    (BASE, "bfloat16", "times_peer", "x FlexAttention", 1.3, None),
    *((f"{work} backward", "bfloat16", "times_peer", "x FlexAttention", 1, None) for work in (BASE, "1024x1024")),
    *((case, "INT8", *figure) for case in CASES
      for figure in (("cosine", "cosine", 0.9993, None), ("relative_l1", "relative L1", 0, 0.037))),
    *((case, "bfloat16", "relative_l2", "relative L2", 0, 4e-3) for case in CASES))


def parse():
    parser = argparse.ArgumentParser(prog="tools/bench gpu-attention", description=__doc__)
    parser.add_argument("--works", default="4096x4096,own-window,dense,2048x2048,8192x8192,3008x5008",
                        help="of these, or other WIDTHxHEIGHT in pixels; default: %(default)s")
    parser.add_argument("--kernels", default="best,sm80,sm89",
                        help="families of the core's kernels, or best, the one that it chooses; default: %(default)s")
    parser.add_argument("--peers", default=",".join(PEERS),
                        help="; ".join(f"{name}: {what}" for name, what in PEERS.items()) + "; default: all of them")
    parser.add_argument("--runs", type=int, default=20, help="at least so many; default: %(default)s")
    parser.add_argument("--backward", default=f"{BASE},1024x1024", metavar="WORKS",
                        help="works whose gradients are measured, in bfloat16; default: %(default)s")
    parser.add_argument("--qkv", metavar="FILE", help="what `tools/bench attention-inputs` wrote: compared as well")
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--library", metavar="FILE", default=ROOT / "build/cuda/native/libscaledit.so",
                        help="the native core; default: %(default)s")
    return parser, parser.parse_args()


def main():
    parser, options = parse()
    begin = time.monotonic()
    try:
        import torch

        import core
        import works
    except ImportError as error:
        sys.exit(f"gpu-attention: its peers are PyTorch's: {error}")

    def chosen(option, allowed):
        names = [name for name in getattr(options, option).split(",") if name]
        for name in names:
            if name not in allowed:
                parser.error(f"argument --{option}: {name} given, expected of {', '.join(allowed)}")
        return names

    kernels, peers = chosen("kernels", core.KERNELS), chosen("peers", PEERS)
    def named_works(option):
        try:
            return [works.Work.named(name) for name in getattr(options, option).split(",") if name]
        except ValueError as error:
            parser.error(f"argument --{option}: {error}")

    chosen_works, backward_works = named_works("works"), named_works("backward")
    if not chosen_works and not backward_works:
        parser.error("argument --works: none given, nor by --backward, expected one at least")
    if options.runs < 1:
        parser.error(f"argument --runs: {options.runs} given, expected 1 or more")
    if not torch.cuda.is_available():
        sys.exit("gpu-attention: torch finds no GPU")
    core.check_structures(ROOT / "native/include")
    native = core.Core(options.library)
    ours = [(arithmetic, family) for arithmetic in core.ARITHMETIC for family in kernels]
    bench = works.Bench(native, ours, peers, options.runs)

    gpu = torch.cuda.get_device_properties(0)
    machine = {"gpu": gpu.name, "multiprocessors": gpu.multi_processor_count, "driver": bench.sensors.driver,
               "cuda": torch.version.cuda, "torch": torch.__version__, "core": native.version()}
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results, rows = [], []
    for work in chosen_works:
        results.append(bench.measure(work))
        rows += results[-1]["rows"]
        compare_pairs(results[-1]["rows"], rows)
        print_table(heading(results[-1]), results[-1]["rows"], TIMES + ERRORS)
        torch.cuda.empty_cache()
    backward = []
    for work in backward_works:
        backward += bench.backward(work)
        print_table(f"{work.name}, gradients", [row for row in backward if row["case"] == work.name + " backward"],
                    BACKWARD_TIMES)
        torch.cuda.empty_cache()
    accuracy = bench.accuracy(chosen_works[0], options.qkv) if chosen_works else []
    for case in dict.fromkeys(row["case"] for row in accuracy):
        title = f"Against float64: {options.qkv if case == 'recorded' else f'{chosen_works[0].name}, {case}'}"
        print_table(title, [row for row in accuracy if row["case"] == case], ERRORS)
    goals = reached(rows + backward + accuracy)
    print("\nGoals on a H200")
    for goal in goals:
        print(f"  {goal['reached']:<12} {goal['text']}")
    for failure in bench.failures:
        print(f"failed: {failure}", file=sys.stderr)
    seconds = time.monotonic() - begin
    print(f"\n{seconds:.0f} s")
    if options.json:
        write(options.json, {**machine, "seconds": seconds, "works": results, "backward": backward, "accuracy": accuracy, "goals": goals,
                             "failures": bench.failures})
    return 1 if bench.failures else 0


def heading(result):
    return (f"{result['name']}: {result['image_width']} x {result['image_height']} tokens of the image, "
            f"{result['tokens']:,} in all, {result['pairs']:,} pairs a head, "
            f"{result['operations'] * 1e-12:.2f} T operations")


def print_table(title, rows, columns):
    print(f"\n{title}\n{'':36}" + "".join(f"{column:>{width + 1}}" for column, _, width, _ in columns))
    for row in rows:
        cells = (" " + ("-".rjust(width) if row.get(key) is None else f"{row[key]:{width}{form}}")
                 for _, key, width, form in columns)
        print(f"{row['name']:<36}" + (f" {row['note']}" if "note" in row else "".join(cells)), flush=True)
    for row in rows:
        if "kernels" in row:
            kernels = (f"{short(kernel)} {milliseconds:.3f}" for kernel, milliseconds in row["kernels"].items())
            print(f"  ms of the kernels of {row['name']}: {', '.join(kernels) or 'not given by CUPTI'}")


def short(kernel):
    """void scaledit::cuda::prepare<128>(...) → prepare"""
    return re.split(r"::| ", re.split(r"[<(]", kernel)[0].strip())[-1]


def figure(rows, case, name, key):
    """None where it was not measured."""
    return next((row.get(key) for row in rows if (row["case"], row["name"]) == (case, name)), None)


def compare_pairs(rows, all_rows):
    """Each row's time a pair by that of the base's row of that name."""
    for row in rows:
        base, own = figure(all_rows, BASE, row["name"], "teraops"), row["teraops"]
        row["pair_time"] = base / own if base and own else None


def reached(rows):
    goals = []
    for case, name, key, unit, least, most in GOALS:
        value = figure(rows, case, name, key)
        limits = f"at least {least}" if most is None else f"at most {most}" if least == 0 else f"{least} to {most}"
        text = f"{case}, {name}: " + ("" if value is None else f"{value:.5g} {unit}, ") + f"expected {limits} {unit}"
        within = value is not None and least <= value and (most is None or value <= most)
        said = "not measured" if value is None else "yes" if within else "no"
        goals.append({"case": case, "row": name, "figure": key, "value": value, "reached": said, "text": text})
    return goals


def write(path, results):
    """Whole or not at all."""
    temporary = f"{path}.{os.getpid()}.part"
    Path(temporary).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
