package org.scaledit.ranks;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.net.ServerSocket;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.function.Consumer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.scaledit.testing.OtherJvm;

/** How hosts come together, and how all of them end when one does. */
@Timeout(value = 1, unit = TimeUnit.MINUTES, threadMode = Timeout.ThreadMode.SEPARATE_THREAD)
class HostsTest {
    private static final Consumer<Hosts> NOTHING = hosts -> {};

    private final int port = OtherJvm.freePort();

    private Host host(int number, int count) {
        return new Host(number, count, "localhost", port);
    }

    private CompletableFuture<String> run(int number, int count, Map<String, String> command, Consumer<Hosts> work) {
        return HostThreads.run(host(number, count), 1, command, work);
    }

    private CompletableFuture<String> run(int number, int count) {
        return run(number, count, Map.of(), NOTHING);
    }

    private static void working(Hosts hosts) {
        hosts.compute(false, exchange -> {
            while (true) {
                exchange.requireOthers();
                LockSupport.parkNanos(1_000_000);
            }
        });
    }

    @Test
    void ranksAreCountedHostByHost() {
        int[] first = new int[3];
        assertThat(HostThreads.run(new int[] {2, 1, 3}, hosts -> {
                    assertThat(hosts.allRanks()).isEqualTo(6);
                    first[hosts.ownRanks() - 1] = hosts.firstRank();
                }))
                .containsOnly("");
        assertThat(first).containsExactly(2, 0, 3); // of those with 1, 2 and 3
    }

    /** Host 0 is at work for longer than a host may be silent; the next thing finds the port free again. */
    @Test
    void theOthersWaitUntilHost0HasDoneItsWork() {
        for (int round = 0; round < 3; round++) {
            AtomicInteger done = new AtomicInteger();
            long work = round == 0 ? HostThreads.LIMITS.silence().plusSeconds(1).toNanos() : 0;
            CompletableFuture<String> first = run(0, 2, Map.of(), hosts -> {
                long begun = System.nanoTime();
                while (System.nanoTime() - begun < work) {
                    LockSupport.parkNanos(1_000_000);
                }
                done.incrementAndGet();
            });
            CompletableFuture<String> second = run(1, 2);
            assertThat(second.join()).isEmpty();
            assertThat(done.get()).isEqualTo(1);
            assertThat(first.join()).isEmpty();
        }
    }

    @Test
    void whatOneThrowsAllEndWith() {
        for (int failing = 0; failing < 3; failing++) {
            int number = failing;
            List<String> said = HostThreads.run(
                    new int[] {1, 2, 1},
                    hosts -> hosts.compute(false, exchange -> {
                        exchange.meet();
                        if (exchange.rank() == number + 1) {
                            throw new IllegalStateException("GPU " + number + " is gone");
                        }
                        while (true) {
                            exchange.requireOthers();
                            LockSupport.parkNanos(1_000_000);
                        }
                    }));
            String host = number < 2 ? "host 1 of 3" : "host 2 of 3";
            assertThat(said).hasSize(3).allMatch(sentence -> sentence.endsWith("GPU " + number + " is gone"));
            assertThat(said.get(0)).isEqualTo(host + " has failed: GPU " + number + " is gone");
        }
    }

    /** Before its ranks are at work, or after that. */
    @Test
    void anInterruptOnOneEndsAll() throws InterruptedException {
        for (int interrupted = 0; interrupted < 2; interrupted++) {
            CountDownLatch working = new CountDownLatch(2);
            Thread[] threads = new Thread[2];
            Consumer<Hosts> work = hosts -> {
                threads[hosts.firstRank()] = Thread.currentThread();
                working.countDown();
                hosts.compute(false, exchange -> {
                    while (true) {
                        exchange.meet();
                    }
                });
            };
            CompletableFuture<String> first = run(0, 2, Map.of(), work);
            CompletableFuture<String> second = run(1, 2, Map.of(), work);
            assertThat(working.await(20, TimeUnit.SECONDS))
                    .as("host 0: %s; host 1: %s", first.getNow("is at work"), second.getNow("is at work"))
                    .isTrue();
            threads[interrupted].interrupt();
            List<String> said = List.of(first.join(), second.join());
            assertThat(said.get(interrupted)).startsWith("stopped while waiting for");
            assertThat(said.get(1 - interrupted)).isEqualTo("host " + interrupted + " of 2 was cancelled");
        }
    }

