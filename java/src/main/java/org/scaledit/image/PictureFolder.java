package org.scaledit.image;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Set;
import java.util.SortedSet;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.scaledit.file.Reasons;

/** The pictures of a folder, without those of folders in it. */
public final class PictureFolder {
    /** Of pictures, also those that cannot be read: one that is left out would not be noticed. */
    private static final Set<String> EXTENSIONS =
            Set.of("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "heic", "avif", "jxl");

    private PictureFolder() {}

    /**
     * The names of the files, in their order.
     *
     * @throws ImageException if the folder cannot be read
     */
    public static SortedSet<String> names(Path folder) {
        try (Stream<Path> entries = Files.list(folder)) {
            return entries.map(entry -> entry.getFileName().toString())
                    .filter(name -> !name.startsWith(".") && EXTENSIONS.contains(extension(name)))
                    .collect(Collectors.toCollection(TreeSet::new));
        } catch (IOException e) {
            throw new ImageException("cannot read the folder " + folder + ": " + Reasons.of(e), e);
        }
    }

    private static String extension(String name) {
        return name.substring(name.lastIndexOf('.') + 1).toLowerCase(Locale.ROOT);
    }
}
