package org.scaledit.testing;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** What tests tagged {@code gpu} share. */
public final class Gpu {
    public static final Placement FLOAT32 = new Placement(torch.ScalarType.Float, true);
    public static final Placement BFLOAT16 = new Placement(torch.ScalarType.BFloat16, true);

    private Gpu() {}

    /** Takes all of the GPU's free memory but so many bytes, until {@link #giveBack}. */
    public static Tensor takeAllBut(long bytes) {
        return Tensors.outlive(() -> {
            Placement placement = new Placement(torch.ScalarType.Byte, true);
            return torch.empty(new long[] {Cuda.freedMemory().free() - bytes}, placement.options(), null);
        });
    }

    /** To the GPU, and not to torch's allocator: what is loaded later, as kernels are, has to find memory as well. */
    public static void giveBack(Tensor taken) {
        Tensors.run(() -> {
            taken.close();
            torch.emptyCache();
        });
    }

    /** Bytes of the GPU's memory that torch's tensors take up, among them one of this method's own. */
    public static long allocatedBytes() {
        return Tensors.compute(() -> {
            torch.empty(new long[] {1}, FLOAT32.options(), null); // the first tensor sets the allocator up
            return torch.getDeviceStats((byte) 0).allocated_bytes().current();
        });
    }

    /** The most bytes that {@code work} takes up beyond what was allocated before, workspaces of cuBLAS among them. */
    public static long peakBytes(Runnable work) {
        torch_cuda.clearCublasWorkspaces();
        long before = allocatedBytes();
        torch_cuda.getAllocator().resetPeakStats((byte) 0);
        work.run();
        return Tensors.compute(
                        () -> torch.getDeviceStats((byte) 0).allocated_bytes().peak())
                - before;
    }
}
