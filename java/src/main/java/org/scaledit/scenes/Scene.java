package org.scaledit.scenes;

import java.util.List;
import java.util.Optional;

/**
 * A picture before it has a size: what is where, in parts of its side. Equal scenes are equal pictures at any size.
 *
 * @param seed that it was composed from, and that its textures come from
 * @param relation of the first of two items to the second
 * @param items in the order in which they are painted
 * @param caption all that there is to say
 * @param text the caption to learn from: some of it left out, or all
 */
public record Scene(
        long seed,
        Style style,
        Background background,
        Optional<Relation> relation,
        List<Item> items,
        String caption,
        String text) {

    public Scene {
        items = List.copyOf(items);
    }

    /**
     * One object.
     *
     * @param colour that its own main colour is turned into
     * @param mirrored left and right, before it is turned
     * @param angle that its canvas is turned by about its middle, clockwise, in radians
     * @param x of the canvas' middle; {@code y} likewise
     * @param canvas side of the square that the object's picture lies on
     * @param box around what is seen of it
     */
    public record Item(
            SceneObject object,
            Optional<Colour> colour,
            Material material,
            boolean mirrored,
            double angle,
            double x,
            double y,
            double canvas,
            Box box) {}
}
