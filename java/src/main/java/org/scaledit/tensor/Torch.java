package org.scaledit.tensor;

import java.io.IOException;
import java.net.URL;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.global.torch;

/** Loads libtorch, so that what is missing is named before anything is computed. */
public final class Torch {
    /** A library of each artifact whose platform jar is needed. */
    private record Part(String artifact, String library) {}

    private static final List<Part> PARTS = List.of(
            new Part("javacpp", "jnijavacpp"), new Part("openblas", "jniopenblas"), new Part("pytorch", "jnitorch"));

    private Torch() {}

    /**
     * Loads libtorch if it is not loaded yet.
     *
     * @throws IllegalStateException naming the platform jars that the class path lacks; every place that was looked at
     *     is a suppressed exception
     */
    public static void load() {
        try {
            Loader.load(torch.class);
        } catch (LinkageError e) {
            throw failed(e);
        }
    }

    private static IllegalStateException failed(LinkageError cause) {
        List<String> missing = new ArrayList<>();
        List<String> looked = new ArrayList<>();
        for (Part part : PARTS) {
            String resource = "/org/bytedeco/" + part.artifact() + "/" + platform(part) + "/"
                    + System.mapLibraryName(part.library());
            URL found = Torch.class.getResource(resource);
            looked.add(found == null ? "the class path has no " + resource : "the class path has " + found);
            if (found == null) {
                missing.add("org.bytedeco:" + part.artifact() + ":" + version(part) + ":" + platform(part));
            }
        }
        String message = missing.isEmpty()
                ? "libtorch cannot be loaded though its libraries are on the class path: " + cause.getMessage()
                : "libtorch cannot be loaded: add " + String.join(", ", missing) + " to the class path";
        IllegalStateException failure = new IllegalStateException(message, cause);
        looked.forEach(place -> failure.addSuppressed(new UnsatisfiedLinkError(place)));
        return failure;
    }

    /** The classifier: PyTorch alone has one of its own for GPUs. */
    private static String platform(Part part) {
        String extension = System.getProperty("org.bytedeco.javacpp.platform.extension", "");
        return Loader.getPlatform() + (part.artifact().equals("pytorch") ? extension : "");
    }

    private static String version(Part part) {
        try {
            String version = Loader.getVersion("org.bytedeco", part.artifact(), torch.class);
            return version == null ? "VERSION" : version;
        } catch (IOException e) {
            return "VERSION";
        }
    }
}
