package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.net.URISyntaxException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.Tensor;
import org.jspecify.annotations.NullMarked;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.ScaleDit;
import org.scaledit.bindings.NativeLibrary;

/** What a user reads when native libraries are missing; each case in a process of its own with a bare class path. */
class LoadingTest {
    private static final String EXTENSION = "-Dorg.bytedeco.javacpp.platform.extension=-gpu";

    @TempDir
    Path folder;

    /** Loads one of the two and prints how that went. */
    static final class Loading {
        private Loading() {}

        public static void main(String[] arguments) {
            Runnable load = switch (arguments[0]) {
                case "torch" -> Torch::load;
                case "precision" -> () -> ScaleDit.Precision.defaultOn(ScaleDit.Device.CPU);
                default -> NativeLibrary::load;
            };
            for (int attempt = 0; attempt < 2; attempt++) {
                try {
                    load.run();
                    System.out.println("loaded");
                } catch (IllegalStateException e) {
                    System.out.println(e.getMessage());
                    Stream.of(e.getSuppressed()).forEach(tried -> System.out.println("tried: " + tried.getMessage()));
                }
            }
        }
    }

    @Test
    void aMissingNativeCoreNamesTheArtifactThePropertyAndWhatWasTried() throws Exception {
        List<String> lines = run("core", List.of());
        assertThat(lines.get(0))
                .startsWith("the native core cannot be loaded: add the artifact org.scaledit:scaledit-native:")
                .endsWith(":" + Loader.getPlatform() + " to the class path, or name the folder of libscaledit.so and"
                        + " libjniScaleDitCore.so with -Dorg.scaledit.library.path=FOLDER");
        assertThat(lines)
                .anyMatch(line -> line.equals("tried: the class path has no /org/scaledit/bindings/"
                        + Loader.getPlatform() + "/libscaledit.so"))
                .anyMatch(line ->
                        line.startsWith("tried: the class path has no ") && line.endsWith("/libjniScaleDitCore.so"))
                .anyMatch(line -> line.startsWith("tried: libraries are extracted to the cache folder " + folder))
                .anyMatch(line -> line.startsWith("tried: java.library.path is "));
        assertThat(lines.subList(lines.size() / 2, lines.size()))
                .as("the second attempt says the same")
                .isEqualTo(lines.subList(0, lines.size() / 2));
    }

    /** What a program may ask the core first. */
    @Test
    void thePrecisionOfAProcessorLoadsTheCoreLikewise() throws Exception {
        assertThat(run("precision", List.of())).isEqualTo(run("core", List.of()));
    }

    /** Libtorch's threads are told how to wait through the core, before there are any. */
    @Test
    void libtorchLoadsTheCoreFirst() throws Exception {
        assertThat(run("torch", List.of())).isEqualTo(run("core", List.of()));
    }

    @Test
    void theExtensionForGpusIsAPartOfTheClassifier() throws Exception {
        String gpu = Loader.getPlatform() + "-gpu";
        List<String> lines = run("core", List.of(EXTENSION));
        assertThat(lines.get(0))
                .startsWith("the native core cannot be loaded: add the artifact org.scaledit:scaledit-native:")
                .contains(":" + gpu + " to the class path");
        assertThat(lines).contains("tried: the class path has no /org/scaledit/bindings/" + gpu + "/libscaledit.so");
        Path classPath = folder.resolve("gpu-classes");
        extract(classPath.resolve("org/scaledit/bindings/" + gpu));
        assertThat(run("core", List.of(EXTENSION), classPath)).containsExactly("loaded", "loaded");
        lines = run("torch", List.of(EXTENSION), classPath);
        assertThat(lines.get(0))
                .startsWith("libtorch cannot be loaded: add org.bytedeco:javacpp:")
                .contains("org.bytedeco:openblas:", "org.bytedeco:pytorch:2", ":" + gpu + ", org.bytedeco:cuda:13")
                .endsWith(":" + Loader.getPlatform() + " to the class path");
    }

