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
        double right = second.centreX() - first.centreX();
        double down = second.centreY() - first.centreY();
        double width = 0.4 * (first.width() + second.width());
        double height = 0.4 * (first.height() + second.height());
        return switch (this) {
            case LEFT_OF -> beyond(right, down, width);
            case RIGHT_OF -> beyond(-right, down, width);
            case ABOVE -> beyond(down, right, height);
            case BELOW -> beyond(-down, right, height);
            case NEXT_TO -> beyond(Math.abs(right), 2 * down, width);
        };
    }

    private static boolean beyond(double along, double across, double least) {
        return along >= least && Math.abs(across) <= 0.7 * along;
    }
}
