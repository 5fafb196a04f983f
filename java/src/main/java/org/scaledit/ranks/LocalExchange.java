package org.scaledit.ranks;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.tensor.Tensors;

/** The exchange of ranks whose tensors are all in the host's memory. Sums are taken in the ranks' order. */
final class LocalExchange implements Exchange {
    private final int rank;
    private final Meeting meeting;
    private final Tensor[] tensors; // of all ranks
    private final long[][] rows; // of each rank's tensor, those for each rank

    private LocalExchange(int rank, Meeting meeting, Tensor[] tensors, long[][] rows) {
        this.rank = rank;
        this.meeting = meeting;
        this.tensors = tensors;
        this.rows = rows;
    }

    /** One for each rank. */
    static List<Exchange> of(int ranks, Meeting meeting) {
        Tensor[] tensors = new Tensor[ranks];
        long[][] rows = new long[ranks][];
        List<Exchange> exchanges = new ArrayList<>();
        for (int rank = 0; rank < ranks; rank++) {
            exchanges.add(new LocalExchange(rank, meeting, tensors, rows));
        }
        return exchanges;
    }

    @Override
    public int rank() {
        return rank;
    }

    @Override
    public int ranks() {
        return tensors.length;
    }

    @Override
    public void meet() {
        meeting.await();
    }

    @Override
    public void requireOthers() {
        meeting.requireHeld();
    }

    @Override
    public void sum(Tensor tensor) {
        exchange(tensor, first -> {
            for (int other = 1; other < tensors.length; other++) {
                first.add_(tensors[other]);
            }
        });
    }

    @Override
    public void share(Tensor tensor) {
        exchange(tensor, first -> {});
    }

    @Override
    public Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows) {
        tensors[rank] = given;
        rows[rank] = givenRows;
        meeting.awaitAtOnce();
        Tensors.run(() -> {
            long next = 0;
            for (int other = 0; other < tensors.length; other++) {
                long first = LongStream.of(rows[other]).limit(rank).sum();
                taken.narrow(0, next, takenRows[other]).copy_(tensors[other].narrow(0, first, rows[other][rank]));
                next += takenRows[other];
            }
        });
        meeting.awaitAtOnce();
        return Begun.DONE;
    }

    @Override
    public Begun gather(Tensor own, Tensor all) {
        tensors[rank] = own;
        meeting.awaitAtOnce();
        Tensors.run(() -> {
            for (int other = 0; other < tensors.length; other++) {
                all.select(0, other).copy_(tensors[other]);
            }
        });
        meeting.awaitAtOnce();
        return Begun.DONE;
    }

    /** @param change what rank 0 does with its tensor before the others copy it */
    private void exchange(Tensor tensor, Consumer<Tensor> change) {
        tensors[rank] = tensor;
        meeting.await();
        if (rank == 0) {
            change.accept(tensor);
        }
        meeting.awaitAtOnce();
        if (rank > 0) {
            tensor.copy_(tensors[0]);
        }
        meeting.awaitAtOnce(); // until then it must not be freed
    }
}
