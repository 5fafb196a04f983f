package org.scaledit.tensor;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.pytorch.Tensor;

/**
 * The way of bytes to the GPU, through two buffers of {@link PinnedMemory}: while one is copied, the other one is filled.
 * Each GPU has its own, which are made when they are first needed and stay for the life of the process.
 */
public final class Upload {
    /** Long enough that a copy's beginning and end do not count. */
    static final int BUFFER_BYTES = 64 << 20;

    private static final int BUFFERS = 2;

    /** By the GPU's number: a mark is of one GPU's queues. */
    private static final Map<Integer, Upload> OF_GPUS = new ConcurrentHashMap<>();

    /** Where the bytes come from. */
    public interface Source {
        /** Fills the buffer with what there is from an offset on. */
        void read(long offset, ByteBuffer buffer);
    }

    /** @param copied where the last copy out of it ends */
    private record Buffer(PinnedMemory memory, CudaStream.Mark copied) {}

    private final List<Buffer> buffers = new ArrayList<>();
    private int next;

    private Upload() {}

    /**
     * Fills a contiguous tensor on this thread's GPU. All has been read when this returns, and the copies are on torch's current
     * stream: before everything that is queued there later.
     *
     * @throws RuntimeException what the source throws; the tensor's contents are undefined then
     */
    public static void fill(Tensor tensor, Source source) {
        OF_GPUS.computeIfAbsent(Cuda.current(), gpu -> new Upload()).run(tensor, source);
    }

    private synchronized void run(Tensor tensor, Source source) {
        Tensors.run(() -> {
            CudaStream stream = CudaStream.current();
            BytePointer target = new BytePointer(tensor.data_ptr());
            long bytes = tensor.nbytes();
            for (long offset = 0; offset < bytes; offset += BUFFER_BYTES) {
                int count = (int) Math.min(BUFFER_BYTES, bytes - offset);
                Buffer buffer = buffer();
                buffer.copied.await();
                source.read(offset, buffer.memory.first(count));
                stream.copy(target.getPointer(offset), buffer.memory.at(0), count);
                stream.set(buffer.copied);
            }
        });
    }

    /** The one whose turn it is. */
    private Buffer buffer() {
        int turn = next;
        if (turn == buffers.size()) {
            buffers.add(new Buffer(PinnedMemory.allocate(BUFFER_BYTES), new CudaStream.Mark()));
        }
        next = (turn + 1) % BUFFERS;
        return buffers.get(turn);
    }
}
