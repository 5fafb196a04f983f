package org.scaledit.evaluation;

import java.util.Optional;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.ranks.Exchange;

/**
 * Tells a profile when a rank exchanges: that time is for what is moved, and for other ranks that come later. Counts what the
 * rank takes from others meanwhile.
 */
final class ProfiledExchange implements Exchange {
    /** The parts of a step. */
    private enum Phase {
        COMPUTE,
        EXCHANGE
    }

    /** As the profile names it. */
    static final String EXCHANGE = "exchange";

    private final Exchange exchange;
    private Optional<Profile> profile = Optional.empty();
    private long bytes;

    ProfiledExchange(Exchange exchange) {
        this.exchange = exchange;
    }

    /** From here on the time is this profile's, and bytes are counted anew. */
    void tell(Profile told) {
        profile = Optional.of(told);
        bytes = 0;
        told.begin(Phase.COMPUTE);
    }

    /** Nobody is told any more. */
    void tellNobody() {
        profile = Optional.empty();
    }

    /** What was swapped and gathered since a profile was told, without what is the rank's own. */
    long bytes() {
        return bytes;
    }

    private void timed(Runnable work) {
        profile.ifPresent(told -> told.begin(Phase.EXCHANGE));
        work.run();
        profile.ifPresent(told -> told.begin(Phase.COMPUTE));
    }

    @Override
    public int rank() {
        return exchange.rank();
    }

    @Override
    public int ranks() {
        return exchange.ranks();
    }

    @Override
    public void meet() {
        exchange.meet();
    }

    @Override
    public void requireOthers() {
        exchange.requireOthers();
    }

    @Override
    public void sum(Tensor tensor) {
        timed(() -> exchange.sum(tensor));
    }

    @Override
    public void share(Tensor tensor) {
        timed(() -> exchange.share(tensor));
    }

    @Override
    public Begun swap(Tensor given, long[] givenRows, Tensor taken, long[] takenRows) {
        bytes += taken.nbytes();
        return begun(() -> exchange.swap(given, givenRows, taken, takenRows));
    }

    @Override
    public Begun gather(Tensor own, Tensor all) {
        bytes += all.nbytes() - own.nbytes();
        return begun(() -> exchange.gather(own, all));
    }

    /** What is on its way while the rank computes takes none of its time; waiting for it does. */
    private Begun begun(Supplier<Begun> collective) {
        Begun[] begun = new Begun[1];
        timed(() -> begun[0] = collective.get());
        return new Begun() {
            @Override
            public void await() {
                timed(begun[0]::await);
            }

            @Override
            public void close() {
                begun[0].close();
            }
        };
    }
}