    @Test
    void aFolderWithoutTheLibrariesIsNamedAndNothingElseIsTried() throws Exception {
        Path classPath = folder.resolve("classes");
        extract(classPath.resolve("org/scaledit/bindings/" + Loader.getPlatform()));
        List<String> lines = run("core", List.of("-Dorg.scaledit.library.path=" + folder), classPath);
        assertThat(lines.subList(0, 3))
                .containsExactly(
                        "the native core cannot be loaded from " + folder
                                + ", the folder that the property org.scaledit.library.path names: expected"
                                + " libscaledit.so and libjniScaleDitCore.so of " + Loader.getPlatform() + " there",
                        "tried: " + folder + "/libscaledit.so does not exist",
                        "tried: " + folder + "/libjniScaleDitCore.so does not exist");
    }

    @Test
    void aFileThatIsNoLibraryIsNamed() throws Exception {
        Files.writeString(folder.resolve("libscaledit.so"), "not a library");
        Files.writeString(folder.resolve("libjniScaleDitCore.so"), "not a library");
        List<String> lines = run("core", List.of("-Dorg.scaledit.library.path=" + folder));
        assertThat(lines.get(0)).startsWith("the native core cannot be loaded from " + folder);
        assertThat(lines.get(1)).startsWith("tried: " + folder + "/libscaledit.so: ");
        assertThat(lines).doesNotContain("loaded");
    }

    @Test
    void theFolderThatThePropertyNamesIsUsed() throws Exception {
        extract(folder);
        assertThat(run("core", List.of("-Dorg.scaledit.library.path=" + folder)))
                .containsExactly("loaded", "loaded");
    }

    @Test
    void missingPlatformJarsOfTorchAreNamed() throws Exception {
        extract(folder);
        List<String> lines = run("torch", List.of("-Dorg.scaledit.library.path=" + folder));
        assertThat(lines.get(0))
                .startsWith("libtorch cannot be loaded: add org.bytedeco:javacpp:")
                .contains("org.bytedeco:openblas:", "org.bytedeco:pytorch:2")
                .endsWith(":" + Loader.getPlatform() + " to the class path");
        assertThat(lines)
                .contains("tried: the class path has no /org/bytedeco/pytorch/" + Loader.getPlatform()
                        + "/libjnitorch.so");
    }

    /** Runs {@link Loading} on classes alone, and what is added. */
    private List<String> run(String what, List<String> options, Path... added)
            throws IOException, InterruptedException, URISyntaxException {
        List<Path> classPath = new ArrayList<>(List.of(added));
        for (Class<?> part : List.of(
                Loading.class, Torch.class, NativeLibrary.class, Loader.class, Tensor.class, NullMarked.class)) {
            classPath.add(location(part));
        }
        classPath.add(location(org.bytedeco.openblas.global.openblas.class));
        classPath.add(location(org.bytedeco.cuda.global.cudart.class));
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-Dorg.bytedeco.javacpp.cachedir=" + folder.resolve("cache"),
                "-cp",
                classPath.stream().map(Path::toString).collect(Collectors.joining(File.pathSeparator))));
        command.addAll(options);
        command.addAll(List.of(Loading.class.getName(), what));
        Path errors = folder.resolve("errors.txt");
        Process process =
                new ProcessBuilder(command).redirectError(errors.toFile()).start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as(Files.readString(errors)).isZero();
        return output.lines().toList();
    }

    /** Copies the native core's libraries off this test's class path. */
    private static void extract(Path target) throws IOException {
        Files.createDirectories(target);
        for (String name : List.of("libscaledit.so", "libjniScaleDitCore.so")) {
            String resource = "/org/scaledit/bindings/" + Loader.getPlatform() + "/" + name;
            try (InputStream in = Objects.requireNonNull(NativeLibrary.class.getResourceAsStream(resource))) {
                Files.copy(in, target.resolve(name));
            }
        }
    }

    private static Path location(Class<?> type) throws URISyntaxException {
        return Path.of(type.getProtectionDomain().getCodeSource().getLocation().toURI());
    }
}
