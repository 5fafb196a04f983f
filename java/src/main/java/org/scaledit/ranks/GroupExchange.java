package org.scaledit.ranks;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.Backend;
import org.bytedeco.pytorch.FileStore;
import org.bytedeco.pytorch.LongVector;
import org.bytedeco.pytorch.ProcessGroupGloo;
import org.bytedeco.pytorch.Store;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.Work;
import org.bytedeco.pytorch.global.torch;
import org.bytedeco.pytorch.global.torch_gloo;
import org.bytedeco.pytorch.global.torch_nccl;
import org.bytedeco.pytorch.nccl.ProcessGroupNCCL;
import org.jspecify.annotations.Nullable;
import org.scaledit.file.Reasons;
import org.scaledit.tensor.Tensors;

/**
 * The exchange of ranks that do not share memory, through one of torch's process groups: NCCL's where each has a GPU of its own,
 * Gloo's on the CPUs of several hosts. What GPUs exchange is queued on torch's current stream.
 *
 * <p>NCCL ends the process if a rank waits too long for another one. So the ranks meet on the host first, where they
 * may wait for any time, for a picture or a checkpoint of rank 0 for example, and where they are sent away if one of them
 * has failed.
 */
final class GroupExchange implements Exchange {
    private static final long NANOSECONDS_TO_LOOK = TimeUnit.MICROSECONDS.toNanos(20);

    private final int rank;
    private final int ranks;
    private final boolean cuda;
    private final Meeting meeting;
    private final Others others;
    private @Nullable Group group; // made by the rank's own thread
    private volatile boolean aborted;

    /** Of whom a group consists beside this process's ranks, and where all of them find each other. */
    interface Others {
        /** A store of one group, of the ranks that are to find each other; the group's to close. */
        Store store();

        /** What to throw when an exchange has failed: one of them may have ended, and that is told a little later. */
        default RuntimeException explained(RuntimeException failure) {
            return failure;
        }

        /** When no group needs its store any more. */
        default void release() {}
    }

    /** There are no others: the ranks of a process find each other by a file. */
    private record Nobody(Path file, int ranks) implements Others {
        static Nobody beside(int ranks) {
            try {
                return new Nobody(Files.createTempDirectory("scaledit-nccl").resolve("store"), ranks);
            } catch (IOException e) {
                throw new IllegalStateException("a temporary folder for NCCL cannot be made: " + Reasons.of(e), e);
            }
        }

        @Override
        public Store store() {
            return Tensors.outlive(() -> new FileStore(file.toString(), ranks));
        }

        @Override
        public void release() {
            try {
                Files.deleteIfExists(file);
                Files.deleteIfExists(file.getParent());
            } catch (IOException e) {
                throw new IllegalStateException("cannot remove " + file + ": " + Reasons.of(e), e);
            }
        }
    }

    /**
     * A group and what it was made of, in the order in which they are freed: the presets hand the group its store and options
     * without counting that, and a group whose store is gone ends the process.
     */
    private record Group(Backend processes, Store store, Backend.Options options) implements AutoCloseable {

        static Group of(Supplier<Store> stores, int rank, int ranks, boolean cuda) {
            Store store = stores.get();
            if (cuda) {
                ProcessGroupNCCL.Options options = Tensors.outlive(ProcessGroupNCCL.Options::new);
                return new Group(
                        Tensors.outlive(() -> new ProcessGroupNCCL(store, rank, ranks, options)), store, options);
            }
            Loader.load(torch_gloo.class);
            ProcessGroupGloo.Options options = Tensors.outlive(ProcessGroupGloo.Options::new);
            Tensors.run(() -> options.devices().push_back(ProcessGroupGloo.createDefaultDevice()));
            return new Group(Tensors.outlive(() -> new ProcessGroupGloo(store, rank, ranks, options)), store, options);
        }

        @Override
        public void close() {
            processes.close();
            options.close();
            store.close();
        }
    }

