package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.concurrent.CancellationException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class PrefetchTest {
    private final AtomicInteger made = new AtomicInteger();
    private final AtomicInteger closed = new AtomicInteger();

    private final class Thing implements AutoCloseable {
        private final long number;

        private Thing(long number) {
            this.number = number;
            made.incrementAndGet();
        }

        @Override
        public void close() {
            closed.incrementAndGet();
        }
    }

    /** Those that take longest come first. */
    @Test
    void thingsComeInTheirOrder() {
        try (Prefetch<Thing> things = new Prefetch<>(3, 13, 1, () -> {}, number -> () -> {
            Thread.sleep(3 * (13 - number));
            return new Thing(number);
        })) {
            for (long number = 3; number < 13; number++) {
                try (Thing thing = things.take("here")) {
                    assertThat(thing.number).isEqualTo(number);
                }
            }
        }
        assertThat(closed).hasValue(10);
    }

    @Test
    void whatIsNotTakenIsClosed() {
        try (Prefetch<Thing> things = new Prefetch<>(0, 100, 1, () -> {}, number -> () -> new Thing(number))) {
            things.take("here").close();
        }
        assertThat(made.get()).isLessThan(100);
        assertThat(closed.get()).isEqualTo(made.get());
    }

    @Test
    void whatFailsIsHeardOfWhenItIsTaken() {
        try (Prefetch<Thing> things = new Prefetch<>(0, 2, 1, () -> {}, number -> () -> {
            if (number == 1) {
                throw new TrainingException("no picture");
            }
            return new Thing(number);
        })) {
            things.take("here").close();
            assertThatThrownBy(() -> things.take("here"))
                    .isInstanceOf(TrainingException.class)
                    .hasMessage("no picture");
        }
    }

    @Test
    void anInterruptStopsTheWaiting() {
        try (Prefetch<Thing> things = new Prefetch<>(0, 1, 1, () -> {}, number -> () -> {
            Thread.sleep(200);
            return new Thing(number);
        })) {
            Thread.currentThread().interrupt();
            assertThatThrownBy(() -> things.take("after 3 steps"))
                    .isInstanceOf(CancellationException.class)
                    .hasMessage("the training was stopped after 3 steps");
        }
        assertThat(closed).hasValue(made.get()); // none, if it had not begun
    }

    @Test
    void furtherInterruptsLoseNothing() throws InterruptedException {
        Thread closing = Thread.currentThread();
        CountDownLatch begun = new CountDownLatch(1);
        CountDownLatch impatient = new CountDownLatch(1);
        Thread other = new Thread(() -> {
            for (int i = 0; i < 3; i++) {
                pause(50);
                closing.interrupt();
            }
            pause(50); // for the last one to be noticed
            impatient.countDown();
        });
        Prefetch<Thing> things = new Prefetch<>(0, 2, 1, () -> {}, number -> () -> {
            if (number == 1) {
                begun.countDown();
                impatient.await();
            }
            return new Thing(number);
        });
        things.take("here").close();
        begun.await();
        other.start();
        things.close();
        assertThat(Thread.interrupted()).isTrue();
        other.join();
        assertThat(made).hasValue(2);
        assertThat(closed).hasValue(2);
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
