package org.scaledit.testing;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.awt.Color;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import org.scaledit.scenes.SceneObject;
import org.scaledit.scenes.Vocabulary;

/** Two sets of simple drawings for every object of the vocabulary: what the SVG sets are to a test. */
public final class Drawings {
    /** On a canvas of 32: off its middle, slender, with a hole, in two parts. */
    private static final List<String> SHAPES = List.of(
            "<circle cx='18' cy='13' r='10' fill='%s'/>",
            "<rect x='12' y='2' width='7' height='28' fill='%s'/>",
            "<path d='M2 30 L16 4 L30 30 Z' fill='%s'/>",
            "<ellipse cx='16' cy='20' rx='15' ry='7' fill='%s'/>",
            "<path fill-rule='evenodd' d='M3 3H29V29H3Z M11 11H21V21H11Z' fill='%s'/>",
            "<g fill='%1$s'><circle cx='9' cy='22' r='7'/><circle cx='24' cy='8' r='5'/></g>");

    private Drawings() {}

    /** Writes {@code noto.json} and {@code fluent-emoji.json}. */
    public static void write(Path folder) throws IOException {
        write(folder.resolve("noto.json"), 128);
        write(folder.resolve("fluent-emoji.json"), 32);
    }

    private static void write(Path file, int canvas) throws IOException {
        ObjectMapper mapper = new ObjectMapper();
        ObjectNode set = mapper.createObjectNode();
        set.put("width", canvas).put("height", canvas);
        int number = canvas;
        for (SceneObject object : Vocabulary.standard().objects()) {
            int rgb = Color.HSBtoRGB(number * 0.381966f, 0.9f, 0.9f) & 0xFFFFFF;
            String colour = String.format(Locale.ROOT, "#%06X", rgb);
            String shape = String.format(Locale.ROOT, SHAPES.get(number % SHAPES.size()), colour);
            set.withObject("/icons")
                    .putObject(object.icon())
                    .put("body", "<g transform='scale(" + canvas / 32 + ")'>" + shape + "</g>");
            number++;
        }
        Files.writeString(file, mapper.writeValueAsString(set));
    }
}
