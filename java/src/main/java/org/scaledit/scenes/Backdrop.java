package org.scaledit.scenes;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.awt.Color;
import java.util.SplittableRandom;

/**
 * What a scene's background has drawn: the native core paints it from that.
 *
 * @param background a {@code scaledit_background}
 * @param seed of its textures
 * @param drawn as {@code scaledit_scene} has them
 */
record Backdrop(int background, int seed, double... drawn) {

    static Backdrop of(Background background, long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        int own = random.nextInt();
        return switch (background) {
            case MEADOW -> new Backdrop(SCALEDIT_MEADOW, own, between(random, 0.5, 0.66));
            case NIGHT_SKY -> new Backdrop(SCALEDIT_NIGHT_SKY, own);
            case WOODEN_TABLE -> new Backdrop(SCALEDIT_WOODEN_TABLE, own, 5 + random.nextInt(3));
            case BRICK_WALL -> new Backdrop(SCALEDIT_BRICK_WALL, own, 9 + random.nextInt(4));
            case SANDY_BEACH -> {
                double horizon = between(random, 0.28, 0.4);
                yield new Backdrop(SCALEDIT_SANDY_BEACH, own, horizon, horizon + between(random, 0.22, 0.3));
            }
            case SNOWY_FIELD -> new Backdrop(SCALEDIT_SNOWY_FIELD, own, between(random, 0.5, 0.66));
            case SUNSET_SEA ->
                new Backdrop(SCALEDIT_SUNSET_SEA, own, between(random, 0.55, 0.7), between(random, 0.25, 0.75));
            case PLAIN -> {
                float hue = (float) random.nextDouble();
                float[] paper = Color.getHSBColor(hue, (float) between(random, 0.08, 0.4), 0.95f)
                        .getRGBColorComponents(null);
                yield new Backdrop(SCALEDIT_PLAIN, own, paper[0], paper[1], paper[2]);
            }
        };
    }

    private static double between(SplittableRandom random, double least, double most) {
        return least + (most - least) * random.nextDouble();
    }
}
