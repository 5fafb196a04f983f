package org.scaledit.scenes;

import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * What a scene shows, before it has a place.
 *
 * @param things of several equal ones each
 */
record Content(Optional<Relation> relation, List<Thing> things) {

    record Thing(SceneObject object, Optional<Colour> colour, Material material) {
        private boolean isHeldOut() {
            return colour.isPresent() && heldOut("colour", colour.get().word(), object.icon());
        }
    }

    /**
     * Whether it has a combination that is kept for evaluation: a tenth of the pairs of objects, of a colour and an object,
     * and of a relation and two objects.
     */
    boolean isHeldOut() {
        return things.stream().anyMatch(Thing::isHeldOut) || hasPairHeldOut() || isRelationHeldOut();
    }

    private boolean hasPairHeldOut() {
        for (int i = 0; i < things.size(); i++) {
            for (int j = 0; j < i; j++) {
                if (isPairHeldOut(things.get(i).object, things.get(j).object)) {
                    return true;
                }
            }
        }
        return false;
    }

    static boolean isPairHeldOut(SceneObject a, SceneObject b) {
        boolean ordered = a.icon().compareTo(b.icon()) < 0;
        return !a.equals(b) && heldOut("pair", ordered ? a.icon() : b.icon(), ordered ? b.icon() : a.icon());
    }

    /** "a left of b" is "b right of a", and "next to" has no order. */
    private boolean isRelationHeldOut() {
        if (relation.isEmpty()) {
            return false;
        }
        String first = things.get(0).object.icon();
        String second = things.get(1).object.icon();
        return switch (relation.get()) {
            case LEFT_OF -> heldOut("beside", first, second);
            case RIGHT_OF -> heldOut("beside", second, first);
            case ABOVE -> heldOut("over", first, second);
            case BELOW -> heldOut("over", second, first);
            case NEXT_TO -> {
                boolean ordered = first.compareTo(second) < 0;
                yield heldOut("next", ordered ? first : second, ordered ? second : first);
            }
        };
    }

    /** The same tenth for ever, whatever else changes: by a hash of the words (FNV-1a). */
    private static boolean heldOut(String kind, String first, String second) {
        int hash = 0x811C9DC5;
        String words = String.join("|", kind, first, second).toLowerCase(Locale.ROOT);
        for (int i = 0; i < words.length(); i++) {
            hash = (hash ^ words.charAt(i)) * 0x01000193;
        }
        hash ^= hash >>> 15;
        return Integer.remainderUnsigned(hash * 0x2C1B3C6D, 10) == 0;
    }
}
