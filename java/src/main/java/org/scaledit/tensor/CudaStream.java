package org.scaledit.tensor;

import static org.bytedeco.cuda.global.cudart.*;

import org.bytedeco.cuda.cudart.CUevent_st;
import org.bytedeco.cuda.cudart.CUstream_st;
import org.bytedeco.javacpp.Pointer;
import org.jspecify.annotations.Nullable;

/** A queue of work on the GPU of the thread that makes it, and the marks in it that other queues and the host wait for. */
public final class CudaStream implements AutoCloseable {
    private final @Nullable CUstream_st stream; // null: CUDA's default one
    private final boolean owned;

    private CudaStream(@Nullable CUstream_st stream, boolean owned) {
        this.stream = stream;
        this.owned = owned;
    }

    /** That on which torch queues what this thread asks of it; nothing to close. */
    public static CudaStream current() {
        Pointer current = Cuda.currentStream();
        return new CudaStream(current == null ? null : new CUstream_st(current), false);
    }

    /** One of its own, which waits for others only where it is told to. */
    public static CudaStream open() {
        return new CudaStream(
                Tensors.outlive(() -> {
                    CUstream_st made = new CUstream_st();
                    check(cudaStreamCreateWithFlags(made, cudaStreamNonBlocking));
                    return made;
                }),
                true);
    }

    /** A place in a queue: none yet, then the one marked last. Who waits for none goes on at once. */
    public static final class Mark implements AutoCloseable {
        private final CUevent_st event = Tensors.outlive(() -> {
            CUevent_st made = new CUevent_st();
            check(cudaEventCreateWithFlags(made, cudaEventDisableTiming));
            return made;
        });

        /** The host waits until the GPU has come so far. */
        public void await() {
            check(cudaEventSynchronize(event));
        }

        @Override
        public void close() {
            cudaEventDestroy(event);
        }
    }

    /** Marks the end of what is queued by now. */
    public void set(Mark mark) {
        check(cudaEventRecord(mark.event, stream));
    }

    /** What is queued from now on waits until the GPU has come to where the mark is now. */
    public void await(Mark mark) {
        check(cudaStreamWaitEvent(stream, mark.event, 0));
    }

    /** Queues a copy between the GPU's memory and the host's {@link PinnedMemory}, in either direction. */
    public void copy(Pointer to, Pointer from, long bytes) {
        check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
    }

    /** The host waits until all that is queued is done. */
    public void synchronize() {
        check(cudaStreamSynchronize(stream));
    }

    /** Waits until nothing is on its way; a GPU that is lost has nothing any more. */
    @Override
    public void close() {
        if (owned) {
            cudaStreamSynchronize(stream);
            cudaStreamDestroy(stream);
        }
    }

    private static void check(int status) {
        if (status != cudaSuccess) {
            cudaGetLastError(); // or torch would take it for its own next call's
            throw new IllegalStateException(
                    "CUDA answers: " + cudaGetErrorString(status).getString());
        }
    }
}
