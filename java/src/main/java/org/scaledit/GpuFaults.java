package org.scaledit;

import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import org.scaledit.tensor.Cuda;

/** What becomes of requests that fail on a GPU. */
final class GpuFaults {
    /** Of the whole process: what CUDA lost once does not come back before its end. */
    static final GpuFaults OF_PROCESS = new GpuFaults(new Driver() {
        @Override
        public Optional<String> failure() {
            return Cuda.failure();
        }

        @Override
        public Cuda.Memory memory() {
            return Cuda.freedMemory();
        }
    });

    /** Whom to ask once something has failed. */
    interface Driver {
        /** What it answers to everything from now on; empty if it can be used on. */
        Optional<String> failure();

        /** What is free when all that can be given back is. */
        Cuda.Memory memory();
    }

    private final Driver driver;
    private final AtomicReference<GpuException> lost = new AtomicReference<>();

    GpuFaults(Driver driver) {
        this.driver = driver;
    }

    /** @throws GpuException if the GPU was lost in an earlier request */
    void requireUsable() {
        GpuException earlier = lost.get();
        if (earlier != null) {
            throw earlier.again();
        }
    }

    /**
     * What to throw when a request has failed and has freed what it made.
     *
     * @param outOfMemory the sentence for a request that the memory was too small for
     * @return the failure itself if it has to do neither with the GPU's memory nor with its loss
     */
    RuntimeException explained(RuntimeException failure, Function<Cuda.Memory, String> outOfMemory) {
        if (failure instanceof CancellationException || failure instanceof GpuException) {
            return failure;
        }
        Optional<String> reason = driver.failure();
        if (reason.isPresent()) {
            GpuException first = GpuException.lost(reason.get(), failure);
            lost.compareAndSet(null, first);
            return first;
        }
        return Cuda.isOutOfMemory(failure)
                ? GpuException.outOfMemory(outOfMemory.apply(driver.memory()), failure)
                : failure;
    }
}