    @Test
    void oneThatDoesNotComeIsNamed() {
        CompletableFuture<String> first = run(0, 3);
        CompletableFuture<String> third = run(2, 3);
        assertThat(first.join()).isEqualTo("host 1 of 3 has not come to host 0 within 5 s");
        assertThat(third.join()).isEqualTo("host 1 of 3 has not come to host 0 within 5 s");
        assertThat(run(1, 3).join()).startsWith("host 0 of 3 has not come to localhost:" + port + " within 5 s: ");
    }

    @Test
    void differencesAreNamedOnAll() {
        Map<String, String> command = Map.of("width", "1024");
        CompletableFuture<String> first = run(0, 2, command, HostsTest::working);
        CompletableFuture<String> second = run(1, 2, Map.of("width", "512"), HostsTest::working);
        String sentence = "width is 512 on host 1 and 1024 on host 0, expected the same on all hosts";
        assertThat(first.join()).isEqualTo(sentence);
        assertThat(second.join()).isEqualTo(sentence);

        first = run(0, 2, command, HostsTest::working);
        second = run(1, 2);
        sentence = "width is not given on host 1 and 1024 on host 0, expected the same on all hosts";
        assertThat(first.join()).isEqualTo(sentence);
        assertThat(second.join()).isEqualTo(sentence);

        first = run(0, 2, command, HostsTest::working);
        second = run(2, 3, command, HostsTest::working);
        sentence = "number of hosts is 3 on host 2 and 2 on host 0, expected the same on all hosts";
        assertThat(first.join()).isEqualTo(sentence);
        assertThat(second.join()).isEqualTo(sentence);
    }

    @Test
    void oneThatIsThereTwiceEndsAll() {
        CompletableFuture<String> first = run(0, 2, Map.of(), HostsTest::working);
        CompletableFuture<String> second = run(1, 2, Map.of(), HostsTest::working);
        CompletableFuture<String> again = run(1, 2, Map.of(), HostsTest::working);
        String sentence = "host 1 of 2 is there twice, expected a number of its own for each host";
        assertThat(List.of(first.join(), second.join(), again.join())).containsOnly(sentence);
    }

    @Test
    void whereHostsCannotMeetIsNamed() throws IOException {
        try (ServerSocket taken = new ServerSocket(port)) {
            assertThat(taken.isBound()).isTrue();
            assertThat(run(0, 2).join())
                    .isEqualTo("host 0 of 2 cannot listen at port " + port + ": address already in use");
            assertThat(run(1, 2).join())
                    .isEqualTo("what listens at localhost:" + port + " does not answer as host 0 of 2");
        }
        Host lost = new Host(1, 2, "nowhere.invalid", port);
        assertThat(HostThreads.run(lost, 1, Map.of(), NOTHING).join())
                .isEqualTo("address nowhere.invalid of host 0 of 2 is unknown to host 1 of 2");
    }

    @Test
    void numbersOutOfRangeAreRefused() {
        assertThatThrownBy(() -> new Host(0, 0, "a", 1)).hasMessage("number of hosts is 0, expected 1 or more");
        assertThatThrownBy(() -> new Host(2, 2, "a", 1)).hasMessage("host 2 of 2 is given, expected 0 to 1");
        assertThatThrownBy(() -> new Host(0, 2, " ", 1))
                .hasMessage("address of host 0 is empty, expected a name or an IP address");
        assertThatThrownBy(() -> new Host(0, 2, "a", 65_536))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("port of host 0 is 65536, expected 1 to 65535");
    }

    /** Of a caller whose compiler does not check it. */
    @Test
    @SuppressWarnings("NullAway")
    void noAddressIsRefused() {
        assertThatThrownBy(() -> new Host(0, 2, null, 1))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("address of host 0 is empty, expected a name or an IP address");
    }
}
