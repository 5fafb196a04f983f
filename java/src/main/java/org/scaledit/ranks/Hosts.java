package org.scaledit.ranks;

import java.time.Duration;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.LockSupport;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.bytedeco.pytorch.Store;
import org.jspecify.annotations.Nullable;

/**
 * Several hosts, or processes, that do one thing together: how they come, meet and end. When one of them fails, all end.
 *
 * <p>They tell each other through a {@link HostStore}. One thread does all the talking, since what is asked of a host that hangs
 * is never answered, and gives a sign of life several times a second; on hosts that are not the first, another one looks how long
 * ago that was answered.
 */
public final class Hosts {
    /** All are to end within 30 s, whatever happens to one: {@link Ranks} waits 15 for its GPUs. */
    private static final Limits LIMITS = new Limits(Duration.ofSeconds(25), Duration.ofSeconds(8));

    private static final int MILLISECONDS_A_BEAT = 200;
    private static final long MOST_MILLISECONDS_TO_MEET = 50;

    private static final long NANOSECONDS_TO_LOOK = TimeUnit.MILLISECONDS.toNanos(5);

    private static final String NOT_GIVEN = "not given";

    /** For the first words of host 0, once it listens. */
    private static final Duration TO_ANSWER = Duration.ofSeconds(1);

    /** For the last words of a host that ends. */
    private static final Duration TO_LEAVE = Duration.ofSeconds(3);

    // Names in the store; those that are for each host end in its number.
    private static final String COMMANDS = "commands"; // names of what follows
    private static final String COMMAND = "command/"; // of host 0
    private static final String RANKS = "ranks/";
    private static final String CAME = "came"; // how many, whether they belong here or not
    private static final String SEEN = "seen/"; // how many hosts have this number
    private static final String BEATS = "beats/";
    private static final String HERE = "here";
    private static final String MET = "met"; // times, of all hosts together
    private static final String FAILED = "failed"; // why, in one sentence
    private static final String OVER = "over";
    private static final String LEFT = "left";

    /**
     * How long hosts are waited for.
     *
     * @param toCome at first
     * @param silence one that gives no sign of life any more
     */
    record Limits(Duration toCome, Duration silence) {}

    private final Host host;
    private final int ranks;
    private final Map<String, String> command;
    private final Limits limits;
    private final Thread owner = Thread.currentThread();
    private final Thread talking;

    // Guarded by this.
    private int[] ranksOf = {}; // each host, when all are there
    private long asked; // meetings
    private long held; // likewise
    private @Nullable String ownFailure; // to be told
    private @Nullable RuntimeException failure;
    private Consumer<RuntimeException> listener = nobody -> {};
    private long answered; // when, in nanoseconds; 0 before the first time
    private boolean over; // host 0 has finished
    private boolean unheard; // by a host 0 that hangs
    private boolean leaving;

    private Hosts(Host host, int ranks, Map<String, String> command, Limits limits) {
        this.host = host;
        this.ranks = ranks;
        this.command = new LinkedHashMap<>();
        this.command.put("number of hosts", String.valueOf(host.count()));
        this.command.putAll(command);
        this.limits = limits;
        this.talking = daemon(this::talk, "hosts");
    }

    /**
     * Waits for the others, works, and waits until host 0 has done its work. Interrupting the thread ends it on all hosts.
     *
     * @param ranks that this host has
     * @param command what has to be the same on every host, by its name
     * @throws IllegalStateException in one sentence and on every host within half a minute, if one does not come, has another
     *     command, fails or falls silent; on a host that fails itself, what has failed there
     * @throws CancellationException if the thread is interrupted
     */
    public static void run(Host host, int ranks, Map<String, String> command, Consumer<Hosts> work) {
        run(host, ranks, command, LIMITS, work);
    }

