package org.scaledit.attention;

import static org.scaledit.bindings.ScaleDitCore.*;

import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.SizeTPointer;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.bindings.CudaPackRowsArguments;
import org.scaledit.bindings.CudaUnpackRowsArguments;
import org.scaledit.bindings.MatrixView;
import org.scaledit.bindings.Status;
import org.scaledit.tensor.Cuda;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** What keys and values are while ranks exchange them, a contiguous row for each token. */
enum BorderRows {
    /** As they are: {@code [rows, 2, heads, head_dim]}. */
    EXACT {
        @Override
        Tensor room(long rows, Tensor key) {
            return torch.empty(new long[] {rows, 2, key.size(1), key.size(2)}, key.options(), null);
        }

        @Override
        void give(Tensor key, Tensor value, Tensor tokens, Tensor given) {
            Tensors.run(() -> {
                given.select(1, 0).copy_(key.index_select(0, tokens));
                given.select(1, 1).copy_(value.index_select(0, tokens));
            });
        }

        @Override
        void take(Tensor taken, Tensor key, Tensor value) {
            Tensors.run(() -> {
                key.copy_(taken.select(1, 0));
                value.copy_(taken.select(1, 1));
            });
        }
    },

    /**
     * Of bfloat16 on a GPU little more than half the bytes, {@code [rows, bytes]}: INT8 with a scale for each 32 channels. It
     * takes off 0.6 % of normal numbers, where attention in INT8 takes off as much of keys once more, and in FP8 more of values.
     */
    INT8 {
        @Override
        Tensor room(long rows, Tensor key) {
            return Tensors.scoped(() -> {
                SizeTPointer bytes = new SizeTPointer(1);
                Status.check(scaledit_cuda_packed_row_bytes(width(key), bytes));
                Placement placement = new Placement(torch.ScalarType.Byte, true);
                return torch.empty(new long[] {rows, bytes.get()}, placement.options(), null);
            });
        }

        @Override
        void give(Tensor key, Tensor value, Tensor tokens, Tensor given) {
            Tensors.run(() -> {
                CudaPackRowsArguments arguments = new CudaPackRowsArguments()
                                .rows(given.size(0))
                                .tokens(key.size(0))
                                .width(width(key))
                                .token(new LongPointer(tokens.data_ptr()))
                                .packed(given.data_ptr())
                                .stream(Cuda.currentStream());
                describe("key", key, arguments.key());
                describe("value", value, arguments.value());
                Status.check(scaledit_cuda_pack_rows(arguments));
            });
        }

        @Override
        void take(Tensor taken, Tensor key, Tensor value) {
            Tensors.run(() -> {
                CudaUnpackRowsArguments arguments = new CudaUnpackRowsArguments()
                        .rows(taken.size(0)).width(width(key)).packed(taken.data_ptr()).stream(Cuda.currentStream());
                describe("key", key, arguments.key());
                describe("value", value, arguments.value());
                Status.check(scaledit_cuda_unpack_rows(arguments));
            });
        }

        private int width(Tensor key) {
            return (int) (key.size(1) * key.size(2));
        }

        private void describe(String name, Tensor heads, MatrixView view) {
            if (!HeadPreparation.areSideBySide(heads)) {
                throw new IllegalArgumentException(name + " of shape " + Tensors.shape(heads) + " has strides "
                        + heads.stride(1) + " and " + heads.stride(2) + " in a token, expected " + heads.size(2)
                        + " and 1");
            }
            HeadPreparation.describe(heads, view);
        }
    };

    /**
     * For so many tokens, not yet written, in the caller's scope.
     *
     * @param key what keys are like: {@code [tokens, heads, head_dim]}
     */
    abstract Tensor room(long rows, Tensor key);

    /**
     * Keys and values of some tokens for other ranks.
     *
     * @param key {@code [tokens, heads, head_dim]}; {@code value} likewise
     * @param tokens the rows of these, int64
     * @param given room for as many, written
     */
    abstract void give(Tensor key, Tensor value, Tensor tokens, Tensor given);

    /**
     * Keys and values from other ranks.
     *
     * @param taken as another rank's {@link #give} wrote it
     * @param key {@code [rows, heads, head_dim]}, written; {@code value} likewise
     */
    abstract void take(Tensor taken, Tensor key, Tensor value);
}
