package org.scaledit.evaluation;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import org.bytedeco.pytorch.Context;
import org.bytedeco.pytorch.cuda.CUDAAllocator;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/**
 * Time and memory of what computes, the CPU or the first GPU. Memory is what torch's caching allocator has handed out
 * on the GPU: all tensors and workspaces, but neither the CUDA context nor what the allocator keeps for later.
 */
record Hardware(boolean cuda) {
    private static final byte DEVICE = 0;

    /** Wall-clock time from an idle machine to an idle machine. */
    double seconds(Runnable work) {
        await();
        long begun = System.nanoTime();
        work.run();
        await();
        return (System.nanoTime() - begun) / 1e9;
    }

    /** Waits until the machine is idle. */
    void await() {
        if (cuda) {
            Cuda.synchronize();
        }
    }

    /** The middle one, or the lower of the two in the middle. */
    static double median(List<Double> values) {
        return values.stream().sorted().toList().get((values.size() - 1) / 2);
    }

    /** Bytes of the GPU's memory that are handed out. */
    OptionalLong allocatedBytes() {
        return cuda
                ? OptionalLong.of(Tensors.compute(
                        () -> torch.getDeviceStats(DEVICE).allocated_bytes().current()))
                : OptionalLong.empty();
    }

    /** The most bytes handed out at a time since {@link #forgetPeak}. */
    OptionalLong peakBytes() {
        return cuda
                ? OptionalLong.of(Tensors.compute(
                        () -> torch.getDeviceStats(DEVICE).allocated_bytes().peak()))
                : OptionalLong.empty();
    }

    /**
     * Gives what the allocator and cuBLAS keep back to the GPU and begins to look for a new peak: each measurement counts
     * cuBLAS's workspace.
     */
    void forgetPeak() {
        if (cuda) {
            Tensors.run(() -> {
                torch_cuda.clearCublasWorkspaces();
                torch.emptyCache();
                CUDAAllocator allocator = torch_cuda.getAllocator();
                allocator.resetPeakStats(DEVICE);
            });
        }
    }

    /** What a result depends on beside the program: names and versions. */
    Map<String, String> description() {
        Map<String, String> description = new LinkedHashMap<>();
        description.put("device", cuda ? gpu() : "CPU, " + Runtime.getRuntime().availableProcessors() + " processors");
        description.put("torch", Torch.version());
        if (cuda) {
            description.put("cuda", String.valueOf(Context.versionCUDART()));
            description.put("cudnn", String.valueOf(Context.versionRuntimeCuDNN()));
        }
        description.put("java", Runtime.version().toString());
        return description;
    }

    private static String gpu() {
        return Tensors.compute(
                () -> torch_cuda.getDeviceProperties(DEVICE).name().getString());
    }
}
