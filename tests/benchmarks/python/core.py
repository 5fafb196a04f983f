"""The native core through ctypes: its C ABI (native/include/scaledit/scaledit.h), geometries, attention on a GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import weakref
from ctypes import byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy
import torch

ARITHMETIC = {"INT8": 1, "bfloat16": 2}
KERNELS = {"best": 0, "sm80": 1, "sm89": 2, "sm90": 3}
BFLOAT16 = 1
TEXT, IMAGE, GUIDANCE = range(3)
TILE_TOKENS = 64
UNSUPPORTED = 3


class GeometryOptions(ctypes.Structure):
    _fields_ = [("text_tokens", c_int64), ("image_width", c_int64), ("image_height", c_int64), ("ratio", c_int32),
                ("window", c_int32), ("reach", c_int32), ("guidance_margin", c_int32), ("guidance_attention", c_int32),
                ("guidance_without_text", c_int32)]


class GeometryInfo(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in ("text_tokens", "image_tokens", "guidance_tokens", "guidance_width",
                                             "guidance_height", "tokens", "tiles", "ranges", "pairs",
                                             "query_tiles")]


class Tile(ctypes.Structure):
    _fields_ = [("first", c_int64), ("tokens", c_int32), ("stream", c_int32), ("row", c_int32), ("column", c_int32)]


class TileRange(ctypes.Structure):
    _fields_ = [("first", c_int32), ("count", c_int32)]


class TensorView(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("token_stride", c_int64), ("head_stride", c_int64), ("dtype", c_int32)]

    @classmethod
    def of(cls, tensor):
        """tensor [tokens, heads, head_dim], bfloat16"""
        return cls(tensor.data_ptr(), tensor.stride(0), tensor.stride(1), BFLOAT16)


class CudaAttentionArguments(ctypes.Structure):
    _fields_ = [("geometry", c_void_p), ("device_geometry", c_void_p), ("heads", c_int32), ("head_dim", c_int32),
                ("scale", c_float), ("arithmetic", c_int32), ("kernels", c_int32), ("query", TensorView),
                ("key", TensorView), ("value", TensorView), ("output", TensorView), ("log_sum_exp", c_void_p),
                ("query_norm", c_void_p), ("key_norm", c_void_p), ("text_query_norm", c_void_p),
                ("text_key_norm", c_void_p), ("norm_epsilon", c_float), ("rotation", c_void_p), ("workspace", c_void_p),
                ("workspace_bytes", c_size_t), ("stream", c_void_p)]


class CudaAttentionBackwardArguments(ctypes.Structure):
    _fields_ = [("geometry", c_void_p), ("device_geometry", c_void_p), ("heads", c_int32), ("head_dim", c_int32),
                ("scale", c_float), ("kernels", c_int32), ("query", TensorView), ("key", TensorView),
                ("value", TensorView), ("output", TensorView), ("log_sum_exp", c_void_p),
                ("output_gradient", TensorView), ("query_gradient", TensorView), ("key_gradient", TensorView),
                ("value_gradient", TensorView), ("workspace", c_void_p), ("workspace_bytes", c_size_t),
                ("stream", c_void_p)]


STRUCTURES = {"scaledit_geometry_options": GeometryOptions, "scaledit_geometry_info": GeometryInfo,
              "scaledit_tile": Tile, "scaledit_tile_range": TileRange, "scaledit_tensor": TensorView,
              "scaledit_cuda_attention_arguments": CudaAttentionArguments,
              "scaledit_cuda_attention_backward_arguments": CudaAttentionBackwardArguments}


class CoreError(Exception):
    """What the core answered, in its own words."""


class Unsupported(CoreError):
    """Valid, but not on this machine or in this build."""


class Core:
    def __init__(self, path):
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise SystemExit(f"cannot load the native core: {error}; `tools/native-check cuda` builds it") from None
        self._library.scaledit_last_error.restype = c_char_p
        self._library.scaledit_version.restype = c_char_p
        self._library.scaledit_geometry_destroy.argtypes = [c_void_p]
        self._library.scaledit_geometry_destroy.restype = None

    def __getattr__(self, function):
        """A function of the C ABI without its prefix; raises where that returns a failure."""
        native = getattr(self._library, "scaledit_" + function)

        def call(*arguments):
            status = native(*arguments)
            if status != 0:
                sentence = self._library.scaledit_last_error().decode()
                raise Unsupported(sentence) if status == UNSUPPORTED else CoreError(sentence)

        return call

    def version(self):
        return self._library.scaledit_version().decode()

    def geometry_destroy(self, handle):
        self._library.scaledit_geometry_destroy(handle)


def check_structures(include):
    """Ends the program where a C compiler lays out a structure of the header in another way than this file."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("no C compiler: the C ABI's structures are not checked")
        return
    claims = []
    for name, mirror in STRUCTURES.items():
        claims.append(f"sizeof({name}) == {ctypes.sizeof(mirror)}")
        claims += [f"offsetof({name}, {field}) == {getattr(mirror, field).offset}" for field, _ in mirror._fields_]
    asserts = "\n".join(f'_Static_assert({claim}, "");' for claim in claims)
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write(f"#include <scaledit/scaledit.h>\n{asserts}\n")
        source.flush()
        command = [compiler, "-std=c11", "-fsyntax-only", "-I", str(include), source.name]
        check = subprocess.run(command, capture_output=True, text=True)
    if check.returncode != 0:
        raise SystemExit(f"{Path(__file__).name} lays out structures in another way than scaledit.h:\n{check.stderr}")


