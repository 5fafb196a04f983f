package org.scaledit.testing;

import java.io.IOException;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.jar.JarOutputStream;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;

/** A jar that carries a model, as scaledit-demo-model does. */
public final class ModelJar {
    private ModelJar() {}

    /** Packs a model's directory. */
    public static Path write(Path model, Path jar) throws IOException {
        List<Path> files;
        try (Stream<Path> entries = Files.walk(model)) {
            files = entries.filter(Files::isRegularFile).toList();
        }
        try (JarOutputStream out = new JarOutputStream(Files.newOutputStream(jar))) {
            for (Path file : files) {
                out.putNextEntry(new ZipEntry("org/scaledit/model/" + model.relativize(file)));
                Files.copy(file, out);
                out.closeEntry();
            }
        }
        return jar;
    }

    /** Runs {@code body} with a jar or folder on the class path of this thread. */
    public static <T> T on(Path classPath, Callable<T> body) throws Exception {
        Thread thread = Thread.currentThread();
        ClassLoader before = thread.getContextClassLoader();
        try (URLClassLoader loader = new URLClassLoader(new URL[] {url(classPath)}, before)) {
            thread.setContextClassLoader(loader);
            return body.call();
        } finally {
            thread.setContextClassLoader(before);
        }
    }

    private static URL url(Path path) throws MalformedURLException {
        return path.toUri().toURL();
    }
}
