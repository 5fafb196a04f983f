package org.scaledit.text;

import java.util.regex.Pattern;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;

/**
 * T5's matrices of queries as they are trained. Its files have them with 1/√d in, d the size of a head, as its scores are not
 * scaled. An optimizer moves all matrices by as much, which is so much more for these: scores grew to hundreds, each word attended
 * to one other whatever that was, and no gradient came through. In training the factor stands beside them, as in other attention.
 */
public final class TrainedQueries {
    private static final Pattern NAME = Pattern.compile("encoder\\..*\\.SelfAttention\\.q\\.weight");

    private TrainedQueries() {}

    /** Of scores. */
    static double scale(long headDim) {
        return 1 / Math.sqrt(headDim);
    }

    /**
     * From a file.
     *
     * @param name in T5's file
     * @param weight of any name; another one than the queries' comes back as it is
     */
    public static Tensor of(String name, Tensor weight, long headDim) {
        return isOne(name) ? weight.div(new Scalar(scale(headDim))) : weight;
    }

    /** For a file, likewise. */
    public static Tensor stored(String name, Tensor weight, long headDim) {
        return isOne(name) ? weight.mul(new Scalar(scale(headDim))) : weight;
    }

    private static boolean isOne(String name) {
        return NAME.matcher(name).matches();
    }
}
