package org.scaledit.transformer;

import java.util.Arrays;

/**
 * Which block's weights are in which place of the GPU's memory. A block always has the same place, and the next block,
 * after the last one the first, another: while one computes, the next one's weights come.
 */
final class BlockSlots {
    private static final int NOTHING = -1;

    /** What copies and computes. */
    interface Queues {
        /** Begins to copy a block's weights to its place, behind all that has used the place until now. */
        void copy(int block, int slot);

        /** What computes from now on waits until the last copy to the place has arrived. */
        void await(int slot);

        /** All that computes until now uses the place. */
        void used(int slot);
    }

    private final int blocks;
    private final Queues queues;
    private final int[] holds; // for each place the block whose weights are there, or on their way

    BlockSlots(int blocks, Queues queues) {
        this.blocks = blocks;
        this.queues = queues;
        this.holds = new int[count(blocks)];
        Arrays.fill(holds, NOTHING);
    }

    /** How many places there are. */
    static int count(int blocks) {
        return blocks == 1 ? 1 : 2 + blocks % 2;
    }

    /**
     * The place of a block: one of two by turns. Of an odd number the last block has one to itself, as its neighbours are
     * of both kinds.
     */
    static int of(int block, int blocks) {
        boolean oddLast = blocks % 2 == 1 && block == blocks - 1;
        return oddLast ? count(blocks) - 1 : block % 2;
    }

    /**
     * Runs what queues a block's computation. In the order of the blocks its weights are on their way already; in any other
     * they come now. One at a time.
     */
    synchronized void run(int block, Runnable computation) {
        int slot = of(block, blocks);
        bring(block);
        queues.await(slot);
        bring((block + 1) % blocks);
        try {
            computation.run();
        } finally {
            queues.used(slot);
        }
    }

    private void bring(int block) {
        int slot = of(block, blocks);
        if (holds[slot] != block) {
            holds[slot] = NOTHING; // until it is known that the copy has begun
            queues.copy(block, slot);
            holds[slot] = block;
        }
    }
}
