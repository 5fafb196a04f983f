package org.scaledit.transformer;

import java.util.List;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/**
 * From tokens to the queries, keys and values of their heads, a group of heads at a time: what a group projects is gone
 * before the next one begins.
 *
 * @param groups in the order of their heads, all with the same number of them
 */
record HeadProjections(List<Group> groups) {

    /**
     * Queries, keys and values of a batch, side by side, and behind them what other layers make of the same input; of layers
     * that are not cut into groups: [batch, rows, 3 * width + …]
     */
    Tensor batched(Tensor x, Linear... others) {
        return Linear.batched(
                Stream.concat(groups.get(0).layers.stream(), Stream.of(others)).toList(), x);
    }

    /** @param layers whose outputs side by side are the queries, keys and values of the group's heads */
    record Group(List<Linear> layers) {

        /** [rows, 3 * heads * head_dim], in the caller's scope: queries of all heads, then keys, then values. */
        Tensor forward(Matrix x, long guidanceRows) {
            if (layers.size() == 1) {
                return layers.get(0).forward(x, guidanceRows);
            }
            return Tensors.scoped(() -> Tensors.concatenate(
                    1,
                    layers.stream().map(layer -> layer.forward(x, guidanceRows)).toArray(Tensor[]::new)));
        }

        /** Writes [rows, 3 * heads * head_dim]: queries of all heads, then keys, then values. */
        void forward(Matrix x, long guidanceRows, Tensor y) {
            long column = 0;
            for (Linear layer : layers) {
                layer.forward(x, guidanceRows, y.narrow(1, column, layer.out()));
                column += layer.out();
            }
        }
    }
}
