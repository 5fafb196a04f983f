package org.scaledit.ranks;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.function.Consumer;
import java.util.stream.IntStream;
import org.scaledit.testing.OtherJvm;

/** Hosts that are threads of one process: they share no more than hosts do. */
final class HostThreads {
    /** Shorter than those that users wait for. */
    static final Hosts.Limits LIMITS = new Hosts.Limits(Duration.ofSeconds(5), Duration.ofSeconds(4));

    private HostThreads() {}

    /** Does one thing on as many hosts as there are numbers of ranks; says how each ended, as {@link #run(Host, int, Map, Consumer)}. */
    static List<String> run(int[] ranks, Consumer<Hosts> work) {
        int port = OtherJvm.freePort();
        List<CompletableFuture<String>> ended = new ArrayList<>();
        IntStream.range(0, ranks.length)
                .mapToObj(number -> new Host(number, ranks.length, "localhost", port))
                .forEach(host -> ended.add(run(host, ranks[host.number()], Map.of(), work)));
        return ended.stream().map(CompletableFuture::join).toList();
    }

    /** Begins on one host; says what was thrown there, or nothing. */
    static CompletableFuture<String> run(Host host, int ranks, Map<String, String> command, Consumer<Hosts> work) {
        Executor own = task -> new Thread(task, host.toString()).start();
        return CompletableFuture.supplyAsync(
                () -> {
                    try {
                        Hosts.run(host, ranks, command, LIMITS, work);
                        return Thread.interrupted() ? "an interrupt is left" : "";
                    } catch (RuntimeException | Error e) {
                        return String.valueOf(e.getMessage());
                    }
                },
                own);
    }
}
