package org.scaledit.testing;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** Another process with the class path and the settings of this one. */
public final class OtherJvm {
    private OtherJvm() {}

    /** A TCP port at which nobody listens. */
    public static int freePort() {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Is to run {@code main}; its errors come with its output. */
    public static ProcessBuilder of(Class<?> main, String... arguments) {
        Stream<String> settings = Stream.of(
                        "org.bytedeco.javacpp.cachedir",
                        "org.bytedeco.javacpp.platform.extension",
                        "org.bytedeco.javacpp.maxPhysicalBytes",
                        "org.scaledit.library.path",
                        "scaledit.fixtures",
                        "logback.configurationFile")
                .filter(name -> System.getProperty(name) != null)
                .map(name -> "-D" + name + "=" + System.getProperty(name));
        return new ProcessBuilder(Stream.of(
                                Stream.of(Path.of(System.getProperty("java.home"), "bin", "java")
                                        .toString()),
                                settings,
                                // What a JVM says of native access would stand in the output.
                                Stream.of("--enable-native-access=ALL-UNNAMED"),
                                Stream.of("-cp", System.getProperty("java.class.path"), main.getName()),
                                Stream.of(arguments))
                        .flatMap(part -> part)
                        .toList())
                .redirectErrorStream(true);
    }

    /** What it prints in an environment with these variables and, of others, without those; it is to end well. */
    public static String output(ProcessBuilder builder, Map<String, String> with, String... without)
            throws IOException, InterruptedException {
        builder.environment().keySet().removeAll(List.of(without));
        builder.environment().putAll(with);
        Process process = builder.start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as(output).isZero();
        return output;
    }
}
