package org.scaledit.scenes;

/** How a scene's objects are drawn: by one of two sets of SVG pictures. */
public enum Style {
    /** Noto Emoji. */
    CARTOON("cartoon", "a cartoon", "noto"),
    /** Fluent Emoji, with soft shading. */
    THREE_D("3D", "a 3D render", "fluent-emoji");

    private final String word;
    private final String picture;
    private final String set;

    Style(String word, String picture, String set) {
        this.word = word;
        this.picture = picture;
        this.set = set;
    }

    /** "cartoon", as in "cartoon style" */
    public String word() {
        return word;
    }

    /** "a cartoon", as in "a cartoon of an owl" */
    String picture() {
        return picture;
    }

    /** The set's name: {@code set.json} holds it. */
    String set() {
        return set;
    }
}
