package org.scaledit.transformer;

import java.util.List;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Matrix;

/**
 * From tokens to the queries, keys and values of their heads, a group of heads at a time: what a group projects is gone
 * before the next one begins.
 *
 * @param groups in the order of their heads, all with the same number of them
 */
record HeadProjections(List<Group> groups) {

    /** Queries, keys and values of a batch, of layers that are not cut into groups: [batch, rows, width] each */
    List<Tensor> batched(Tensor x) {
        return groups.get(0).layers.stream().map(layer -> layer.batched(x)).toList();
    }

    /** @param layers whose outputs side by side are the queries, keys and values of the group's heads */
    record Group(List<Linear> layers) {

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
