package org.scaledit.training;

import org.bytedeco.pytorch.Tensor;

/**
 * What a rank tells the others: threads of this process that train copies of one model together, each on a GPU of its own. All
 * ranks call the same methods in the same order, and each call waits until every rank has made it.
 */
interface Exchange {
    /** Of a training without others. */
    Exchange ALONE = new Exchange() {
        @Override
        public int rank() {
            return 0;
        }

        @Override
        public int ranks() {
            return 1;
        }

        @Override
        public void meet() {}

        @Override
        public void sum(Tensor tensor) {}

        @Override
        public void share(Tensor tensor) {}
    };

    /** Which one this is, from 0. */
    int rank();

    /** How many there are. */
    int ranks();

    /**
     * Waits for all ranks: what each has written is there for the others.
     *
     * @throws RanksStoppedException if another rank has failed
     */
    void meet();

    /**
     * Makes every rank's tensor their sum, the same bits in all of them.
     *
     * @param tensor float32, contiguous, as large as the others'
     * @throws RanksStoppedException likewise
     */
    void sum(Tensor tensor);

    /**
     * Makes every rank's tensor that of rank 0.
     *
     * @param tensor likewise
     * @throws RanksStoppedException likewise
     */
    void share(Tensor tensor);
}
