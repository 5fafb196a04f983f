package org.scaledit.judge;

import java.util.Locale;
import java.util.Optional;
import org.scaledit.scenes.Box;
import org.scaledit.scenes.Colour;
import org.scaledit.scenes.SceneObject;

/**
 * An object that was found in a picture.
 *
 * @param colour empty if it has its own colours
 * @param score how sure it is that something is there and that it is this: 0 … 1
 */
public record Detection(SceneObject object, Optional<Colour> colour, Box box, double score) {

    /** "red mushroom 0.93 at 0.25 0.50": the middle of its box, in parts of the picture's side. */
    public String words() {
        return String.format(
                Locale.ROOT,
                "%s%s %.2f at %.2f %.2f",
                colour.map(is -> is.word() + " ").orElse(""),
                object.name(),
                score,
                box.centreX(),
                box.centreY());
    }
}
