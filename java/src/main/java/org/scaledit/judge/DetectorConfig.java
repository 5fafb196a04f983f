package org.scaledit.judge;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Vocabulary;
import org.scaledit.vae.Layer;
import org.scaledit.vae.Layer.Activated;
import org.scaledit.vae.Layer.Convolution;
import org.scaledit.vae.Layer.Downsample;
import org.scaledit.vae.Layer.Normalization;
import org.scaledit.vae.Layer.Residual;

/**
 * What a detector is made of: a picture is halved once for each level, and of every cell that is left it says what it is a
 * part of. Nothing in it knows where in the picture a cell is.
 *
 * @param size of its pictures, along each side
 * @param channels of the levels
 * @param layers residual blocks of each level
 * @param groups of every group normalisation
 * @param vocabulary the objects that it tells apart, in the order of its classes
 */
public record DetectorConfig(int size, List<Integer> channels, int layers, int groups, Vocabulary vocabulary) {
    /** The first outputs of a cell: whether it is in the middle of an object, and the logarithms of the distances to its edges. */
    static final int EDGES = 1;

    static final int COLOURS = EDGES + 4;

    /** All colours, and an object's own. */
    static final int COLOUR_CLASSES = Colour.values().length + 1;

    static final int OBJECTS = COLOURS + COLOUR_CLASSES;

    private static final int MOST_LEVELS = 6;

    public DetectorConfig {
        channels = List.copyOf(channels);
    }

    /**
     * What a recipe or a judge says.
     *
     * @throws CheckpointException naming the field that is missing, of the wrong type or out of range
     */
    public static DetectorConfig read(Config config, Vocabulary vocabulary) {
        int groups = config.integer("groups", 1, 64);
        List<Integer> channels = config.integers("channels");
        config.require(
                !channels.isEmpty() && channels.stream().allMatch(width -> width > 0 && width % groups == 0),
                "channels",
                channels,
                "multiples of groups, " + groups + ", one at least");
        config.require(channels.size() <= MOST_LEVELS, "channels", channels, "at most " + MOST_LEVELS + " levels");
        int size = config.integer("size", SceneRenderer.SMALLEST, SceneRenderer.LARGEST);
        DetectorConfig read = new DetectorConfig(size, channels, config.integer("layers", 1, 8), groups, vocabulary);
        config.require(
                size % read.stride() == 0,
                "size",
                size,
                "a multiple of " + read.stride() + ", as channels has " + channels.size() + " levels that halve it");
        return read;
    }

    /** Pixels along a cell. */
    public int stride() {
        return 1 << channels.size();
    }

    /** Cells along each side. */
    public int grid() {
        return size / stride();
    }

    /** Outputs of a cell. */
    int outputs() {
        return OBJECTS + vocabulary.objects().size();
    }

    /** Pictures {@code [batch, 3, size, size]} to {@code [batch, outputs, grid, grid]}. */
    List<Layer> network() {
        List<Layer> layers = new ArrayList<>();
        int in = channels.get(0);
        layers.add(new Convolution("stem", 3, in, 3, 2, 1));
        for (int level = 0; level < channels.size(); level++) {
            if (level > 0) {
                layers.add(new Downsample("levels." + level + ".downsample", in));
            }
            for (int block = 0; block < this.layers; block++) {
                int out = channels.get(level);
                layers.add(new Residual("levels." + level + ".blocks." + block, in, out, groups));
                in = out;
            }
        }
        layers.add(new Activated(
                new Normalization("head.norm", in, groups), new Convolution("head", in, outputs(), 1, 1, 0)));
        return layers;
    }

    /** Names and shapes of its weights. */
    public Map<String, long[]> expectedTensors() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        network().forEach(layer -> layer.declare(shapes));
        return shapes;
    }
}
