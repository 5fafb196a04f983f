package org.scaledit.transformer;

import java.util.Optional;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** Token-wise work by torch's own kernels. */
enum TorchTokenWise implements TokenWise {
    /** For products in the precision of the tokens. */
    PLAIN {
        @Override
        public Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
            return Matrix.of(normed(hidden, modulation, shift, scale));
        }

        @Override
        public Matrix attended(Tensor attended) {
            return Matrix.of(attended);
        }

        @Override
        public Matrix gelu(Linear mlpIn, Matrix x, long guidanceRows) {
            return Matrix.of(mlpIn.gelu(x, guidanceRows));
        }
    },
    /** For products in FP8. */
    FP8 {
        /** In chunks: on the way from bfloat16 there are several tensors of a chunk's size. */
        @Override
        public Matrix modulated(Tensor hidden, Modulation modulation, int shift, int scale) {
            Placement scaled = new Placement(torch.ScalarType.Float, hidden.is_cuda());
            Placement quantised = scaled.with(torch.ScalarType.Float8_e4m3fn);
            Tensor values = torch.empty(hidden.shape(), quantised.options(), null);
            Tensor scales = torch.empty(new long[] {hidden.size(0), 1}, scaled.options(), null);
            Chunk.forEach(hidden.size(0), modulation, chunk -> {
                Matrix part = Matrix.quantised(normed(chunk.of(hidden), chunk.modulation(), shift, scale));
                chunk.of(values).copy_(part.values());
                chunk.of(scales).copy_(part.scales().orElseThrow());
            });
            return new Matrix(values, Optional.of(scales));
        }

        @Override
        public Matrix attended(Tensor attended) {
            return Matrix.quantised(attended);
        }

        @Override
        public Matrix gelu(Linear mlpIn, Matrix x, long guidanceRows) {
            return Matrix.quantised(mlpIn.gelu(x, guidanceRows));
        }
    };

    private static final double EPSILON = 1e-6;

    /** Shift and scale go through the norm as its bias and weight: one pass over the tokens. */
    private static Tensor normed(Tensor hidden, Modulation modulation, int shift, int scale) {
        return Tensors.scoped(() -> {
            Tensor y = normed(hidden, modulation, 0, shift, scale);
            for (int stream = 1; stream < modulation.streams(); stream++) {
                Tensor rows = modulation.rows(hidden, stream);
                if (rows.size(0) > 0) {
                    modulation.rows(y, stream).copy_(normed(rows, modulation, stream, shift, scale));
                }
            }
            return y;
        });
    }

    private static Tensor normed(Tensor x, Modulation modulation, int stream, int shift, int scale) {
        return Tensors.scoped(() -> torch.layer_norm(
                x,
                new long[] {x.size(1)},
                Tensors.optional(modulation.part(scale, stream).add(new Scalar(1))),
                Tensors.optional(modulation.part(shift, stream)),
                EPSILON,
                true));
    }

    @Override
    public void addGated(Tensor hidden, Tensor y, Modulation modulation, int gate) {
        Tensors.run(() -> {
            for (int stream = 0; stream < modulation.streams(); stream++) {
                Tensor rows = modulation.rows(hidden, stream);
                if (rows.size(0) > 0) {
                    rows.addcmul_(modulation.rows(y, stream), modulation.part(gate, stream));
                }
            }
        });
    }
}
