package org.scaledit.checkpoint;

import java.io.IOException;
import java.net.JarURLConnection;
import java.net.URISyntaxException;
import java.net.URL;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystem;
import java.nio.file.FileSystemNotFoundException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.stream.Stream;
import org.bytedeco.javacpp.Loader;
import org.scaledit.file.ContentHash;
import org.scaledit.file.Interrupts;
import org.scaledit.file.Reasons;
import org.scaledit.file.UnfinishedFolder;

/**
 * The model that a jar on the class path carries. It is extracted once, to the folder of JavaCPP's cache, under a name that
 * its content gives: another model has another folder, and programs that start at once have the same. JavaCPP itself would
 * name it by its jar and write it in place, also over a model of that name that another program has mapped.
 */
public final class EmbeddedModel {
    private static final String ARTIFACT = "org.scaledit:scaledit-demo-model";
    private static final String FOLDER = "org/scaledit/model";

    private EmbeddedModel() {}

    /**
     * The model's directory.
     *
     * @throws IllegalStateException in one sentence, if the class path has no model, or it cannot be extracted
     * @throws java.util.concurrent.CancellationException if the thread is interrupted
     */
    public static Path directory() {
        try {
            return directory(Loader.getCacheDir().toPath());
        } catch (IOException e) {
            throw new IllegalStateException("the embedded model cannot be extracted: " + Reasons.of(e), e);
        }
    }

    /** @param cache where it is extracted to */
    static Path directory(Path cache) {
        URL index = Stream.of(Thread.currentThread().getContextClassLoader(), EmbeddedModel.class.getClassLoader())
                .filter(Objects::nonNull)
                .map(loader -> loader.getResource(FOLDER + "/model_index.json"))
                .filter(Objects::nonNull)
                .findFirst()
                .orElseThrow(() -> new IllegalStateException("no model is given and none is embedded, expected "
                        + ARTIFACT + " on the class path or the folder of a FLUX.1 model"));
        try {
            if (index.openConnection() instanceof JarURLConnection jar) {
                try (FileSystem files =
                        FileSystems.newFileSystem(Path.of(jar.getJarFileURL().toURI()))) {
                    return extracted(files.getPath(FOLDER), cache);
                }
            }
            return Objects.requireNonNull(Path.of(index.toURI()).getParent());
        } catch (IOException | URISyntaxException | FileSystemNotFoundException e) {
            Interrupts.throwIfInterrupted("extracting the embedded model", e);
            throw new IllegalStateException(
                    "the embedded model cannot be extracted to " + cache + ": " + Reasons.of(e), e);
        }
    }

    private static Path extracted(Path model, Path cache) throws IOException {
        ContentHash hash = new ContentHash();
        for (Path file : UnfinishedFolder.files(model)) {
            hash.text(model.relativize(file).toString()).file(file);
        }
        Path target = cache.resolve("scaledit-model-" + hash.hex());
        if (Files.exists(target)) {
            return target;
        }
        Files.createDirectories(cache);
        try (UnfinishedFolder unfinished = new UnfinishedFolder(target)) {
            unfinished.copy(model, file -> true);
            unfinished.commit();
        } catch (FileAlreadyExistsException e) {
            // Another program has come first, with the same content.
        }
        return target;
    }
}