    static void run(Host host, int ranks, Map<String, String> command, Limits limits, Consumer<Hosts> work) {
        Hosts hosts = new Hosts(host, ranks, command, limits);
        try {
            hosts.begin();
            hosts.await(() -> hosts.ranksOf.length > 0);
            work.accept(hosts);
            if (!host.isFirst()) {
                hosts.await(() -> hosts.over);
            }
        } catch (RankLeftBehindException e) { // says why, too
            hosts.tell(e);
            throw e;
        } catch (RuntimeException e) {
            hosts.tell(e);
            throw hosts.failure().orElse(e);
        } catch (Error e) {
            hosts.tell(e);
            throw e;
        } finally {
            hosts.end();
        }
    }

    /**
     * Runs the ranks of all hosts, this host's as {@link Ranks#run} does.
     *
     * @param cuda whether each is on a GPU
     * @throws RuntimeException likewise; what another host has told, if that was first
     */
    public void compute(boolean cuda, Ranks.Work work) {
        Ranks.run(this, cuda, work);
    }

    /** The number of the first of this host's ranks: they are counted host by host. */
    public synchronized int firstRank() {
        return IntStream.range(0, host.number()).map(other -> ranksOf[other]).sum();
    }

    /** Of all hosts. */
    public synchronized int allRanks() {
        return IntStream.of(ranksOf).sum();
    }

    /** Of this host. */
    int ownRanks() {
        return ranks;
    }

    /** Waits until each host has called it as often. */
    void meet() {
        long meeting;
        synchronized (this) {
            meeting = ++asked;
            notifyAll();
        }
        await(() -> held >= meeting);
    }

    /** Has {@code listener} hear at once that another host has failed, also if that has happened; until it is told otherwise. */
    void listen(Consumer<RuntimeException> listener) {
        synchronized (this) {
            this.listener = listener;
        }
        failure().ifPresent(listener);
    }

    /** Tells the other hosts why this one ends, unless one of them does already. */
    synchronized void tell(Throwable cause) {
        if (ownFailure == null && failure == null) {
            ownFailure = host
                    + (cause instanceof CancellationException
                            ? " was cancelled"
                            : " has failed: " + HostStore.firstLine(cause));
            notifyAll();
        }
    }

    /** Where groups of the ranks of all hosts find each other. */
    GroupExchange.Others others() {
        return new GroupExchange.Others() {
            @Override
            public Store store() {
                return HostStore.connect(host, limits.toCome);
            }

            @Override
            public RuntimeException explained(RuntimeException cause) {
                return Hosts.this.explained(cause);
            }
        };
    }

