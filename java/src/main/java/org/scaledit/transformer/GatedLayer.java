package org.scaledit.transformer;

import java.util.List;
import java.util.Optional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.MatrixProduct;
import org.scaledit.tensor.Tensors;

/** A layer whose output is added to the hidden state under a gate. */
interface GatedLayer {
    /**
     * Adds {@code gate · layer(x)}.
     *
     * @param hidden [rows, width], of a chunk
     * @param x the layer's input, in one part or two: [rows, in]
     */
    void addTo(Tensor hidden, List<Matrix> x, Chunk chunk);

    /** The same, and then layer norm, scale and shift of the sum: [rows, width], in the caller's scope */
    Matrix addToAndModulate(Tensor hidden, Matrix x, Chunk chunk, int shift, int scale);

    /** @param gate which part of the modulation */
    static GatedLayer of(Linear layer, Modulation modulation, int gate, Pass pass) {
        return layer.weight().isQuantised() && layer.loras().isEmpty() && MatrixProduct.addsInFp8()
                ? new Within(layer, modulation, gate, pass)
                : new After(layer, gate, pass);
    }

    /** The product, then the gate. */
    record After(Linear layer, int gate, Pass pass) implements GatedLayer {
        @Override
        public void addTo(Tensor hidden, List<Matrix> x, Chunk chunk) {
            pass.addGated(hidden, layer.forward(x, chunk.guidanceRows()), chunk.modulation(), gate);
        }

        @Override
        public Matrix addToAndModulate(Tensor hidden, Matrix x, Chunk chunk, int shift, int scale) {
            Tensor y = layer.forward(x, chunk.guidanceRows());
            return pass.addedAndModulated(hidden, y, chunk.modulation(), gate, shift, scale);
        }
    }

    /**
     * The product adds to the hidden state itself: in FP8 each output channel has a scale anyway, which the gate joins. So
     * the product is neither rounded to bfloat16 nor written and read again. Where there is no such product for a size, few
     * rows of many columns, the gate comes after it.
     */
    final class Within implements GatedLayer {
        private final After after;
        private final Matrix weight;
        private final Tensor scales; // [streams, out]
        private final Tensor biases; // [streams, out]

        private Within(Linear layer, Modulation modulation, int gate, Pass pass) {
            Tensor gates = modulation.parts(gate).to(torch.ScalarType.Float); // [streams, out]
            this.after = new After(layer, gate, pass);
            this.weight = layer.weight();
            this.scales = gates.mul(weight.scales().orElseThrow().reshape(1, -1));
            this.biases = gates.mul(layer.bias()).to(layer.bias().scalar_type());
        }

        @Override
        public void addTo(Tensor hidden, List<Matrix> x, Chunk chunk) {
            if (!added(hidden, x.get(0), chunk)) {
                after.addTo(hidden, x, chunk);
            }
        }

        private boolean added(Tensor hidden, Matrix x, Chunk chunk) {
            return Tensors.compute(() -> {
                long stream = chunk.guidanceRows() > 0 ? 1 : 0;
                Matrix gated = new Matrix(weight.values(), Optional.of(scales.select(0, stream)));
                return MatrixProduct.addInto(x, gated, biases.select(0, stream), hidden);
            });
        }

        @Override
        public Matrix addToAndModulate(Tensor hidden, Matrix x, Chunk chunk, int shift, int scale) {
            return added(hidden, x, chunk)
                    ? after.pass.modulated(hidden, chunk.modulation(), shift, scale)
                    : after.addToAndModulate(hidden, x, chunk, shift, scale);
        }
    }
}
