package org.scaledit.scenes;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;

/** All that scenes may show. */
public record Vocabulary(List<SceneObject> objects) {
    /** A scene shows as many. */
    public static final int FEWEST = 4;

    public Vocabulary {
        objects = List.copyOf(objects);
        if (objects.size() < FEWEST) {
            throw new IllegalArgumentException(
                    "the vocabulary has " + objects.size() + " objects, expected at least " + FEWEST);
        }
    }

    /** The project's own: 188 objects, 32 of them in all colours. */
    public static Vocabulary standard() {
        try (InputStream stream = Objects.requireNonNull(Vocabulary.class.getResourceAsStream("objects.tsv"))) {
            return read(stream);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /**
     * Lines of icon, name, plural, another name, its plural, and {@code coloured}, with tabs between them; later fields may be
     * missing.
     */
    static Vocabulary read(InputStream stream) throws IOException {
        BufferedReader reader = new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8));
        return new Vocabulary(reader.lines()
                .filter(line -> !line.startsWith("#"))
                .map(Vocabulary::object)
                .toList());
    }

    private static SceneObject object(String line) {
        String[] fields = line.split("\t", -1);
        if (fields.length < 3) {
            throw new IllegalArgumentException("the vocabulary's line \"" + line + "\" has " + fields.length
                    + " fields, expected icon, name and plural");
        }
        List<SceneObject.Name> names = new ArrayList<>();
        names.add(new SceneObject.Name(fields[1], fields[2]));
        if (fields.length > 4 && !fields[3].isEmpty()) {
            names.add(new SceneObject.Name(fields[3], fields[4]));
        }
        return new SceneObject(fields[0], List.copyOf(names), fields.length > 5 && fields[5].equals("coloured"));
    }
}
