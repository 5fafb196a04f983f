package org.scaledit.ranks;

import org.bytedeco.pytorch.Tensor;

/**
 * What a rank tells the others: threads, of this process or of several, that compute with copies of one model together, each
 * on a GPU of its own. All ranks call the same methods in the same order, and each call waits until every rank has made it.
 */
public interface Exchange {
    /** Of a rank without others. */
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
        public void requireOthers() {}

        @Override
        public void sum(Tensor tensor) {}

        @Override
        public void share(Tensor tensor) {}

        @Override
        public Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows) {
            return Begun.DONE;
        }

        @Override
        public Begun gather(Tensor own, Tensor all) {
            all.select(0, 0).copy_(own);
            return Begun.DONE;
        }
    };

    /** An exchange that has begun. */
    interface Begun extends AutoCloseable {
        /** One that is over. */
        Begun DONE = () -> {};

        /** What is queued from now on comes after it. */
        void await();

        /** Frees it, awaited or not. */
        @Override
        default void close() {}
    }

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
     * Looks whether the others are still there, for a rank that does not meet them for long.
     *
     * @throws RanksStoppedException likewise
     */
    void requireOthers();

    /**
     * Looks whether all that has been exchanged is what the ranks gave.
     *
     * @throws RanksStoppedException if a GPU's exchanges were broken off, perhaps in their middle, as a rank has failed
     */
    default void requireWhole() {}

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

    /**
     * Begins to give each rank some rows and to take some of each. The ranks come at once, having met a moment ago: on GPUs one
     * that waits long for another ends the process.
     *
     * @param given contiguous: the rows for rank 0, then those for rank 1, and so on, none for this rank itself
     * @param givenRows how many are for each
     * @param taken contiguous, of the same type and with rows as long, written: the rows from rank 0, then those from rank 1,
     *     and so on
     * @param takenRows how many each gives to this rank
     * @return to be awaited and closed; before that both tensors must be left as they are
     * @throws RanksStoppedException likewise
     */
    Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows);

    /**
     * Begins to write the tensors of all ranks one after the other, the same bits in all of them. The ranks come at once,
     * likewise.
     *
     * @param own contiguous, of the same type and shape in all ranks
     * @param all contiguous, {@code [ranks, shape of own]}, written
     * @return likewise
     * @throws RanksStoppedException likewise
     */
    Begun gather(Tensor own, Tensor all);
}
