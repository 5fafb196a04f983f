package org.scaledit.attention;

/**
 * Who attends to whom, as far as the user may choose (Scale-DiT, arXiv 2510.16325, section 3).
 *
 * @param ratio how many times smaller than the image the guidance image is on each side, ρ: 1, 2, 4 or 8; 0 for image and text alone
 * @param window tokens along a window's side: 16, 32 or 64
 * @param reach cells of 8 × 8 tokens around its own that an image token sees beyond its window, 0 or more
 * @param guidanceMargin guidance tokens around a cell's own guidance region whose cells it sees, 0 or more
 * @param guidanceAttention whom guidance tokens attend to
 * @param guidanceSeesText whether they attend to the text, too; where they do not, nothing of theirs depends on any other
 *     token
 */
public record AttentionWindow(
        int ratio,
        int window,
        int reach,
        int guidanceMargin,
        GuidanceAttention guidanceAttention,
        boolean guidanceSeesText) {

    private static final String RATIO = "ratio";

    /** Whom guidance tokens attend to, beside the text. */
    public enum GuidanceAttention {
        /** All guidance tokens. */
        GLOBAL,
        /** The guidance tokens of the cells within one cell of their own. */
        LOCAL
    }

    /** The paper's: ratio 4, windows of 16 × 16 tokens and half a window beyond, margin 3, global. */
    public static final AttentionWindow DEFAULT = new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, true);

    /** The paper's with another ratio: 1, 2, 4 or 8. */
    public static AttentionWindow ofRatio(int ratio) {
        require(isRatio(ratio), RATIO, ratio, "1, 2, 4 or 8");
        return new AttentionWindow(
                ratio,
                DEFAULT.window,
                DEFAULT.reach,
                DEFAULT.guidanceMargin,
                DEFAULT.guidanceAttention,
                DEFAULT.guidanceSeesText);
    }

    public AttentionWindow {
        require(ratio == 0 || isRatio(ratio), RATIO, ratio, "0, 1, 2, 4 or 8");
        require(window == 16 || window == 32 || window == 64, "window", window, "16, 32 or 64");
        require(reach >= 0, "reach", reach, "0 or more");
        require(guidanceMargin >= 0, "guidance margin", guidanceMargin, "0 or more");
    }

    private static boolean isRatio(int ratio) {
        return ratio == 1 || ratio == 2 || ratio == 4 || ratio == 8;
    }

    private static void require(boolean condition, String name, int given, String expected) {
        if (!condition) {
            throw new IllegalArgumentException(name + " is " + given + ", expected " + expected);
        }
    }
}
