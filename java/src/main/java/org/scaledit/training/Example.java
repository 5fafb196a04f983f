package org.scaledit.training;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.scaledit.file.Reasons;
import org.scaledit.image.PictureFolder;

/**
 * A picture and what it shows.
 *
 * @param name of its file, relative to the folder
 */
record Example(String name, Path image, String caption) {
    static final String METADATA = "metadata.jsonl";

    private static final ObjectMapper JSON = new ObjectMapper();

    /**
     * The examples of a folder, in the order of their names. Captions are in {@code metadata.jsonl}, a line {@code
     * {"file_name": …, "text": …}} for each picture (Hugging Face's ImageFolder), or else in a {@code .txt} file beside each. A
     * {@link PaintedSet} may be partly made: lines of pictures that are not there yet are left out.
     *
     * @throws TrainingException naming the picture without a caption, the line that says nothing, or the empty folder
     * @throws org.scaledit.image.ImageException if the folder cannot be listed
     */
    static List<Example> of(Path folder) {
        if (!Files.isDirectory(folder)) {
            throw new TrainingException(
                    "data " + folder + (Files.exists(folder) ? " is not a folder" : " does not exist")
                            + ", expected a folder of pictures");
        }
        Set<String> pictures = PictureFolder.names(folder);
        Path metadata = folder.resolve(METADATA);
        List<Example> examples = Files.exists(metadata)
                ? listed(folder, metadata, pictures)
                : pictures.stream().map(name -> captioned(folder, name)).toList();
        if (examples.isEmpty()) {
            throw new TrainingException("data " + folder + " has no pictures, expected PNG or JPEG files");
        }
        return examples;
    }

    private static Example captioned(Path folder, String name) {
        Path file = folder.resolve(name.substring(0, name.lastIndexOf('.')) + ".txt");
        if (!Files.exists(file)) {
            throw new TrainingException("picture " + folder.resolve(name) + " has no caption, expected one in "
                    + file.getFileName() + ", or a " + METADATA);
        }
        try {
            return example(folder, name, Files.readString(file), file.toString());
        } catch (IOException e) {
            throw new TrainingException("cannot read caption " + file + ": " + reason(e), e);
        }
    }

    private static Example example(Path folder, String name, String caption, String where) {
        if (caption.isBlank()) {
            throw new TrainingException(
                    "the caption of picture " + folder.resolve(name) + " in " + where + " is empty");
        }
        return new Example(name, folder.resolve(name), caption.strip());
    }

    private static List<Example> listed(Path folder, Path metadata, Set<String> pictures) {
        List<Example> examples = new ArrayList<>();
        Set<String> without = new TreeSet<>(pictures);
        Set<String> names = new TreeSet<>();
        List<String> lines = lines(metadata);
        boolean partly = Files.exists(folder.resolve(PaintedSet.DESCRIPTION));
        for (int line = 0; line < lines.size(); line++) {
            if (lines.get(line).isBlank()) {
                continue;
            }
            String where = METADATA + ", line " + (line + 1);
            Example example = listed(folder, lines.get(line), where);
            if (!Files.exists(example.image)) {
                if (partly) {
                    continue;
                }
                throw new TrainingException("picture " + example.image + " does not exist, which is in " + where);
            }
            if (!names.add(example.name)) {
                throw new TrainingException(
                        "data " + folder + " has a second caption for " + example.name + " in " + where);
            }
            without.remove(example.name);
            examples.add(example);
        }
        if (!without.isEmpty()) {
            throw new TrainingException(
                    "picture " + folder.resolve(without.iterator().next())
                            + " has no caption, expected a line for it in " + METADATA);
        }
        examples.sort((a, b) -> a.name.compareTo(b.name));
        return examples;
    }

    private static List<String> lines(Path metadata) {
        try {
            return Files.readAllLines(metadata);
        } catch (IOException e) {
            throw new TrainingException("cannot read " + metadata + ": " + reason(e), e);
        }
    }

    private static Example listed(Path folder, String line, String where) {
        JsonNode entry;
        try {
            entry = JSON.readTree(line);
        } catch (JsonProcessingException e) {
            throw new TrainingException("data " + folder + " has no JSON object in " + where, e);
        }
        String name = text(folder, entry, "file_name", where);
        return example(folder, name, text(folder, entry, "text", where), where);
    }

    private static String text(Path folder, JsonNode entry, String field, String where) {
        if (!entry.path(field).isTextual()) {
            throw new TrainingException(
                    "data " + folder + " has no field " + field + " in " + where + ", expected file_name and text");
        }
        return entry.path(field).textValue();
    }

    private static String reason(IOException e) {
        return e instanceof CharacterCodingException ? "it is not UTF-8" : Reasons.of(e);
    }
}
