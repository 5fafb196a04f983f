package org.scaledit.evaluation;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import org.bytedeco.pytorch.cuda.CUDAEvent;
import org.scaledit.tensor.Tensors;

/**
 * Where the time of a forward pass goes: a mark wherever another part begins, on a GPU an event in its queue, so that
 * nothing waits. It is used once.
 */
final class Profile implements AutoCloseable {
    private static final int WITH_TIME = 0; // cudaEventDefault; torch's own default has none

    /** @param event empty on a CPU */
    private record Mark(String part, long nanoseconds, List<CUDAEvent> event) {
        double secondsTo(Mark next) {
            return event.isEmpty()
                    ? (next.nanoseconds - nanoseconds) / 1e9
                    : event.get(0).elapsed_time(next.event.get(0)) / 1e3;
        }
    }

    private final boolean cuda;
    private final List<Mark> marks = new ArrayList<>();

    Profile(boolean cuda) {
        this.cuda = cuda;
    }

    /** From here on time belongs to this part. */
    void begin(Enum<?> part) {
        mark(part.name().toLowerCase(Locale.ROOT));
    }

    /** The seconds of each part up to now. The work is over: the GPU was waited for. */
    Map<String, Double> end(Hardware hardware) {
        mark("end");
        hardware.await();
        Map<String, Double> seconds = new TreeMap<>();
        for (int i = 0; i + 1 < marks.size(); i++) {
            seconds.merge(marks.get(i).part, marks.get(i).secondsTo(marks.get(i + 1)), Double::sum);
        }
        return seconds;
    }

    private void mark(String part) {
        if (!marks.isEmpty() && marks.get(marks.size() - 1).part.equals(part)) {
            return;
        }
        List<CUDAEvent> event = cuda ? List.of(Tensors.outlive(() -> new CUDAEvent(WITH_TIME))) : List.of();
        marks.add(new Mark(part, System.nanoTime(), event)); // first: an event that cannot be recorded is closed, too
        event.forEach(CUDAEvent::record);
    }

    @Override
    public void close() {
        marks.forEach(mark -> mark.event.forEach(CUDAEvent::close));
    }
}
