package org.scaledit.scenes;

/**
 * How often there is what in a scene; the first four add up to 1.
 *
 * @param one object
 * @param two different objects, one of them left of the other, for example
 * @param same two to four of an object
 * @param several three or four different objects
 * @param plain of all scenes: those whose objects have no other material than their own
 */
public record Mix(double one, double two, double same, double several, double plain) {
    public static final Mix USUAL = new Mix(0.35, 0.35, 0.2, 0.1, 0);

    private static final double ROUNDING = 1e-9;

    enum Kind {
        ONE,
        TWO,
        SAME,
        SEVERAL
    }

    /** @throws IllegalArgumentException in one sentence, if it is none */
    public Mix {
        for (double share : new double[] {one, two, same, several, plain}) {
            if (!(share >= 0 && share <= 1)) {
                throw new IllegalArgumentException(share + ", expected shares from 0 to 1");
            }
        }
        double sum = one + two + same + several;
        if (Math.abs(sum - 1) > ROUNDING) {
            throw new IllegalArgumentException("one, two, same and several that add up to " + sum + ", expected 1");
        }
    }

    /** @param drawn 0 … 1, each number as often as another */
    Kind kind(double drawn) {
        double left = drawn;
        double[] shares = {one, two, same, several};
        for (Kind kind : Kind.values()) {
            left -= shares[kind.ordinal()];
            if (left < 0) {
                return kind;
            }
        }
        return Kind.ONE;
    }
}
