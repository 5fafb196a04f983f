package org.scaledit.tensor;

import static org.bytedeco.cuda.global.cudart.*;

import java.nio.ByteBuffer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;

/** Memory of the host that is locked in its place, so that a GPU copies from and to it while the host goes on. */
public final class PinnedMemory implements AutoCloseable {
    private final BytePointer start;

    private PinnedMemory(BytePointer start) {
        this.start = start;
    }

    /** @throws IllegalStateException in one sentence, if the host cannot lock so much */
    public static PinnedMemory allocate(long bytes) {
        return new PinnedMemory(Tensors.outlive(() -> {
            BytePointer made = new BytePointer();
            int status = cudaHostAlloc(made, bytes, cudaHostAllocDefault);
            if (status != cudaSuccess) {
                cudaGetLastError(); // or torch would take it for its own next call's
                // By its name: in words it would be the GPU that is out of memory.
                throw new IllegalStateException("the host cannot lock another " + (bytes >> 20)
                        + " MiB of its memory for the GPU: "
                        + cudaGetErrorName(status).getString());
            }
            return made.capacity(bytes);
        }));
    }

    /** Where a byte lies. */
    public Pointer at(long offset) {
        return start.getPointer(offset);
    }

    /** The first bytes, to read and write. */
    ByteBuffer first(int bytes) {
        return at(0).capacity(bytes).asByteBuffer();
    }

    @Override
    public void close() {
        cudaFreeHost(start);
    }
}
