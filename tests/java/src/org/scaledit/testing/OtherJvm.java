package org.scaledit.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.ServerSocket;
import java.nio.file.Path;
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
}
