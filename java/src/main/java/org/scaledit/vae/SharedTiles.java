package org.scaledit.vae;

import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.function.BooleanSupplier;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.ranks.Exchange;
import org.scaledit.tensor.Tensors;

/**
 * Tiles that ranks compute together: whoever is free begins the next one. Rank 0 also takes their outputs in order and
 * blends them. No tile is begun that is further ahead of it than a row of tiles and one for each rank: enough for the
 * others to stay at work while it hands out a band, and a bound for what waits for it.
 *
 * <p>For one map. Closed when the ranks have ended: outputs that rank 0 has not taken are freed.
 */
public final class SharedTiles implements AutoCloseable {
    /** How often a rank that waits looks whether another one has failed. */
    private static final int MILLISECONDS_TO_LOOK = 100;

    private final Tiles tiles;
    private final int ahead; // of the tile that rank 0 takes next
    private final Map<Integer, Tensor> outputs = new HashMap<>(); // that wait for rank 0, by their tile's number
    private int begun; // all tiles before this one
    private int taken; // likewise
    private boolean closed;

    SharedTiles(Tiles tiles, int ranks) {
        this.tiles = tiles;
        this.ahead = tiles.columns() + ranks;
    }

    /** What rank 0 does, as {@link Tiles#run}. */
    void run(int channels, Tiles.Compute compute, Exchange exchange, TileListener listener, BandConsumer sink) {
        tiles.run(
                channels,
                tile -> {
                    computeUntil(() -> outputs.containsKey(tile.number()), compute, exchange);
                    return take(tile.number());
                },
                listener,
                sink);
    }

    /** What every other rank does. */
    void follow(Tiles.Compute compute, Exchange exchange) {
        computeUntil(() -> begun == tiles.count(), compute, exchange);
    }

    private void computeUntil(BooleanSupplier done, Tiles.Compute compute, Exchange exchange) {
        Optional<Tiles.Tile> next = begin(done, exchange);
        while (next.isPresent()) {
            Tiles.Tile tile = next.get();
            Tensors.run(() -> put(tile.number(), compute.output(tile)));
            next = begin(done, exchange);
        }
    }

    /** A tile that nobody has begun, as soon as there may be one; none once {@code done}. */
    private synchronized Optional<Tiles.Tile> begin(BooleanSupplier done, Exchange exchange) {
        exchange.requireOthers();
        while (!done.getAsBoolean()) {
            if (begun < Math.min(tiles.count(), taken + ahead)) {
                return Optional.of(tiles.tile(begun++));
            }
            try {
                wait(MILLISECONDS_TO_LOOK);
            } catch (InterruptedException e) {
                throw new CancellationException("stopped while waiting for the other GPUs");
            }
            exchange.requireOthers();
        }
        return Optional.empty();
    }

    private synchronized void put(int number, Tensor output) {
        if (closed) { // this rank was left behind
            return;
        }
        outputs.put(number, Tensors.keep(output));
        notifyAll();
    }

    /** In the caller's scope. */
    private synchronized Tensor take(int number) {
        taken = number + 1;
        notifyAll();
        try (Tensor output = Objects.requireNonNull(outputs.remove(number))) {
            return Tensors.scoped(() -> output);
        }
    }

    @Override
    public synchronized void close() {
        closed = true;
        outputs.values().forEach(Tensor::close);
        outputs.clear();
    }
}
