package org.scaledit.scenes;

/** Where the first of two objects is. */
public enum Relation {
    LEFT_OF("to the left of", "left of"),
    RIGHT_OF("to the right of", "right of"),
    ABOVE("above", "over"),
    BELOW("below", "under"),
    NEXT_TO("next to", "beside");

    private final String words;
    private final String otherWords;

    Relation(String words, String otherWords) {
        this.words = words;
        this.otherWords = otherWords;
    }

    public String words() {
        return words;
    }

    String otherWords() {
        return otherWords;
    }

    /** Whether two boxes stand like that, clearly: apart along the one axis more than along the other. */
    boolean holds(Box first, Box second) {
        return holds(first, second, 0.4, 0.7);
    }

    /** Whether one would say so of two boxes that are not known exactly: half as far apart, up to the diagonal. */
    public boolean isSeen(Box first, Box second) {
        return holds(first, second, 0.2, 1);
    }

    /**
     * @param apart least distance of the middles along the axis, in parts of both boxes' lengths
     * @param across largest distance along the other axis, in parts of the one along the axis
     */
    private boolean holds(Box first, Box second, double apart, double across) {
        double right = second.centreX() - first.centreX();
        double down = second.centreY() - first.centreY();
        double along = switch (this) {
            case LEFT_OF -> right;
            case RIGHT_OF -> -right;
            case ABOVE -> down;
            case BELOW -> -down;
            case NEXT_TO -> Math.abs(right);
        };
        boolean vertical = this == ABOVE || this == BELOW;
        double lengths = vertical ? first.height() + second.height() : first.width() + second.width();
        double aside = Math.abs(vertical ? right : down) * (this == NEXT_TO ? 2 : 1);
        return along >= apart * lengths && aside <= across * along;
    }
}
