package org.scaledit.scenes;

import java.util.List;

/** Where a scene plays. */
public enum Background {
    MEADOW("meadow", "in a meadow", "on a green meadow", "in the grass"),
    NIGHT_SKY("night sky", "in the night sky", "under the stars", "at night"),
    WOODEN_TABLE("wooden table", "on a wooden table", "on wooden planks", "on a table"),
    BRICK_WALL("brick wall", "in front of a brick wall", "against a brick wall", "on a brick wall"),
    SANDY_BEACH("sandy beach", "on a sandy beach", "at the beach", "by the sea"),
    SNOWY_FIELD("snowy field", "in a snowy field", "in the snow", "on snow"),
    SUNSET_SEA("sunset sea", "over the sea at sunset", "at sunset", "in front of a sunset"),
    PLAIN("plain", "on a plain background", "against a plain background", "on an empty background");

    private final String word;
    private final List<String> places;

    Background(String word, String... places) {
        this.word = word;
        this.places = List.of(places);
    }

    public String word() {
        return word;
    }

    /** "in a meadow", and what says the same. */
    List<String> places() {
        return places;
    }
}
