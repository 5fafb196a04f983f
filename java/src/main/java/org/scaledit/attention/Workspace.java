package org.scaledit.attention;

import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** Memory for the core's packed copies: made at the first call, kept for the next ones. */
final class Workspace implements AutoCloseable {
    private final Placement placement;
    private @Nullable Tensor room; // [bytes], uint8

    /** @param cuda whether in a GPU's memory */
    Workspace(boolean cuda) {
        this.placement = new Placement(torch.ScalarType.Byte, cuda);
    }

    /** At least so many bytes; the same as before unless more are asked for than ever. */
    Tensor of(long bytes) {
        Tensor current = room;
        if (current == null || current.numel() < bytes) {
            close();
            current = Tensors.keep(torch.empty(new long[] {bytes}, placement.options(), null));
            room = current;
        }
        return current;
    }

    @Override
    public void close() {
        if (room != null) {
            room.close();
            room = null;
        }
    }
}
