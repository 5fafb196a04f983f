package org.scaledit.tensor;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.jspecify.annotations.Nullable;

/** Torch's side of an NVIDIA GPU. */
public final class Cuda {
    private Cuda() {}

    /**
     * Refuses a process in which builds for GPUs are not there to be loaded. Loads nothing.
     *
     * @param missingCore the native core's artifact, if it is missing too
     * @throws IllegalStateException naming the artifacts and the property that the process lacks
     */
    public static void requireBuild(Optional<String> missingCore) {
        List<String> missing = new ArrayList<>(Torch.missingForGpu());
        missingCore.ifPresent(missing::add);
        List<String> steps = new ArrayList<>();
        if (!missing.isEmpty()) {
            steps.add("add " + String.join(", ", missing) + " to the class path");
        }
        if (!Torch.isGpuBuild()) {
            steps.add("start Java with -D" + Torch.EXTENSION_PROPERTY + "=" + Torch.GPU_EXTENSION);
        }
        if (!steps.isEmpty()) {
            throw new IllegalStateException("device cuda needs builds for GPUs: " + String.join(" and ", steps));
        }
    }

    /**
     * Loads libtorch and makes sure that it computes on a GPU.
     *
     * @throws IllegalStateException in one sentence: what the class path or the library path lacks, or that libtorch
     *     finds no GPU
     */
    public static void load() {
        Torch.load();
        if (!torch.cuda_is_available()) {
            throw new IllegalStateException(
                    "device cuda cannot be used: libtorch finds no GPU that its CUDA libraries and the driver serve");
        }
        // For convolutions torch allows TF32, 10 bits of mantissa, unless told otherwise: float32 means float32.
        torch.globalContext().setAllowTF32CuDNN(false);
    }

    /** Waits until all that this process has queued on the GPU is done. */
    public static void synchronize() {
        torch_cuda.device_synchronize();
    }

    /** Whether a computation failed for want of the GPU's memory: then less may still fit. */
    public static boolean isOutOfMemory(Throwable failure) {
        // What torch throws has no class of its own in Java, and the words of its allocator are in the message.
        String message = failure.getMessage();
        return failure instanceof OutOfMemoryError || message != null && message.contains("out of memory");
    }

    /** A {@code cudaStream_t}, on which torch queues what this thread asks of it; null is the default one. */
    public static @Nullable Pointer currentStream() {
        return torch_cuda.getCurrentCUDAStream().stream();
    }
}
