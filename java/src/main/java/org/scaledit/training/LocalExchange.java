package org.scaledit.training;

import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import org.bytedeco.pytorch.Tensor;

/** The exchange of ranks whose tensors are all in the host's memory. Sums are taken in the ranks' order. */
final class LocalExchange implements Exchange {
    private final int rank;
    private final Meeting meeting;
    private final Tensor[] tensors; // of all ranks

    private LocalExchange(int rank, Meeting meeting, Tensor[] tensors) {
        this.rank = rank;
        this.meeting = meeting;
        this.tensors = tensors;
    }

    /** One for each rank. */
    static List<Exchange> of(int ranks, Meeting meeting) {
        Tensor[] tensors = new Tensor[ranks];
        List<Exchange> exchanges = new ArrayList<>();
        for (int rank = 0; rank < ranks; rank++) {
            exchanges.add(new LocalExchange(rank, meeting, tensors));
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
