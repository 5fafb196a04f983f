package org.scaledit.bindings;

import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;
import org.bytedeco.javacpp.Loader;
import org.jspecify.annotations.NullMarked;
import org.jspecify.annotations.Nullable;

/**
 * Loads the native core, {@code libscaledit.so} and its JNI half {@code libjniScaleDitCore.so}, once for the process.
 *
 * <p>They are looked for on the class path (the jar {@code scaledit-native} with this platform's classifier, extracted
 * to JavaCPP's cache folder) and then on {@code java.library.path}. Where JavaCPP's property {@value #EXTENSION_PROPERTY}
 * is set to {@code -gpu}, the classifier ends in it: the same core with kernels for NVIDIA GPUs. The property {@value #PATH_PROPERTY} names a folder
 * to take them from instead; then nothing else is tried.
 */
@NullMarked
public final class NativeLibrary {
    /** Folder that holds both libraries. */
    public static final String PATH_PROPERTY = "org.scaledit.library.path";

    private static final String EXTENSION_PROPERTY = "org.bytedeco.javacpp.platform.extension";
    private static final String GPU_EXTENSION = "-gpu";

    /** The core, then the half that needs it. */
    private static final List<String> NAMES = List.of("scaledit", "jniScaleDitCore");

    private static boolean loaded;
    private static @Nullable IllegalStateException failure;

    private NativeLibrary() {}

    /**
     * Loads the native core if it is not loaded yet.
     *
     * @throws IllegalStateException naming the artifact and the property that help; every place that was tried is a
     *     suppressed exception
     */
    public static synchronized void load() {
        if (loaded) {
            return;
        }
        if (failure != null) {
            throw failure;
        }
        try {
            String folder = System.getProperty(PATH_PROPERTY);
            if (folder != null) {
                loadFrom(Path.of(folder));
            } else {
                loadFromClassPath();
            }
            loaded = true;
        } catch (IllegalStateException e) {
            failure = e;
            throw e;
        }
    }

    /** The artifact with kernels for GPUs, if the core is not taken from it. */
    public static Optional<String> missingGpuArtifact() {
        String classifier = Loader.getPlatform() + GPU_EXTENSION;
        boolean there = System.getProperty(PATH_PROPERTY) != null
                || NativeLibrary.class.getResource(resource(classifier, NAMES.get(0))) != null;
        return there ? Optional.empty() : Optional.of(artifact(classifier));
    }

    private static void loadFrom(Path folder) {
        List<Throwable> tried = new ArrayList<>();
        for (String name : NAMES) {
            if (!Files.isRegularFile(file(folder, name))) {
                tried.add(new UnsatisfiedLinkError(file(folder, name) + " does not exist"));
            }
        }
        if (tried.isEmpty()) {
            NAMES.forEach(name -> load(file(folder, name), name, tried));
        }
        if (tried.isEmpty()) {
            initialize(tried);
        }
        if (!tried.isEmpty()) {
            throw failed(
                    "the native core cannot be loaded from " + folder + ", the folder that the property "
                            + PATH_PROPERTY + " names: expected " + fileNames() + " of " + platform() + " there",
                    tried);
        }
    }

    private static Path file(Path folder, String name) {
        return folder.resolve(System.mapLibraryName(name)).toAbsolutePath();
    }

    /** The loader remembers the name, so that the bindings' own request for it is met. */
    private static void load(Path file, String name, List<Throwable> tried) {
        try {
            String found = Loader.loadLibrary(
                    NativeLibrary.class, new URL[] {file.toUri().toURL()}, name);
            if (!file.toString().equals(found)) {
                tried.add(new UnsatisfiedLinkError("instead of " + file + " the system found " + found));
            }
        } catch (UnsatisfiedLinkError e) {
            Throwable cause = e.getCause(); // what is wrong with the file; the error itself is about java.library.path
            tried.add(cause == null ? e : cause);
        } catch (MalformedURLException e) {
            tried.add(e);
        }
    }

    private static void loadFromClassPath() {
        List<Throwable> tried = new ArrayList<>();
        initialize(tried);
        if (!tried.isEmpty()) {
            NAMES.forEach(name -> tried.add(new UnsatisfiedLinkError(onClassPath(name))));
            tried.add(new UnsatisfiedLinkError("libraries are extracted to the cache folder " + cacheFolder()
                    + ", the property org.bytedeco.javacpp.cachedir names another"));
            tried.add(new UnsatisfiedLinkError("java.library.path is " + System.getProperty("java.library.path")));
            throw failed(
                    "the native core cannot be loaded: add the artifact " + artifact(platform())
                            + " to the class path, or name the folder of " + fileNames() + " with -D" + PATH_PROPERTY
                            + "=FOLDER",
                    tried);
        }
    }

    /** Runs the bindings' static initializer, which loads what is not loaded yet. */
    private static void initialize(List<Throwable> tried) {
        try {
            ScaleDitCore.scaledit_version();
        } catch (LinkageError e) {
            tried.add(e);
        }
    }

    private static String onClassPath(String name) {
        String resource = resource(platform(), name);
        URL url = NativeLibrary.class.getResource(resource);
        return url == null ? "the class path has no " + resource : "the class path has " + url;
    }

    private static String resource(String classifier, String name) {
        return "/org/scaledit/bindings/" + classifier + "/" + System.mapLibraryName(name);
    }

    private static String artifact(String classifier) {
        return "org.scaledit:scaledit-native:" + version() + ":" + classifier;
    }

    private static String cacheFolder() {
        try {
            return Loader.getCacheDir().toString();
        } catch (IOException e) {
            return "that cannot be made: " + e.getMessage();
        }
    }

    private static String fileNames() {
        return NAMES.stream().map(System::mapLibraryName).collect(Collectors.joining(" and "));
    }

    private static String platform() {
        return Loader.getPlatform() + System.getProperty(EXTENSION_PROPERTY, "");
    }

    /** The version of the jar that this class is in. */
    private static String version() {
        try {
            String version = Loader.getVersion("org.scaledit", "scaledit-native", NativeLibrary.class);
            return version == null ? "VERSION" : version; // none outside a jar
        } catch (IOException e) {
            return "VERSION";
        }
    }

    private static IllegalStateException failed(String message, List<Throwable> tried) {
        IllegalStateException failure = new IllegalStateException(message);
        tried.forEach(failure::addSuppressed);
        return failure;
    }
}