class Geometry:
    """Tiles, and for each the ranges of tiles that it attends to."""

    def __init__(self, core, **options):
        self.core = core
        self.options = options
        chosen = GeometryOptions()
        core.geometry_defaults(byref(chosen))
        for name, value in options.items():
            setattr(chosen, name, value)
        self.handle = c_void_p()
        core.geometry_create(byref(chosen), byref(self.handle))
        weakref.finalize(self, core.geometry_destroy, self.handle)
        self.info = GeometryInfo()
        core.geometry_describe(self.handle, byref(self.info))
        self.tiles = numpy.zeros(self.info.tiles, dtype=Tile)
        self.offsets = numpy.zeros(self.info.tiles + 1, dtype=numpy.int64)
        self.ranges = numpy.zeros(self.info.ranges, dtype=TileRange)
        core.geometry_tiles(self.handle, pointer(self.tiles), length(self.tiles))
        core.geometry_ranges(self.handle, pointer(self.offsets), length(self.offsets), pointer(self.ranges),
                             length(self.ranges))

    def ranges_of(self, tile):
        """(first tile, tile after the last) of each range."""
        for first, count in self.ranges[self.offsets[tile]:self.offsets[tile + 1]]:
            yield int(first), int(first + count)

    def tokens_of(self, first, end):
        """(first token, token after the last) of consecutive tiles."""
        last = self.tiles[end - 1]
        return int(self.tiles[first]["first"]), int(last["first"] + last["tokens"])

    def on_gpu(self):
        size = c_size_t()
        self.core.cuda_geometry_bytes(self.handle, byref(size))
        memory = torch.empty(size.value, dtype=torch.uint8, device="cuda")
        self.core.cuda_geometry_upload(self.handle, c_void_p(memory.data_ptr()), size, current_stream())
        return memory


