package org.scaledit.tensor;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.scaledit.testing.ProcessMemory;

class TensorsTest {
    private static final long MIB = 1 << 20;

    @Test
    void aResultOutlivesItsScopeAndDiesWithTheCallers() {
        Tensor result = Tensors.compute(() -> {
            Tensor scoped = Tensors.scoped(() -> Tensors.of(new float[] {1, 2, 3}, 3));
            assertThat(scoped.referenceCount()).isEqualTo(1);
            assertThat(Tensors.floats(scoped)).containsExactly(1, 2, 3);
            return scoped;
        });
        assertThat(result.isNull()).isTrue();
    }

    @Test
    void aCallerWithoutScopeOwnsTheResult() {
        Tensor result = Tensors.scoped(() -> Tensors.of(new float[] {4}, 1));
        assertThat(result.referenceCount()).isEqualTo(1);
        assertThat(Tensors.floats(result)).containsExactly(4);
        result.close();
        assertThat(result.isNull()).isTrue();
    }

    @Test
    void whatAnInPlaceOperationReturnsIsSafeToHandOut() {
        Tensors.run(() -> {
            Tensor sum = Tensors.scoped(() -> Tensors.of(new float[] {1, 2}, 2).add_(new Scalar(10)));
            churn();
            assertThat(Tensors.floats(sum)).containsExactly(11, 12);
        });
    }

    @Test
    void anElementOfAVectorIsSafeToHandOut() {
        Tensors.run(() -> {
            Tensor half = Tensors.scoped(() -> {
                TensorVector halves = Tensors.of(new float[] {1, 2, 3, 4}, 4).chunk(2, 0);
                return halves.get(1);
            });
            churn();
            assertThat(Tensors.floats(half)).containsExactly(3, 4);
        });
    }

    @Test
    void aTensorOfTheCallerStaysTheCallers() {
        Tensors.run(() -> {
            Tensor own = Tensors.of(new float[] {5, 6}, 2);
            Tensor same = Tensors.scoped(() -> own);
            same.close();
            assertThat(Tensors.floats(own)).containsExactly(5, 6);
        });
    }

    @Test
    void aKeptTensorOutlivesEveryScope() {
        Tensor kept = Tensors.compute(() -> Tensors.keep(Tensors.of(new float[] {7}, 1)));
        churn();
        assertThat(Tensors.floats(kept)).containsExactly(7);
        kept.close();
        assertThat(kept.isNull()).isTrue();
    }

    @Test
    void aFailureFreesWhatWasMade() {
        Tensor[] made = new Tensor[1];
        assertThatThrownBy(() -> Tensors.scoped(() -> {
                    made[0] = Tensors.of(new float[] {1}, 1);
                    throw new IllegalStateException("in the middle");
                }))
                .hasMessage("in the middle");
        assertThat(made[0].isNull()).isTrue();
    }

    @Test
    void thousandsOfTensorsLeaveTheMemoryOfTheProcessWhereItWas() {
        Tensors.run(() -> {
            Tensor start = torch.ones(new long[] {MIB}, Placement.FLOAT32_CPU.options());
            turnOver(start, 20);
            long before = ProcessMemory.residentBytes();
            turnOver(start, 400);
            assertThat(ProcessMemory.residentBytes() - before).isLessThan(64 * MIB);
        });
    }

    /** {@code times} rounds of five tensors of 4 MiB each, one of which is handed out and closed. */
    private static void turnOver(Tensor start, int times) {
        for (int i = 0; i < times; i++) {
            Tensors.run(() -> {
                Tensor result = Tensors.scoped(() -> {
                    Tensor doubled = Tensors.scoped(() -> start.add(start).add(start));
                    return Tensors.concatenate(0, doubled, start).narrow(0, MIB, MIB);
                });
                assertThat(result.size(0)).isEqualTo(MIB);
            });
        }
    }

    @Test
    void placementsConvertAndShareTheirOptions() {
        Tensors.run(() -> {
            Tensor rounded = Placement.BFLOAT16_CPU.place(Tensors.of(new float[] {1.00390625f}, 1));
            assertThat(rounded.scalar_type().intern()).isEqualTo(torch.ScalarType.BFloat16);
            assertThat(Tensors.floats(rounded)).containsExactly(1);
            assertThat(torch.empty(new long[] {1}, Placement.BFLOAT16_CPU.options(), null)
                            .scalar_type()
                            .intern())
                    .isEqualTo(torch.ScalarType.BFloat16);
        });
        assertThat(new Placement(torch.ScalarType.Float, false).options()).isSameAs(Placement.FLOAT32_CPU.options());
    }

    @Test
    void aWrongCountOfValuesIsNamed() {
        assertThatThrownBy(() -> Tensors.of(new float[] {1, 2, 3}, 2, 2))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("3 values given for a tensor of shape [2, 2], expected 4");
        assertThat(Tensors.longs(Tensors.of(new long[] {1L << 40, -1}, 2))).containsExactly(1L << 40, -1);
    }

    /** Makes and frees tensors, so that memory freed too early holds something else. */
    private static void churn() {
        for (int i = 0; i < 100; i++) {
            Tensors.run(() -> {
                for (int n = 1; n <= 8; n++) {
                    torch.full(new long[] {n}, new Scalar(-1f));
                }
            });
        }
    }
}
