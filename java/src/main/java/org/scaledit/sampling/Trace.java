package org.scaledit.sampling;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.Dtype;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.checkpoint.SafetensorsWriter.Declaration;
import org.scaledit.tensor.Tensors;
import org.scaledit.text.Conditioning;

/**
 * Everything that one picture was computed through, as a safetensors file: texts, guidance latents, sigmas, the latents
 * before the first and after each step, the picture before rounding. Float32, tokens in raster order. The file appears
 * when {@link #commit} returns.
 */
public final class Trace implements AutoCloseable {
    private static final int CHANNELS = 64;
    private static final String NEGATIVE = "negative_";

    private final SafetensorsWriter writer;

    private Trace(SafetensorsWriter writer) {
        this.writer = writer;
    }

    /** Begins the file with the text, and with the negative one if there is one. */
    public static Trace begin(Path file, Plan plan, Prompt prompt) {
        Map<String, Declaration> contents = new LinkedHashMap<>();
        declareText(contents, "", prompt.text());
        prompt.negative().ifPresent(text -> declareText(contents, NEGATIVE, text));
        TokenGrid grid = plan.grid();
        if (plan.levels() == 0 || plan.isGuided()) {
            contents.put("guidance_latents", tokens(plan.guidanceGrid()));
        }
        for (int level = 1; level <= plan.levels(); level++) {
            contents.put(name(level, "sigmas"), declare(plan.steps() + 1));
            for (int step = 0; step <= plan.steps() - plan.firstStep(); step++) {
                contents.put(latentsName(level, step), tokens(grid));
            }
            grid = level == plan.levels() ? grid : grid.enlarged(plan.window().ratio());
        }
        contents.put("image", declare(3, grid.pixelHeight(), grid.pixelWidth()));
        Trace trace = new Trace(SafetensorsWriter.create(file, contents, Map.of()));
        trace.text("", prompt.text());
        prompt.negative().ifPresent(text -> trace.text(NEGATIVE, text));
        return trace;
    }

    /**
     * Better to hear of it before a model is loaded than after.
     *
     * @throws IllegalArgumentException if the file's folder does not exist
     */
    public static void requireFolder(Path file) {
        Path folder = file.toAbsolutePath().getParent();
        if (folder == null || !Files.isDirectory(folder)) {
            throw new IllegalArgumentException(
                    "folder " + folder + " of trace " + file.getFileName() + " does not exist");
        }
    }

    private static void declareText(Map<String, Declaration> contents, String prefix, Conditioning text) {
        contents.put(
                prefix + "text_states",
                declare(1, text.states().size(0), text.states().size(1)));
        contents.put(prefix + "text_pooled", declare(1, text.pooled().numel()));
    }

    private void text(String prefix, Conditioning text) {
        write(prefix + "text_states", text.states().unsqueeze(0));
        write(prefix + "text_pooled", text.pooled().reshape(1, text.pooled().numel()));
    }

    /** @param latents {@code [w·h, 64]} */
    public void guidanceLatents(Tensor latents) {
        write("guidance_latents", latents.unsqueeze(0));
    }

    /** The whole schedule, also where a pass begins in the middle of it. */
    public void schedule(int level, Schedule schedule) {
        float[] sigmas = schedule.sigmas();
        write(name(level, "sigmas"), Tensors.of(sigmas, sigmas.length));
    }

    /** @param latents {@code [W·H, 64]} after so many steps */
    public void latents(int level, int step, Tensor latents) {
        write(latentsName(level, step), latents.unsqueeze(0));
    }

    /** @param image {@code [3, 16H, 16W]}, −1 … 1 */
    public void image(Tensor image) {
        write("image", image);
    }

    /** Puts the finished file in its place. */
    public void commit() {
        writer.commit();
    }

    /** Leaves no file behind unless it was committed. */
    @Override
    public void close() {
        writer.close();
    }

    private void write(String name, Tensor tensor) {
        writer.write(name, tensor);
    }

    private static String latentsName(int level, int step) {
        return name(level, String.format(Locale.ROOT, "latents_%03d", step));
    }

    private static String name(int level, String name) {
        return level == 1 ? name : "level_" + level + "." + name;
    }

    private static Declaration tokens(TokenGrid grid) {
        return declare(1, grid.tokens(), CHANNELS);
    }

    private static Declaration declare(long... shape) {
        return Declaration.of(Dtype.F32, shape);
    }
}