class CudaAttention:
    """The core's attention on a GPU, over one geometry."""

    absent = Unsupported

    def __init__(self, geometry, arithmetic, kernels, preparation=None):
        """With a preparation INT8 takes queries and keys that are neither normed nor rotated; bfloat16 never does."""
        self.name = arithmetic if kernels == "best" else f"{arithmetic} {kernels}"
        self.arithmetic = arithmetic
        self._kernels = KERNELS[kernels]
        self._preparation = preparation if arithmetic == "INT8" else None
        self.prepares = self._preparation is not None
        self._geometry = geometry

    def on(self, inputs):
        """A call that queues attention on torch's current stream and gives its output, [tokens, heads, head_dim]."""
        core, geometry = self._geometry.core, self._geometry
        query, memory = inputs.query, [self._geometry.on_gpu()]
        output = torch.full(query.shape, torch.nan, dtype=torch.bfloat16, device="cuda")
        arguments = CudaAttentionArguments(
            geometry=geometry.handle, device_geometry=memory[0].data_ptr(), heads=query.shape[1],
            head_dim=query.shape[2], scale=query.shape[2] ** -0.5, arithmetic=ARITHMETIC[self.arithmetic],
            kernels=self._kernels, query=TensorView.of(query), key=TensorView.of(inputs.key),
            value=TensorView.of(inputs.value), output=TensorView.of(output), stream=current_stream())
        if self.prepares:
            for name, weight in self._preparation.weights.items():
                setattr(arguments, name, weight.data_ptr())
            arguments.norm_epsilon = self._preparation.epsilon
            arguments.rotation = self._preparation.rotation.data_ptr()
        size = c_size_t()
        core.cuda_attention_workspace(byref(arguments), byref(size))
        memory.append(torch.empty(size.value, dtype=torch.uint8, device="cuda"))
        arguments.workspace, arguments.workspace_bytes = memory[1].data_ptr(), size.value

        def attend():
            core.cuda_attention(byref(arguments))
            return output

        attend.keeps = self, inputs, memory  # what the arguments point to
        return attend

    @staticmethod
    def gather(output):
        return output


class CudaAttentionBackward:
    """The gradients of the core's attention in bfloat16, over one geometry."""

    absent = Unsupported
    arithmetic = "bfloat16"

    def __init__(self, geometry, kernels):
        self.name = self.arithmetic if kernels == "best" else f"{self.arithmetic} {kernels}"
        self._kernels = KERNELS[kernels]
        self._geometry = geometry

    def on(self, inputs, gradient):
        """A call that queues the backward pass and gives the gradients of query, key and value. gradient is the
        output's; [tokens, heads, head_dim] all of them."""
        core, geometry = self._geometry.core, self._geometry
        tokens, heads, head_dim = inputs.query.shape
        memory = [geometry.on_gpu()]
        output = torch.empty(inputs.query.shape, dtype=torch.bfloat16, device="cuda")
        log_sum_exp = torch.empty(heads, tokens, device="cuda")
        gradients = torch.full((tokens, 3, heads, head_dim), torch.nan, dtype=torch.bfloat16, device="cuda").unbind(1)
        common = {"geometry": geometry.handle, "device_geometry": memory[0].data_ptr(), "heads": heads,
                  "head_dim": head_dim, "scale": head_dim ** -0.5, "kernels": self._kernels,
                  "query": TensorView.of(inputs.query), "key": TensorView.of(inputs.key),
                  "value": TensorView.of(inputs.value), "output": TensorView.of(output),
                  "log_sum_exp": log_sum_exp.data_ptr(), "stream": current_stream()}
        core.cuda_attention(byref(CudaAttentionArguments(arithmetic=ARITHMETIC[self.arithmetic], **common)))
        names = "query_gradient", "key_gradient", "value_gradient"
        arguments = CudaAttentionBackwardArguments(
            output_gradient=TensorView.of(gradient),
            **dict(zip(names, map(TensorView.of, gradients))), **common)
        size = c_size_t()
        core.cuda_attention_backward_workspace(byref(arguments), byref(size))
        memory.append(torch.empty(size.value, dtype=torch.uint8, device="cuda"))
        arguments.workspace, arguments.workspace_bytes = memory[1].data_ptr(), size.value

        def propagate():
            core.cuda_attention_backward(byref(arguments))
            return gradients

        propagate.keeps = self, inputs, gradient, output, log_sum_exp, memory  # what the arguments point to
        return propagate

    @staticmethod
    def gather(gradients):
        return gradients


def current_stream():
    return c_void_p(torch.cuda.current_stream().cuda_stream)


def pointer(array):
    return array.ctypes.data_as(c_void_p)


def length(array):
    return c_int64(len(array))