    /** When a host ends, its exchanges may fail before the others hear of it. */
    private synchronized RuntimeException explained(RuntimeException cause) {
        long begun = System.nanoTime();
        long patience = limits.silence.plus(TO_LEAVE).toNanos();
        boolean interrupted = false;
        while (failure == null && ownFailure == null && System.nanoTime() - begun < patience) {
            try {
                wait(MILLISECONDS_A_BEAT);
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
        return failure == null && ownFailure == null
                ? new IllegalStateException(
                        "an exchange with another host has failed: " + HostStore.firstLine(cause), cause)
                : new RanksStoppedException();
    }

    private void begin() {
        HostStore.load(); // before a clock runs
        talking.start();
        if (!host.isFirst()) {
            daemon(this::watch, "clock of hosts").start();
        }
    }

    private static Thread daemon(Runnable work, String name) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        return thread;
    }

    /** What it looks at is guarded by this, and so is {@code done}. */
    private synchronized void await(BooleanSupplier done) {
        while (!done.getAsBoolean()) {
            if (failure != null) {
                throw new RanksStoppedException();
            }
            try {
                wait();
            } catch (InterruptedException e) {
                throw new CancellationException("stopped while waiting for another host");
            }
        }
    }

    /** What another host has told, or not told in time. */
    synchronized Optional<RuntimeException> failure() {
        return Optional.ofNullable(failure);
    }

    private void fail(RuntimeException cause) {
        Consumer<RuntimeException> hears;
        synchronized (this) {
            if (failure != null || leaving || over) {
                return;
            }
            failure = cause;
            hears = listener;
            notifyAll();
        }
        hears.accept(cause);
        synchronized (this) {
            if (!leaving) {
                owner.interrupt();
            }
        }
    }

    private void watch() {
        long begun = System.nanoTime();
        String sentence;
        synchronized (this) {
            try {
                while (!leaving && isInTime(begun)) {
                    wait(MILLISECONDS_A_BEAT);
                }
            } catch (InterruptedException e) {
                return;
            }
            unheard = true;
            sentence = answered == 0 ? HostStore.stranger(host) : silent(0);
        }
        fail(new IllegalStateException(sentence));
    }

    /** Guarded by this. */
    private boolean isInTime(long begun) {
        return answered == 0
                ? System.nanoTime() - begun < limits.toCome.plus(TO_ANSWER).toNanos()
                : System.nanoTime() - answered < limits.silence.toNanos();
    }

    private String silent(int other) {
        return host.name(other) + " has given no sign of life for " + limits.silence.toSeconds() + " s";
    }

    private void talk() {
        long begun = System.nanoTime();
        try {
            while (!isLeaving()) {
                try (HostStore store = HostStore.open(host, begun, limits.toCome)) {
                    if (isNew(store)) {
                        new Talk(store, begun).run();
                        return;
                    }
                }
                HostStore.pause();
            }
        } catch (CancellationException e) {
            // this host leaves
        } catch (RuntimeException e) {
            fail(e);
        } catch (Error e) { // whoever waits for others would wait for ever
            fail(new IllegalStateException("this host cannot talk to the others: " + HostStore.firstLine(e), e));
        }
    }

    /** Not of hosts that have ended together a moment ago, whom host 0 is about to leave. */
    private boolean isNew(HostStore store) {
        try {
            return host.isFirst()
                    || store.read(OVER).isEmpty() && store.read(FAILED).isEmpty();
        } catch (IllegalStateException e) { // it has left
            return false;
        }
    }

    private synchronized boolean isLeaving() {
        return leaving;
    }

    /** What is said between two hosts that have found each other. */
    private final class Talk {
        private final HostStore store;
        private final long begun;
        private final long[] beats = new long[host.count()]; // of other hosts, as host 0 has heard them
        private final long[] changed = new long[host.count()]; // when they were others
        private long announced; // meetings
        private boolean told;
        private long waits = 1; // milliseconds, for others to come to a meeting

        Talk(HostStore store, long begun) {
            this.store = store;
            this.begun = begun;
        }

        void run() {
            introduce();
            while (!isLeaving()) {
                store.add(BEATS + host.number(), 1);
                tellOwnFailure();
                hear();
                if (host.isFirst()) {
                    requireAll();
                }
                meet();
                pause();
            }
            leave();
        }

        private void introduce() {
            store.add(CAME, 1);
            if (host.isFirst()) {
                command.forEach((name, value) -> store.write(COMMAND + name, value));
                store.write(COMMANDS, String.join("\n", command.keySet()));
            } else {
                Optional<String> difference = difference();
                if (difference.isPresent()) {
                    store.writeFirst(FAILED, difference.get());
                    return;
                }
            }
            if (store.add(SEEN + host.number(), 1) > 1) {
                store.writeFirst(FAILED, host + " is there twice, expected a number of its own for each host");
                return;
            }
            store.write(RANKS + host.number(), String.valueOf(ranks));
            store.add(HERE, 1);
        }

        /** Between host 0's command and this one's. */
        private Optional<String> difference() {
            Optional<String> names = store.read(COMMANDS);
            while (names.isEmpty()) {
                HostStore.pause();
                names = store.read(COMMANDS);
            }
            Set<String> all = new LinkedHashSet<>(command.keySet());
            all.addAll(List.of(names.get().split("\n")));
            for (String name : all) {
                Optional<String> own = Optional.ofNullable(command.get(name));
                Optional<String> first = store.read(COMMAND + name);
                if (!own.equals(first)) {
                    return Optional.of(name + " is " + own.orElse(NOT_GIVEN) + " on host " + host.number() + " and "
                            + first.orElse(NOT_GIVEN) + " on host 0, expected the same on all hosts");
                }
            }
            return Optional.empty();
        }

        private void tellOwnFailure() {
            Optional<String> sentence = ownFailure();
            if (sentence.isPresent() && !told) {
                store.writeFirst(FAILED, sentence.get());
                told = true;
            }
        }

        private void hear() {
            boolean ended = store.read(OVER).isPresent(); // host 0 writes why before that
            Optional<String> failed = store.read(FAILED);
            if (failed.isPresent() && !failed.equals(ownFailure())) {
                fail(new IllegalStateException(failed.get()));
            }
            int[] all = ranks();
            synchronized (Hosts.this) {
                answered = System.nanoTime();
                over = ended && failed.isEmpty();
                ranksOf = all;
                Hosts.this.notifyAll();
            }
        }

        private int[] ranks() {
            return store.add(HERE, 0) < host.count()
                    ? new int[0]
                    : IntStream.range(0, host.count())
                            .mapToObj(other -> store.read(RANKS + other).orElseThrow())
                            .mapToInt(Integer::parseInt)
                            .toArray();
        }

        /** What host 0 sees to: that all come, and live. */
        private void requireAll() {
            long now = System.nanoTime();
            for (int other = 1; other < host.count(); other++) {
                long heard = store.add(BEATS + other, 0);
                if (heard > beats[other]) {
                    beats[other] = heard;
                    changed[other] = now;
                } else if (heard > 0 && now - changed[other] > limits.silence.toNanos()) {
                    store.writeFirst(FAILED, silent(other));
                } else if (heard == 0 && now - begun > limits.toCome.toNanos()) {
                    store.writeFirst(
                            FAILED,
                            host.name(other) + " has not come to host 0 within " + limits.toCome.toSeconds() + " s");
                }
            }
        }

        private void meet() {
            long wanted;
            synchronized (Hosts.this) {
                wanted = asked;
            }
            if (wanted > announced) {
                store.add(MET, 1);
                announced = wanted;
            }
            if (store.add(MET, 0) >= announced * host.count()) {
                synchronized (Hosts.this) {
                    held = announced;
                    Hosts.this.notifyAll();
                }
            }
        }

        private void pause() {
            synchronized (Hosts.this) {
                if (leaving || asked > announced || ownFailure != null && !told) {
                    return;
                }
                try {
                    // Others come to a meeting at once or, to the first picture's beginning, after minutes.
                    waits = asked > held ? Math.min(2 * waits, MOST_MILLISECONDS_TO_MEET) : 1;
                    Hosts.this.wait(asked > held ? waits : MILLISECONDS_A_BEAT);
                } catch (InterruptedException e) {
                    throw new CancellationException("stopped while waiting for another host");
                }
            }
        }

        private void leave() {
            tellOwnFailure();
            if (!host.isFirst()) {
                store.add(LEFT, 1);
                return;
            }
            store.write(OVER, "");
            long begun = System.nanoTime();
            while (store.add(LEFT, 0) < store.add(CAME, 0) - 1 && System.nanoTime() - begun < TO_LEAVE.toNanos()) {
                LockSupport.parkNanos(NANOSECONDS_TO_LOOK);
            }
        }
    }

    private synchronized Optional<String> ownFailure() {
        return Optional.ofNullable(ownFailure);
    }

    private void end() {
        boolean interrupted;
        long toLeave;
        synchronized (this) {
            leaving = true;
            toLeave = unheard ? 1 : TO_LEAVE.plusSeconds(1).toMillis();
            interrupted = Thread.interrupted(); // nobody but the caller's own does that from now on
            notifyAll();
            if (ranksOf.length == 0) { // perhaps it looks for host 0
                talking.interrupt();
            }
        }
        try {
            talking.join(toLeave);
        } catch (InterruptedException e) {
            interrupted = true;
        }
        if (interrupted && failure().isEmpty()) { // otherwise it was to tell that
            owner.interrupt();
        }
    }
}
