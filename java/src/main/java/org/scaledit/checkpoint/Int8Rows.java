package org.scaledit.checkpoint;

import java.util.Arrays;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;

/**
 * Weights in INT8 with a scale for each row, the first axis: a layer's output channel, a word of a table. It is the
 * convention of compressed-tensors: a file that holds the values as {@code x} holds the scales as {@code x_scale}.
 *
 * @param values [rows, …], int8
 * @param scales [rows, 1], float32: what the values of a row are to be multiplied by
 */
record Int8Rows(Tensor values, Tensor scales) {
    /** What is behind the values' name in that of the scales. */
    private static final String SCALE = "_scale";

    /** As far as to −127: a row and its negative are then quantised alike. */
    private static final double LARGEST = 127;

    /** The smallest scale by which torch divides without flushing it to zero: a row of zeros stays one. */
    private static final double SMALLEST_SCALE = Float.MIN_NORMAL;

    static String scalesOf(String name) {
        return name + SCALE;
    }

    /**
     * Quantised so that each row's largest value becomes 127 or −127: no number is moved by more than half of its row's
     * scale. Both tensors are in the caller's scope.
     *
     * @param weight [rows, …], float32
     */
    static Int8Rows of(Tensor weight) {
        Tensor scales = Tensors.scoped(() -> weight.flatten(1, -1)
                .abs()
                .amax(new long[] {1}, true)
                .div(new Scalar(LARGEST))
                .clamp_min_(new Scalar(SMALLEST_SCALE)));
        Tensor values = Tensors.scoped(
                () -> weight.div(broadcast(scales, weight)).round_().to(torch.ScalarType.Char));
        return new Int8Rows(values, scales);
    }

    /** The numbers that it stands for, in float32 and in the caller's scope: [rows, …] */
    Tensor plain() {
        return Tensors.scoped(() -> Tensors.toFloat32(values).mul_(broadcast(scales, values)));
    }

    /** [rows, 1] → [rows, 1, …, 1], as many axes as the weight has */
    private static Tensor broadcast(Tensor scales, Tensor weight) {
        long[] shape = new long[(int) weight.dim()];
        Arrays.fill(shape, 1);
        shape[0] = scales.size(0);
        return scales.view(shape);
    }
}
