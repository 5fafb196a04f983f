package org.scaledit.evaluation;

import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.CoreAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.sampling.TokenGrid;

/** The tokens of a method at one size and the attention that it has for them. */
record Sequence(TokenLayout layout, Attention attention, Runnable release) implements AutoCloseable {

    /** How many tokens a method has, before anything is made for them. */
    static long tokens(Method method, int textTokens, TokenGrid grid) {
        int ratio = method.guided() ? AttentionWindow.DEFAULT.ratio() : 0;
        return TokenLayout.raster(textTokens, grid.width(), grid.height(), ratio)
                .tokens();
    }

    /** @param cuda whether the tokens are on a GPU */
    static Sequence of(Method method, int textTokens, TokenGrid grid, boolean cuda) {
        return switch (method) {
            case SCALEDIT, SCALEDIT_FP8 -> ofCore(true, textTokens, grid, cuda);
            case SCALEDIT_EXACT, TRAINING -> ofCore(false, textTokens, grid, cuda);
            case DENSE_FLASH -> plain(PeerAttention.flash(), textTokens, grid);
            case DENSE_CUDNN -> plain(PeerAttention.cudnn(), textTokens, grid);
            case NAIVE -> plain(PeerAttention.naive(), textTokens, grid);
            case LINEAR -> plain(PeerAttention.linear(), textTokens, grid);
        };
    }

    private static Sequence plain(Attention attention, int textTokens, TokenGrid grid) {
        return new Sequence(
                TokenLayout.raster(textTokens, grid.width(), grid.height()), attention, PeerAttention::allowAll);
    }

    private static Sequence ofCore(boolean int8, int textTokens, TokenGrid grid, boolean cuda) {
        CoreAttention attention =
                new CoreAttention(textTokens, grid.width(), grid.height(), AttentionWindow.DEFAULT, cuda, int8);
        return new Sequence(attention.layout(), attention, () -> {});
    }

    @Override
    public void close() {
        attention.close();
        release.run();
    }
}
