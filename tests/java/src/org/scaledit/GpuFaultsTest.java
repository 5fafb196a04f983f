package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.Optional;
import java.util.concurrent.CancellationException;
import org.junit.jupiter.api.Test;
import org.scaledit.tensor.Cuda;

class GpuFaultsTest {
    private static final RuntimeException OUT_OF_MEMORY = new RuntimeException(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.20 GiB is"
                    + " free.\nException raised from malloc at CUDACachingAllocator.cpp:1400");
    private static final RuntimeException ASSERTED = new RuntimeException(
            "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later");
    private static final String LOST =
            "the GPU cannot be used any more by this process, which has to be started anew: CUDA error: device-side"
                    + " assert triggered";

    /** A GPU of 24 bytes, 5 of them free, with this answer to everything. */
    private static GpuFaults faults(Optional<String> failure) {
        return new GpuFaults(new GpuFaults.Driver() {
            @Override
            public Optional<String> failure() {
                return failure;
            }

            @Override
            public Cuda.Memory memory() {
                return new Cuda.Memory(5, 24);
            }
        });
    }

    private static RuntimeException explained(GpuFaults faults, RuntimeException failure) {
        return faults.explained(failure, memory -> memory.free() + " of " + memory.total());
    }

    @Test
    void wantOfMemoryIsTheSentenceAndTheNextRequestIsLetIn() {
        GpuFaults faults = faults(Optional.empty());
        assertThat(explained(faults, OUT_OF_MEMORY))
                .isInstanceOfSatisfying(
                        GpuException.class,
                        failure -> assertThat(failure.lost()).isFalse())
                .hasMessage("5 of 24")
                .hasCause(OUT_OF_MEMORY);
        assertThatCode(faults::requireUsable).doesNotThrowAnyException();
    }

    @Test
    void aLostGpuRefusesEveryLaterRequestWithTheSameSentence() {
        GpuFaults faults = faults(Optional.of("CUDA error: device-side assert triggered"));
        assertThat(explained(faults, ASSERTED))
                .isInstanceOfSatisfying(
                        GpuException.class,
                        failure -> assertThat(failure.lost()).isTrue())
                .hasMessage(LOST)
                .hasCause(ASSERTED);
        for (int i = 0; i < 2; i++) {
            assertThatThrownBy(faults::requireUsable)
                    .isInstanceOfSatisfying(
                            GpuException.class,
                            failure -> assertThat(failure.lost()).isTrue())
                    .hasMessage(LOST);
        }
    }

    /** Memory is a symptom then: a GPU that answers nothing has none to give, either. */
    @Test
    void aLossIsSaidRatherThanWantOfMemory() {
        assertThat(explained(faults(Optional.of("CUDA error: device-side assert triggered")), OUT_OF_MEMORY))
                .hasMessage(LOST);
    }

    @Test
    void otherFailuresAndCancellationStayWhatTheyAre() {
        GpuFaults faults = faults(Optional.empty());
        for (RuntimeException failure :
                new RuntimeException[] {new IllegalStateException("stop"), new RuntimeException(), ASSERTED}) {
            assertThat(explained(faults, failure)).isSameAs(failure);
        }
        CancellationException cancelled = new CancellationException("enough");
        assertThat(explained(faults(Optional.of("lost")), cancelled)).isSameAs(cancelled);
    }
}
