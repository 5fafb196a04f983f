package org.scaledit.scenes;

import java.util.List;

/**
 * A thing that scenes show.
 *
 * @param icon its picture's name in both SVG sets
 * @param names what captions call it, the usual name first
 * @param coloured whether it comes in all colours
 */
public record SceneObject(String icon, List<Name> names, boolean coloured) {

    /** "wolf", "wolves" */
    public record Name(String one, String several) {}

    /** The usual name of one. */
    public String name() {
        return names.get(0).one();
    }
}