    private GroupExchange(int rank, int ranks, boolean cuda, Meeting meeting, Others others) {
        this.rank = rank;
        this.ranks = ranks;
        this.cuda = cuda;
        this.meeting = meeting;
        this.others = others;
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
     * One for each rank, all of this process and each on a GPU.
     *
     * @throws IllegalStateException in one sentence, if NCCL cannot be loaded
     */
    static List<GroupExchange> onGpus(int ranks, Meeting meeting) {
        load();
        return of(0, ranks, ranks, true, meeting, Nobody.beside(ranks));
    }

    /**
     * One for each of this host's ranks.
     *
     * @param cuda whether each is on a GPU
     * @throws IllegalStateException likewise
     */
    static List<GroupExchange> of(Hosts hosts, boolean cuda, Meeting meeting) {
        if (cuda) {
            load();
        }
        return of(hosts.firstRank(), hosts.ownRanks(), hosts.allRanks(), cuda, meeting, hosts.others());
    }

    private static List<GroupExchange> of(
            int first, int count, int ranks, boolean cuda, Meeting meeting, Others others) {
        return IntStream.range(first, first + count)
                .mapToObj(rank -> new GroupExchange(rank, ranks, cuda, meeting, others))
                .toList();
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
        exchange(tensor, Backend::allreduce);
    }

    @Override
    public void share(Tensor tensor) {
        exchange(tensor, Backend::broadcast);
    }

    @Override
    public Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows) {
        return queued(processes ->
                processes.alltoall_base(taken, given, new LongVector(takenRows), new LongVector(givenRows)));
    }

    @Override
    public Begun gather(Tensor own, Tensor all) {
        return queued(processes -> processes._allgather_base(all, own.unsqueeze(0))); // Gloo takes one of all's parts
    }

    /** On a queue of its own, which torch's current stream does not wait for until it is told to; on a CPU, threads of its own. */
    private final class InQueue implements Begun {
        private final Work work;

        InQueue(Work work) {
            this.work = work;
        }

        @Override
        public void await() {
            try {
                while (!cuda && !work.isCompleted()) { // Gloo would wait for minutes, whatever became of the others
                    meeting.requireHeld();
                    LockSupport.parkNanos(NANOSECONDS_TO_LOOK);
                }
                work._wait();
            } catch (RanksStoppedException e) {
                throw e;
            } catch (RuntimeException e) {
                throw others.explained(e);
            }
        }

        @Override
        public void close() {
            work.close();
        }
    }

    private void exchange(Tensor tensor, BiFunction<Backend, TensorVector, Work> collective) {
        Tensors.run(() -> {
            TensorVector tensors = new TensorVector(tensor);
            meeting.await();
            queue(processes -> collective.apply(processes, tensors));
        });
    }

    private void queue(Function<Backend, Work> collective) {
        try (Begun begun = queued(collective)) {
            begun.await();
        }
    }

    /**
     * Goes on when all ranks of this process have queued it. A rank that goes on alone may wait for its GPU, while its GPU waits
     * for one whose own thread waits for the same lock of CUDA's.
     */
    private Begun queued(Function<Backend, Work> collective) {
        meeting.requireHeld();
        Begun begun;
        try {
            begun = new InQueue(Tensors.outlive(() -> collective.apply(group().processes)));
        } catch (RuntimeException e) {
            throw others.explained(e);
        }
        try {
            meeting.awaitAtOnce();
            return begun;
        } catch (RuntimeException | Error e) {
            begun.close();
            throw e;
        }
    }

    @Override
    public void requireWhole() {
        if (aborted) {
            throw new RanksStoppedException();
        }
    }

    private synchronized Group group() {
        if (group == null) {
            group = Group.of(others::store, rank, ranks, cuda);
        }
        return group;
    }

    /** Releases a GPU that waits for others, and leaves the group. */
    void abort() {
        aborted = true;
        if (cuda) { // Gloo has no such thing; whoever waits for it looks whether the others are there
            abortGroup();
        }
    }

    private synchronized void abortGroup() {
        if (group != null) {
            group.processes.abort();
        }
    }

    /**
     * Ends the exchanges of all ranks of this process, when all that they have queued is done or aborted.
     *
     * @param failed if so, threads of Gloo may be at work yet, for which its groups wait; nobody else has to
     */
    static void close(List<GroupExchange> exchanges, boolean failed) {
        exchanges.forEach(GroupExchange::abort); // to end in order, each group would wait for the others
        for (GroupExchange exchange : exchanges) {
            if (failed && !exchange.cuda) {
                Thread thread = new Thread(exchange::release, "end of rank " + exchange.rank);
                thread.setDaemon(true);
                thread.start();
            } else {
                exchange.release();
            }
        }
        exchanges.stream().limit(1).forEach(exchange -> exchange.others.release());
    }

    private synchronized void release() {
        if (group != null) {
            group.close();
            group = null;
        }
    }
}
