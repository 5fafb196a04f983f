package org.scaledit.tensor;

import java.io.IOException;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_cuda;
import org.scaledit.bindings.NativeEnvironment;

/** Loads libtorch, so that what is missing is named before anything is computed. */
public final class Torch {
    /** JavaCPP's: what the classifiers of the platform jars to use end in. */
    static final String EXTENSION_PROPERTY = "org.bytedeco.javacpp.platform.extension";

    static final String GPU_EXTENSION = "-gpu";

    private static final AtomicBoolean PROCESSOR_CHECKED = new AtomicBoolean();

    /** A library of each artifact whose platform jar is needed; the extension is a part of its classifier. */
    private record Part(String artifact, String library, String extension) {
        String classifier() {
            return Loader.getPlatform() + extension;
        }

        String resource() {
            return "/org/bytedeco/" + artifact + "/" + classifier() + "/" + System.mapLibraryName(library);
        }

        String coordinates() {
            return "org.bytedeco:" + artifact + ":" + version(artifact) + ":" + classifier();
        }
    }

    private Torch() {}

    /**
     * Loads libtorch if it is not loaded yet, and the native core before it. Whatever computes comes here first: classes of
     * the presets load libtorch, too, but its threads then spin while they wait.
     *
     * @throws IllegalStateException naming the platform jars that the class path lacks; every place that was looked at
     *     is a suppressed exception
     */
    public static void load() {
        // Threads that spin while they wait keep those of the core and of OpenBLAS from working: a picture took five
        // times as long. libgomp reads this once, when it comes with libtorch; a user's GOMP_SPINCOUNT counts for more.
        NativeEnvironment.setIfAbsent("OMP_WAIT_POLICY", "PASSIVE");
        // A large tensor is new memory each time. Pages of 2 MiB come in a five-hundredth of the faults that pages of 4
        // KiB
        // take, which on a virtual machine cost more than what is computed.
        NativeEnvironment.setIfAbsent("THP_MEM_ALLOC_ENABLE", "1");
        try {
            // What is for GPUs goes first: torch looks for it once, when it is first used.
            Loader.load(isGpuBuild() ? torch_cuda.class : torch.class);
        } catch (LinkageError e) {
            throw failed(e);
        }
        if (PROCESSOR_CHECKED.compareAndSet(false, true)) {
            makeUpForUnknownProcessor();
        }
    }

    /**
     * On a processor that it does not know, one newer than itself for example, libtorch takes one thread, and NNPACK, which does
     * not know it either, says so at every convolution.
     */
    private static void makeUpForUnknownProcessor() {
        int cores = Math.min(Loader.totalCores(), Runtime.getRuntime().availableProcessors());
        if (torch.get_num_threads() == 1 && cores > 1 && System.getenv("OMP_NUM_THREADS") == null) {
            torch.set_num_threads(cores);
            torch.globalContext().setUserEnabledNNPACK(false);
        }
    }

    /** The version of the presets, "2.10.0-1.5.13". */
    public static String version() {
        return version("pytorch");
    }

    /** The platform jars of the build for GPUs that the class path lacks. */
    static List<String> missingForGpu() {
        return parts(GPU_EXTENSION).stream()
                .filter(part -> Torch.class.getResource(part.resource()) == null)
                .map(Part::coordinates)
                .toList();
    }

    /** Whether libtorch's build for GPUs is the one to load. */
    static boolean isGpuBuild() {
        return extension().equals(GPU_EXTENSION);
    }

    private static String extension() {
        return System.getProperty(EXTENSION_PROPERTY, "");
    }

    /** PyTorch alone has a build of its own for GPUs. */
    private static List<Part> parts(String extension) {
        List<Part> parts = new ArrayList<>(List.of(
                new Part("javacpp", "jnijavacpp", ""),
                new Part("openblas", "jniopenblas", ""),
                new Part("pytorch", "jnitorch", extension)));
        if (extension.equals(GPU_EXTENSION)) {
            parts.add(new Part("cuda", "jnicudart", ""));
        }
        return parts;
    }

    private static IllegalStateException failed(LinkageError cause) {
        List<String> missing = new ArrayList<>();
        List<String> looked = new ArrayList<>();
        for (Part part : parts(extension())) {
            URL found = Torch.class.getResource(part.resource());
            looked.add(found == null ? "the class path has no " + part.resource() : "the class path has " + found);
            if (found == null) {
                missing.add(part.coordinates());
            }
        }
        String message = missing.isEmpty()
                ? "libtorch cannot be loaded though its libraries are on the class path: " + reason(cause)
                : "libtorch cannot be loaded: add " + String.join(", ", missing) + " to the class path";
        IllegalStateException failure = new IllegalStateException(message, cause);
        looked.forEach(place -> failure.addSuppressed(new UnsatisfiedLinkError(place)));
        return failure;
    }

    /** The linker's own words, with what helps: NVIDIA's libraries are in no jar. */
    private static String reason(LinkageError error) {
        Throwable cause = error.getCause() == null ? error : error.getCause();
        return cause.getMessage()
                + (isGpuBuild() ? " (expected on the library path: NVIDIA's driver, CUDA 13, cuDNN 9 and NCCL 2)" : "");
    }

    private static String version(String artifact) {
        try {
            String version = Loader.getVersion("org.bytedeco", artifact, torch.class);
            return version == null ? "VERSION" : version;
        } catch (IOException e) {
            return "VERSION";
        }
    }
}
