package org.scaledit.judge;

import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.SceneObject;

/** Makes objects of what a detector says of a picture's cells. */
record Decoder(DetectorConfig config) {
    /** What is less sure is nothing. */
    private static final double LEAST_SCORE = 0.3;

    /** Of two boxes that overlap by more the surer one is meant; those of scenes overlap by 0.15 at most. */
    private static final double MOST_OVERLAP = 0.5;

    /**
     * The surest first.
     *
     * @param values of one picture: {@code [outputs · grid · grid]}
     */
    List<Detection> detections(float[] values) {
        List<Detection> candidates = new ArrayList<>();
        for (int cell = 0; cell < config.grid() * config.grid(); cell++) {
            Detection candidate = candidate(values, cell);
            if (candidate.score() >= LEAST_SCORE) {
                candidates.add(candidate);
            }
        }
        candidates.sort(Comparator.comparingDouble(Detection::score).reversed());
        List<Detection> kept = new ArrayList<>();
        for (Detection candidate : candidates) {
            if (kept.stream().noneMatch(surer -> surer.box().overlap(candidate.box()) > MOST_OVERLAP)) {
                kept.add(candidate);
            }
        }
        return List.copyOf(kept);
    }

    private Detection candidate(float[] values, int cell) {
        int object = largest(values, cell, DetectorConfig.OBJECTS, config.outputs());
        int colour = largest(values, cell, DetectorConfig.COLOURS, DetectorConfig.OBJECTS) - DetectorConfig.COLOURS;
        double presence = 1 / (1 + Math.exp(-at(values, 0, cell)));
        SceneObject named = config.vocabulary().objects().get(object - DetectorConfig.OBJECTS);
        boolean own = colour == Colour.values().length || !named.coloured();
        return new Detection(
                named,
                own ? Optional.empty() : Optional.of(Colour.values()[colour]),
                box(values, cell),
                presence * share(values, cell, object));
    }

    private Box box(float[] values, int cell) {
        double x = (cell % config.grid() + 0.5) / config.grid();
        double y = (cell / config.grid() + 0.5) / config.grid();
        double[] edges = new double[4];
        for (int edge = 0; edge < 4; edge++) {
            edges[edge] = Math.exp(at(values, DetectorConfig.EDGES + edge, cell));
        }
        return new Box(x - edges[0], y - edges[1], x + edges[2], y + edges[3]);
    }

    private int largest(float[] values, int cell, int first, int end) {
        int largest = first;
        for (int output = first + 1; output < end; output++) {
            if (at(values, output, cell) > at(values, largest, cell)) {
                largest = output;
            }
        }
        return largest;
    }

    /** Of the most likely object among all, by softmax. */
    private double share(float[] values, int cell, int object) {
        double sum = 0;
        for (int output = DetectorConfig.OBJECTS; output < config.outputs(); output++) {
            sum += Math.exp(at(values, output, cell) - at(values, object, cell));
        }
        return 1 / sum;
    }

    private float at(float[] values, int output, int cell) {
        return values[output * config.grid() * config.grid() + cell];
    }
}
