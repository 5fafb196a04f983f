package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class BlockSlotsTest {
    private static final int STEPS = 4;

    /** Checks whatever could go wrong between two queues, and keeps a log. */
    private static final class Model implements BlockSlots.Queues {
        private final BlockSlots slots;
        private final int blocks;
        private final Map<Integer, Integer> contents = new HashMap<>(); // slot → block
        private final Map<Integer, Boolean> awaited = new HashMap<>(); // slot → whether its last copy is
        private final List<Integer> computing = new ArrayList<>(); // slots that no mark stands behind
        private final List<String> log = new ArrayList<>();
        private boolean copiesFail;

        Model(int blocks) {
            this.blocks = blocks;
            this.slots = new BlockSlots(blocks, this);
        }

        @Override
        public void copy(int block, int slot) {
            assertThat(computing).as("slots in use when %d comes", block).doesNotContain(slot);
            if (copiesFail) {
                throw new IllegalStateException("no copy");
            }
            log.add("copy " + block);
            contents.put(slot, block);
            awaited.put(slot, false);
        }

        @Override
        public void await(int slot) {
            awaited.put(slot, true);
        }

        @Override
        public void used(int slot) {
            computing.remove((Integer) slot);
        }

        void run(int block) {
            run(block, () -> {});
        }

        void run(int block, Runnable inside) {
            slots.run(block, () -> {
                int slot = BlockSlots.of(block, blocks);
                assertThat(contents).containsEntry(slot, block);
                assertThat(awaited).containsEntry(slot, true);
                computing.add(slot);
                log.add("run " + block);
                inside.run();
            });
            assertThat(computing).isEmpty();
        }

        void step() {
            for (int block = 0; block < blocks; block++) {
                run(block);
            }
        }

        long copies() {
            return log.stream().filter(line -> line.startsWith("copy")).count();
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 57})
    void eachBlockComesOnceAStepAndNeverWhereOneComputes(int blocks) {
        Model model = new Model(blocks);
        for (int step = 0; step < STEPS; step++) {
            model.step();
        }
        // As many blocks as places stay; of others the last step has brought the first one of the next already.
        boolean stay = blocks == BlockSlots.count(blocks);
        assertThat(model.copies()).isEqualTo(stay ? blocks : STEPS * (blocks - (blocks % 2)) + blocks % 2 + 1);
    }

    @ParameterizedTest
    @ValueSource(ints = {2, 3, 4, 5, 6, 7, 57})
    void neighboursHaveOtherPlaces(int blocks) {
        for (int block = 0; block < blocks; block++) {
            int slot = BlockSlots.of(block, blocks);
            assertThat(slot).isBetween(0, BlockSlots.count(blocks) - 1);
            assertThat(slot).isNotEqualTo(BlockSlots.of((block + 1) % blocks, blocks));
        }
    }

    @Test
    void theNextBlockIsOnItsWayBeforeOneComputes() {
        Model model = new Model(4);
        model.step();
        model.step();
        assertThat(model.log)
                .containsExactly(
                        "copy 0", "copy 1", "run 0", "copy 2", "run 1", "copy 3", "run 2", "copy 0", "run 3", //
                        "copy 1", "run 0", "copy 2", "run 1", "copy 3", "run 2", "copy 0", "run 3");
    }

    @Test
    void aPassThatEndsInItsMiddleLeavesNothingWrong() {
        for (int last = 0; last < 5; last++) {
            Model model = new Model(5);
            model.step();
            for (int block = 0; block < last; block++) {
                model.run(block);
            }
            int stopped = last;
            assertThatThrownBy(() -> model.run(stopped, () -> {
                        throw new IllegalArgumentException("enough");
                    }))
                    .hasMessage("enough");
            model.step();
            model.step();
        }
    }

    @Test
    void blocksMayComeInAnyOrder() {
        Model model = new Model(6);
        for (int block : new int[] {5, 4, 3, 2, 1, 0, 0, 3, 3, 1, 5, 2, 0}) {
            model.run(block);
        }
    }

    @Test
    void aCopyThatFailedIsTriedAgain() {
        Model model = new Model(4);
        model.run(0);
        model.copiesFail = true;
        assertThatThrownBy(() -> model.run(1)).hasMessage("no copy");
        model.copiesFail = false;
        model.step();
    }
}
