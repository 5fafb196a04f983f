package org.scaledit.cli;

import java.util.Objects;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit;
import picocli.CommandLine.Option;

/** Which of several hosts this is, and where they meet: as torchrun has it. */
final class HostOptions {
    private static final int PORT = 29500;

    @Option(
            names = "--nnodes",
            paramLabel = "N",
            description =
                    "Hosts, or processes, that paint a picture together, each with its own --gpus: the same command on each,"
                            + " but for --node-rank. The first one writes it. Default: 1.")
    private @Nullable Integer nodes;

    @Option(names = "--node-rank", paramLabel = "N", description = "Which of them this one is, from 0.")
    private @Nullable Integer rank;

    @Option(
            names = "--master-addr",
            paramLabel = "HOST",
            description = "Name or IP address by which the others reach the first one.")
    private @Nullable String address;

    @Option(
            names = "--master-port",
            paramLabel = "PORT",
            description = "TCP port at which that listens, in a network that is trusted. Default: " + PORT + ".")
    private @Nullable Integer port;

    boolean areSeveral() {
        return nodes != null && nodes != 1;
    }

    boolean isFirst() {
        return rank == null || rank == 0;
    }

    /** @throws IllegalArgumentException in one sentence, if one of them is missing or out of its range */
    void apply(ScaleDit.Builder builder) {
        if (nodes == null) {
            requireNone("node-rank", rank);
            requireNone("master-addr", address);
            requireNone("master-port", port);
            return;
        }
        if (nodes > 1 && (rank == null || address == null)) {
            throw new IllegalArgumentException("nnodes is " + nodes + ", expected "
                    + (rank == null ? "--node-rank N" : "--master-addr HOST") + " beside it");
        }
        builder.host(
                Objects.requireNonNullElse(rank, 0),
                nodes,
                Objects.requireNonNullElse(address, "localhost"),
                Objects.requireNonNullElse(port, PORT));
    }

    private static void requireNone(String option, @Nullable Object given) {
        if (given != null) {
            throw new IllegalArgumentException(option + " is given, expected --nnodes N beside it");
        }
    }

    /** What one that is not the first says at its end. */
    String done() {
        return "host " + rank + " of " + nodes + " has done its part, host 0 writes what was asked for";
    }
}
