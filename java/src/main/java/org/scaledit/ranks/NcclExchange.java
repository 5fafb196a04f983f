package org.scaledit.ranks;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BiFunction;
import java.util.function.Function;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.FileStore;
import org.bytedeco.pytorch.LongVector;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.Work;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_nccl;
import org.bytedeco.pytorch.nccl.ProcessGroupNCCL;
import org.jspecify.annotations.Nullable;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Tensors;

/**
 * The exchange of ranks whose tensors are each on a GPU of its own, by NCCL, through torch's ProcessGroupNCCL. What is
 * exchanged is queued on torch's current stream.
 *
 * <p>NCCL ends the process if a rank waits too long for another one. So the ranks meet on the host first, where they
 * may wait for any time, for a picture or a checkpoint of rank 0 for example, and where they are sent away if one of them
 * has failed.
 */
final class NcclExchange implements Exchange {
    private final int rank;
    private final int ranks;
    private final Meeting meeting;
    private final Path store;
    private @Nullable Group group; // made by the rank's own thread

    /**
     * A group and what it was made of, in the order in which they are freed: the presets hand the group its store and options
     * without counting that, and a group whose store is gone ends the process.
     */
    private record Group(ProcessGroupNCCL processes, FileStore store, ProcessGroupNCCL.Options options)
            implements AutoCloseable {

        static Group of(Path path, int rank, int ranks) {
            FileStore store = Tensors.outlive(() -> new FileStore(path.toString(), ranks));
            ProcessGroupNCCL.Options options = Tensors.outlive(ProcessGroupNCCL.Options::new);
            return new Group(Tensors.outlive(() -> new ProcessGroupNCCL(store, rank, ranks, options)), store, options);
        }

        @Override
        public void close() {
            processes.close();
            options.close();
            store.close();
        }
    }

    private NcclExchange(int rank, int ranks, Meeting meeting, Path store) {
        this.rank = rank;
        this.ranks = ranks;
        this.meeting = meeting;
        this.store = store;
    }

    /** @throws IllegalStateException in one sentence, if NCCL cannot be loaded */
    static void load() {
        try {
            Loader.load(torch_nccl.class);
            leaveFaultsToRanks();
        } catch (LinkageError e) {
            throw new IllegalStateException("several GPUs need NCCL 2, which cannot be loaded: " + e.getMessage(), e);
        }
    }

    /**
     * A fault of a GPU is told by the rank that computes there. Threads of torch's groups see it as well, and would end the
     * process: at once the one that watches what is queued, after minutes the one that watches the first.
     */
    private static void leaveFaultsToRanks() {
        for (String variable : List.of("TORCH_NCCL_RETHROW_CUDA_ERRORS", "TORCH_NCCL_ENABLE_MONITORING")) {
            if (!torch.has_env(variable)) {
                torch.set_env(variable, "0");
            }
        }
    }

    /**
     * One for each rank.
     *
     * @throws IllegalStateException in one sentence, if NCCL cannot be loaded
     */
    static List<NcclExchange> of(int ranks, Meeting meeting) {
        load();
        try {
            Path store = Files.createTempDirectory("scaledit-nccl").resolve("store");
            List<NcclExchange> exchanges = new ArrayList<>();
            for (int rank = 0; rank < ranks; rank++) {
                exchanges.add(new NcclExchange(rank, ranks, meeting, store));
            }
            return exchanges;
        } catch (IOException e) {
            throw new IllegalStateException("a temporary folder for NCCL cannot be made: " + Reasons.of(e), e);
        }
    }

    @Override
    public int rank() {
        return rank;
    }

    @Override
    public int ranks() {
        return ranks;
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
        exchange(tensor, ProcessGroupNCCL::allreduce);
    }

    @Override
    public void share(Tensor tensor) {
        exchange(tensor, ProcessGroupNCCL::broadcast);
    }

    @Override
    public Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows) {
        return queued(processes ->
                processes.alltoall_base(taken, given, new LongVector(takenRows), new LongVector(givenRows)));
    }

    @Override
    public Begun gather(Tensor own, Tensor all) {
        return queued(processes -> processes._allgather_base(all, own));
    }

    /** On a queue of its own, which torch's current stream does not wait for until it is told to. */
    private record InQueue(Work work) implements Begun {
        @Override
        public void await() {
            work._wait();
        }

        @Override
        public void close() {
            work.close();
        }
    }

    private void exchange(Tensor tensor, BiFunction<ProcessGroupNCCL, TensorVector, Work> collective) {
        Tensors.run(() -> {
            TensorVector tensors = new TensorVector(tensor);
            meeting.await();
            queue(processes -> collective.apply(processes, tensors));
        });
    }

    private void queue(Function<ProcessGroupNCCL, Work> collective) {
        try (Begun begun = queued(collective)) {
            begun.await();
        }
    }

    /**
     * Goes on when all ranks have queued it. A rank that goes on alone may wait for its GPU, while its GPU waits for one whose
     * own thread waits for the same lock of CUDA's.
     */
    private Begun queued(Function<ProcessGroupNCCL, Work> collective) {
        meeting.requireHeld();
        Begun begun = new InQueue(Tensors.outlive(() -> collective.apply(group().processes)));
        try {
            meeting.awaitAtOnce();
            return begun;
        } catch (RuntimeException | Error e) {
            begun.close();
            throw e;
        }
    }

    private synchronized Group group() {
        if (group == null) {
            group = Group.of(store, rank, ranks);
        }
        return group;
    }

    /** Releases a GPU that waits for others, and leaves the group. */
    synchronized void abort() {
        if (group != null) {
            group.processes.abort();
        }
    }

    /** Ends the exchanges of all ranks, when all that they have queued is done or aborted. */
    static void close(List<NcclExchange> exchanges) {
        exchanges.forEach(NcclExchange::abort); // to end in order, each group would wait for the others
        exchanges.forEach(NcclExchange::release);
        for (NcclExchange exchange : exchanges) {
            try {
                Files.deleteIfExists(exchange.store);
                Files.deleteIfExists(exchange.store.getParent());
            } catch (IOException e) {
                throw new IllegalStateException("cannot remove " + exchange.store + ": " + Reasons.of(e), e);
            }
        }
    }

    private synchronized void release() {
        if (group != null) {
            group.close();
            group = null;
        }
    }
}
