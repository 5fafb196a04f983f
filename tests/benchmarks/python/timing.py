"""Times on a GPU, and what its sensors say meanwhile."""

from __future__ import annotations

import ctypes
import statistics
import time

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

WARM_UP = 3
LEAST_MILLISECONDS = 300  # of all runs together: sensors are too slow for less
MOST_RUNS = 1000
PROFILED_RUNS = 10
ATTENTION_KERNEL = "attend"  # in the name of every kernel that is no part of the pre-pass
NVML_CLOCK_SM = 1


class Sensors:
    """Of the GPU that torch uses, through the driver's own library; None where there is no such library."""

    def __init__(self):
        self._gpu = ctypes.c_void_p()
        version = ctypes.create_string_buffer(80)
        try:
            self._nvml = ctypes.CDLL("libnvidia-ml.so.1")
            uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()
            answers = (self._nvml.nvmlInit_v2(), self._nvml.nvmlSystemGetDriverVersion(version, len(version)),
                       self._nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(self._gpu)))
            self._there = not any(answers)
        except OSError:
            self._there = False
        self.driver = version.value.decode() or None

    def megahertz(self):
        """Of the multiprocessors."""
        clock = ctypes.c_uint()
        failed = not self._there or self._nvml.nvmlDeviceGetClockInfo(self._gpu, NVML_CLOCK_SM, ctypes.byref(clock))
        return None if failed else clock.value

    def watts(self):
        power = ctypes.c_uint()
        failed = not self._there or self._nvml.nvmlDeviceGetPowerUsage(self._gpu, ctypes.byref(power))
        return None if failed else power.value / 1000


def measure(calls, runs, sensors):
    """Milliseconds, clock and power of calls that do the same on different memory, in turn, queued without a pause."""
    def timed(call):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        return begin, end

    begin, end = [timed(call) for call in calls + WARM_UP * calls[:1]][-1]
    end.synchronize()
    runs = min(MOST_RUNS, max(runs, round(LEAST_MILLISECONDS / begin.elapsed_time(end))))
    events = [timed(calls[run % len(calls)]) for run in range(runs)]
    samples = []
    while not samples or not events[-1][1].query():
        samples.append((sensors.megahertz(), sensors.watts()))
        time.sleep(0.01)
    milliseconds = sorted(begin.elapsed_time(end) for begin, end in events)
    clock, power = samples[len(samples) // 2]
    return {"milliseconds": statistics.median(milliseconds), "fastest": milliseconds[0], "slowest": milliseconds[-1],
            "runs": runs, "megahertz": clock, "watts": power}


def kernel_milliseconds(call):
    """{kernel: milliseconds of one call}, by CUPTI; empty where that gives nothing."""
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as record:
        for _ in range(PROFILED_RUNS):
            call()
        torch.cuda.synchronize()
    kernels = {}
    for event in record.events():
        if event.device_type == DeviceType.CUDA:
            spent = event.time_range.elapsed_us() / 1000 / PROFILED_RUNS
            kernels[event.name] = kernels.get(event.name, 0) + spent
    return kernels


def attention_alone(kernels):
    """Milliseconds of the kernels that are no part of the pre-pass; None where nothing is known."""
    return sum(spent for kernel, spent in kernels.items() if ATTENTION_KERNEL in kernel) or None
