package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import java.util.Arrays;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.TensorView;
import org.scaledit.tensor.CoreViews;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * The tensors of one call, {@code [tokens, heads, head_dim]} each, checked for the native core.
 *
 * @param output like the query, not yet written
 */
record Operands(Tensor query, Tensor key, Tensor value, Tensor output) {

    /**
     * For what is to be prepared before it is checked as an operand.
     *
     * @throws IllegalArgumentException naming the tensor that is no {@code [tokens, heads, head_dim]} of the geometry on a GPU
     */
    static void requireOf(Geometry geometry, Tensor query, Tensor key, Tensor value) {
        if (query.dim() != 3 || query.size(0) != geometry.layout().tokens()) {
            throw new IllegalArgumentException(
                    "query has shape " + Tensors.shape(query) + ", expected [tokens, heads, head_dim] of "
                            + geometry.layout().tokens() + " tokens");
        }
        check("query", query, query, true);
        check("key", key, query, true);
        check("value", value, query, true);
    }

    /**
     * @param cuda whether the tensors must be a GPU's
     * @throws IllegalArgumentException naming the tensor that does not fit
     */
    static Operands of(Geometry geometry, boolean cuda, Tensor query, Tensor key, Tensor value) {
        long[] shape = {geometry.layout().tokens(), query.size(1) * query.size(2)};
        return of(geometry, cuda, query, key, value, torch.empty(shape, query.options(), null));
    }

    /**
     * The same with an output that there is already.
     *
     * @param joined {@code [tokens, heads * head_dim]}
     */
    static Operands of(Geometry geometry, boolean cuda, Tensor query, Tensor key, Tensor value, Tensor joined) {
        return of(geometry, cuda, query, key, value, "output", joined);
    }

    private static Operands of(
            Geometry geometry, boolean cuda, Tensor query, Tensor key, Tensor value, String name, Tensor joined) {
        long[] expected = {geometry.layout().tokens(), query.size(1) * query.size(2)};
        if (!Arrays.equals(joined.shape(), expected)) {
            throw new IllegalArgumentException(name + " has shape " + Tensors.shape(joined)
                    + ", expected [tokens, heads * head_dim] = " + Arrays.toString(expected));
        }
        Tensor output = joined.unflatten(1, query.size(1), query.size(2));
        check("query", query, output, cuda);
        check("key", key, output, cuda);
        check("value", value, output, cuda);
        check(name, output, output, cuda);
        return new Operands(query, key, value, output);
    }

    /**
     * Of a backward pass: room for the gradients of query, key and value, and the output's gradient in the output's place.
     *
     * @param outputGradient {@code [tokens, heads, head_dim]}
     */
    static Operands ofGradients(Geometry geometry, boolean cuda, Tensor query, Tensor outputGradient) {
        Tensor joined = outputGradient.flatten(1, 2);
        return of(geometry, cuda, like(query), like(query), like(query), "output gradient", joined);
    }

    /** A tensor without gaps. */
    private static Tensor like(Tensor tensor) {
        return torch.empty(tensor.shape(), tensor.options(), null);
    }

    /** Room for the log-sum-exp of each query: {@code [heads, tokens]}, float32. */
    Tensor logSumExp() {
        Placement placement = new Placement(torch.ScalarType.Float, query.is_cuda());
        return torch.empty(new long[] {heads(), query.size(0)}, placement.options(), null);
    }

    /** @throws IllegalArgumentException if this is not what {@link #logSumExp} is like */
    void requireLogSumExp(Tensor logSumExp) {
        long[] expected = {heads(), query.size(0)};
        boolean fits = Arrays.equals(logSumExp.shape(), expected)
                && logSumExp.scalar_type().intern() == torch.ScalarType.Float
                && logSumExp.is_contiguous();
        if (!fits) {
            throw new IllegalArgumentException("log-sum-exp has shape " + Tensors.shape(logSumExp) + " of "
                    + logSumExp.scalar_type().intern() + ", expected [heads, tokens] = " + Arrays.toString(expected)
                    + " of Float without gaps");
        }
    }

    private static void check(String name, Tensor tensor, Tensor output, boolean cuda) {
        boolean fits = tensor.dim() == 3
                && tensor.size(0) == output.size(0)
                && tensor.size(1) == output.size(1)
                && tensor.size(2) == output.size(2);
        if (!fits) {
            throw new IllegalArgumentException(name + " has shape " + Tensors.shape(tensor)
                    + ", expected [tokens, heads, head_dim] = " + Tensors.shape(output));
        }
        if (tensor.is_cuda() != cuda || tensor.stride(2) != 1) {
            throw new IllegalArgumentException(name + " lies on " + place(tensor.is_cuda()) + " with stride "
                    + tensor.stride(2) + " along head_dim, expected " + place(cuda) + " and stride 1");
        }
        torch.ScalarType type = tensor.scalar_type().intern();
        boolean taken = type == torch.ScalarType.BFloat16 || !cuda && type == torch.ScalarType.Float;
        if (!taken) {
            throw new IllegalArgumentException(
                    name + " is " + type + ", expected " + (cuda ? "BFloat16 on a GPU" : "Float or BFloat16"));
        }
    }

    private static String place(boolean cuda) {
        return cuda ? "a GPU" : "the CPU";
    }

    int heads() {
        return (int) query.size(1);
    }

    int headDim() {
        return (int) query.size(2);
    }

    /** Of the scores before the softmax. */
    float scale() {
        return (float) (1 / Math.sqrt(headDim()));
    }

    /** Fills in where each tensor lies. */
    void describe(TensorView query, TensorView key, TensorView value, TensorView output) {
        describe(query, this.query);
        describe(key, this.key);
        describe(value, this.value);
        describe(output, this.output);
    }

    private static void describe(TensorView view, Tensor tensor) {
        view.data(tensor.data_ptr())
                .token_stride(tensor.stride(0))
                .head_stride(tensor.stride(1))
                .dtype(CoreViews.dtype(tensor));
    }

    /** The output as {@code [tokens, heads * head_dim]}. */
    Tensor joined() {
        return output.flatten(1, 2);
    }
}
