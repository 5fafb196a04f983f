package org.scaledit.ranks;

import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.UnknownHostException;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.chrono.Milliseconds;
import org.bytedeco.pytorch.StringVector;
import org.bytedeco.pytorch.TCPStore;
import org.bytedeco.pytorch.TCPStoreOptions;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.Tensors;
import org.scaledit.tensor.Torch;

/**
 * Names and values that host 0 keeps for all hosts: torch's TCPStore. What is asked of a host 0 that has ended throws; of one
 * that hangs, it never returns.
 */
final class HostStore implements AutoCloseable {
    private static final int MILLISECONDS_TO_CONNECT = 1000;
    private static final int MILLISECONDS_TO_TRY_AGAIN = 100;
    private static final Duration LEAST = Duration.ofSeconds(1);

    private static final String LOG_LEVEL = "TORCH_CPP_LOG_LEVEL";

    /** By which host 0 reaches itself. */
    private static final String LOCAL = "localhost";

    /** In what torch says of a socket. */
    private static final Pattern REASON = Pattern.compile("message: ([^\\n]*)");

    private final Host host;
    private final TCPStore store;

    private HostStore(Host host, TCPStore store) {
        this.host = host;
        this.store = store;
    }

    /**
     * Host 0 serves it, the others connect as soon as it does. Where another program listens in its place and says nothing, it
     * does not return.
     *
     * @param begun when waiting for it did, in nanoseconds
     * @param patience so long
     * @throws IllegalStateException in one sentence, if the port cannot be listened at, the address is unknown, or host 0 has
     *     not come
     * @throws CancellationException if the thread is interrupted
     */
    static HostStore open(Host host, long begun, Duration patience) {
        if (!host.isFirst()) {
            awaitFirst(host, begun, patience);
            Duration left = patience.minusNanos(System.nanoTime() - begun);
            return new HostStore(host, connect(host, left.compareTo(LEAST) < 0 ? LEAST : left));
        }
        try {
            return new HostStore(host, make(LOCAL, host.port(), true, patience));
        } catch (RuntimeException e) {
            Matcher reason = REASON.matcher(String.valueOf(e.getMessage()));
            throw new IllegalStateException(
                    host + " cannot listen at port " + host.port() + ": "
                            + (reason.find() ? reason.group(1) : firstLine(e)),
                    e);
        }
    }

    /** Loads what it is made of. */
    static void load() {
        Torch.load();
        leaveWarningsToHosts();
    }

    /** Torch's store would write what becomes of the other end to standard error as well, with all that called it. */
    private static void leaveWarningsToHosts() {
        if (!torch.has_env(LOG_LEVEL)) {
            torch.set_env(LOG_LEVEL, "ERROR");
            torch.initLogging();
        }
    }

    /** One connection more. A group of ranks has its own. */
    static TCPStore connect(Host host, Duration patience) {
        try {
            return make(host.isFirst() ? LOCAL : host.address(), host.port(), false, patience);
        } catch (RuntimeException e) {
            throw new IllegalStateException(stranger(host) + ": " + firstLine(e), e);
        }
    }

    static String stranger(Host host) {
        return "what listens at " + host.address() + ":" + host.port() + " does not answer as " + host.name(0);
    }

    private static TCPStore make(String address, int port, boolean serve, Duration patience) {
        return Tensors.outlive(() -> new TCPStore(
                address,
                new TCPStoreOptions()
                        .port((short) port) // of 16 bits, without a sign
                        .isServer(serve)
                        .waitWorkers(false)
                        .timeout(new Milliseconds(patience.toMillis()))));
    }

    /** Torch itself would write what it meets on the way to standard error, in many lines. */
    private static void awaitFirst(Host host, long begun, Duration patience) {
        InetSocketAddress address = new InetSocketAddress(host.address(), host.port());
        while (true) {
            try (Socket socket = new Socket()) {
                socket.connect(address, MILLISECONDS_TO_CONNECT);
                return;
            } catch (UnknownHostException e) {
                throw new IllegalStateException(
                        "address " + host.address() + " of " + host.name(0) + " is unknown to " + host, e);
            } catch (IOException e) {
                if (System.nanoTime() - begun > patience.toNanos()) {
                    throw new IllegalStateException(
                            host.name(0) + " has not come to " + host.address() + ":" + host.port() + " within "
                                    + patience.toSeconds() + " s: " + e.getMessage(),
                            e);
                }
            }
            pause();
        }
    }

    /** Between two looks at what is not there yet. */
    static void pause() {
        try {
            Thread.sleep(MILLISECONDS_TO_TRY_AGAIN);
        } catch (InterruptedException e) {
            throw new CancellationException("stopped while waiting for another host");
        }
    }

    static String firstLine(Throwable failure) {
        String message = failure.getMessage();
        return message == null || message.isBlank()
                ? failure.getClass().getSimpleName()
                : message.strip().lines().findFirst().orElseThrow();
    }

    /** Adds to a number, which is 0 before anybody has. */
    long add(String name, long count) {
        return asked(() -> store.add(name, count));
    }

    void write(String name, String value) {
        asked(() -> {
            store.set(name, value);
            return true;
        });
    }

    /** Writes what nobody else has written yet. */
    void writeFirst(String name, String value) {
        asked(() -> store.compareSet(name, "", value));
    }

    Optional<String> read(String name) {
        return asked(() ->
                store.check(new StringVector(name)) ? Optional.of(store.get_to_str(name)) : Optional.<String>empty());
    }

    private <T> T asked(Supplier<T> question) {
        try {
            return Tensors.compute(question);
        } catch (RuntimeException e) {
            throw new IllegalStateException(host.name(0) + " has ended without a word", e);
        }
    }

    @Override
    public void close() {
        store.close();
    }
}
