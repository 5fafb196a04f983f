package org.scaledit.transformer;

import java.util.function.Consumer;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Tensors;

/**
 * Consecutive tokens of a stream, all of them guidance tokens or none: what is wider than a token's state exists for one
 * chunk at a time.
 *
 * @param first row
 * @param modulation of these rows
 */
record Chunk(long first, long rows, Modulation modulation) {
    /**
     * 66 · 128 rows. On 132 multiprocessors, with products cut into tiles of 128 × 256, an output of 3,072 columns is 6
     * whole rounds and one of 12,288 columns 24; the widest tensor, of 12,288 columns in bfloat16, takes 198 MiB.
     */
    private static final long MOST_ROWS = 8448;

    /** Runs {@code body} for each chunk of a stream's rows, in a scope of its own. */
    static void forEach(long rows, Modulation modulation, Consumer<Chunk> body) {
        forEach(rows, MOST_ROWS, modulation, body);
    }

    /** The same with chunks of another size. */
    static void forEach(long rows, long mostRows, Modulation modulation, Consumer<Chunk> body) {
        long current = rows - modulation.guidanceRows();
        long count;
        for (long first = 0; first < rows; first += count) {
            boolean guidance = first >= current;
            count = Math.min(mostRows, (guidance ? rows : current) - first);
            Modulation part = new Modulation(modulation.parts(), modulation.width(), guidance ? count : 0);
            Chunk chunk = new Chunk(first, count, part);
            Tensors.run(() -> body.accept(chunk));
        }
    }

    /** All of its rows or none. */
    long guidanceRows() {
        return modulation.guidanceRows();
    }

    /** Its rows of a tensor of the stream. */
    Tensor of(Tensor x) {
        return x.narrow(0, first, rows);
    }

    Matrix of(Matrix x) {
        return x.rows(first, rows);
    }
}
