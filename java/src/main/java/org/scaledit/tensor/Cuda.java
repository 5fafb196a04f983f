package org.scaledit.tensor;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.SizeTPair;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.jspecify.annotations.Nullable;

/** Torch's side of an NVIDIA GPU. */
public final class Cuda {
    /** cuDNN finds no way to compute a convolution, all of which it has, when none of them gets its workspace. */
    private static final List<String> OUT_OF_MEMORY = List.of(
            "out of memory", "_STATUS_ALLOC_FAILED", "_ALLOCATION_FAILED", "unable to find an engine to execute");

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

    /** How many GPUs there are. */
    public static int count() {
        return torch_cuda.device_count();
    }

    /**
     * Has this thread compute on another GPU than the first: a {@link Placement} on a GPU is, like torch's "cuda" without a
     * number, that of the thread that makes a tensor or moves one there. The threads that torch's autograd computes with have
     * that of the tensors which they are given, and the native core takes a tensor's own.
     *
     * @param gpu from 0
     */
    public static void use(int gpu) {
        torch_cuda.set_device((byte) gpu);
    }

    /** That of this thread, from 0. */
    public static int current() {
        return torch_cuda.current_device();
    }

    /**
     * Does something on a GPU, whichever the caller has this thread compute on otherwise.
     *
     * @param gpu from 0
     */
    public static void on(int gpu, Runnable work) {
        int callers = current();
        if (callers == gpu) {
            work.run(); // a GPU that fails on the way is asked nothing more
            return;
        }
        use(gpu);
        try {
            work.run();
        } catch (RuntimeException | Error e) {
            try {
                use(callers);
            } catch (RuntimeException again) {
                e.addSuppressed(again);
            }
            throw e;
        }
        use(callers);
    }

    /** Waits until all that this process has queued on this thread's GPU is done. */
    public static void synchronize() {
        torch_cuda.device_synchronize();
    }

    /**
     * Whether a computation failed for want of the GPU's memory: then less may still fit.
     *
     * @param failure what torch or the native core threw
     */
    public static boolean isOutOfMemory(Throwable failure) {
        // What torch throws has no class of its own in Java: the words of its allocator, of CUDA and of CUDA's
        // libraries
        // are in the message.
        String message = failure.getMessage();
        return message != null && OUT_OF_MEMORY.stream().anyMatch(message::contains);
    }

    /**
     * What CUDA answers to everything from now on, in one line; empty if the GPU can be used on. Waits until all that is
     * queued is done.
     */
    public static Optional<String> failure() {
        try {
            synchronize();
            return Optional.empty();
        } catch (RuntimeException once) {
            // The answer to one call is forgotten with the next, unless a kernel or the GPU itself has failed.
            try {
                synchronize();
                return Optional.empty();
            } catch (RuntimeException always) {
                String message = String.valueOf(always.getMessage());
                return Optional.of(message.lines().findFirst().orElse(message));
            }
        }
    }

    /**
     * Bytes of a GPU.
     *
     * @param free of this process and all others
     */
    public record Memory(long free, long total) {}

    /** Gives back what torch keeps for later and asks how much is free on this thread's GPU. */
    public static Memory freedMemory() {
        return Tensors.compute(() -> {
            torch.emptyCache();
            SizeTPair memory = torch.getMemoryInfo((byte) current());
            return new Memory(memory.first(), memory.second());
        });
    }

    /** A {@code cudaStream_t}, on which torch queues what this thread asks of it; null is the default one. */
    public static @Nullable Pointer currentStream() {
        return torch_cuda.getCurrentCUDAStream().stream();
    }
}
