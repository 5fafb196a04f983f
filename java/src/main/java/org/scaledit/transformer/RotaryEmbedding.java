package org.scaledit.transformer;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Rotary position embedding (RoPE) of one sequence: each pair of neighbouring channels is turned by an angle that grows
 * with one of the token's coordinates, (0, row, column). Text is at the origin; guidance tokens stand ρ apart, where
 * the image tokens are that they guide (scaled positional anchors).
 */
final class RotaryEmbedding implements AutoCloseable {
    private static final int AXES = 3;

    private final Tensor turns; // [tokens, 1, head_dim / 2], complex64

    private RotaryEmbedding(Tensor turns) {
        this.turns = turns;
    }

    static RotaryEmbedding of(TokenLayout layout, FluxConfig config, double theta, Placement placement) {
        return new RotaryEmbedding(Tensors.outlive(() -> {
            Tensor angles = angles(positions(layout), config, theta); // [tokens, head_dim / 2], float64
            Tensor turns = torch.polar(torch.ones_like(angles), angles);
            Tensor rounded = placement.with(torch.ScalarType.ComplexFloat).place(turns);
            return rounded.unsqueeze(1);
        }));
    }

    /** The coordinates of all tokens: [tokens, 3], float64 */
    private static Tensor positions(TokenLayout layout) {
        long[] ids = new long[layout.tokens() * AXES];
        int next = AXES * layout.textTokens();
        for (int p = 0; p < layout.imageTokens(); p++, next += AXES) {
            ids[next + 1] = layout.imageRow(p);
            ids[next + 2] = layout.imageColumn(p);
        }
        for (int p = 0; p < layout.guidanceTokens(); p++, next += AXES) {
            ids[next + 1] = (long) layout.ratio() * layout.guidanceRow(p);
            ids[next + 2] = (long) layout.ratio() * layout.guidanceColumn(p);
        }
        for (int p = 0; p < layout.importedTokens(); p++, next += AXES) {
            ids[next + 1] = layout.importedRow(p);
            ids[next + 2] = layout.importedColumn(p);
        }
        return Tensors.of(ids, layout.tokens(), AXES).to(torch.ScalarType.Double);
    }

    /** {@code position · theta^(−2k / channels)} for pair k of each axis: [tokens, head_dim / 2], float64 */
    private static Tensor angles(Tensor positions, FluxConfig config, double theta) {
        Tensor[] ofAxis = new Tensor[AXES];
        for (int axis = 0; axis < AXES; axis++) {
            int channels = config.axes().get(axis);
            Tensor exponents = torch.arange(new Scalar(0), new Scalar(channels), new Scalar(2))
                    .to(torch.ScalarType.Double)
                    .div_(new Scalar(-channels));
            Tensor frequencies = torch.pow(new Scalar(theta), exponents);
            ofAxis[axis] = torch.outer(positions.select(1, axis), frequencies);
        }
        return Tensors.concatenate(1, ofAxis);
    }

    /** Cosine and sine of each pair's angle: [tokens, 1, head_dim / 2], complex64 */
    Tensor turns() {
        return turns;
    }

    @Override
    public void close() {
        turns.close();
    }
}
