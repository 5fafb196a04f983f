package org.scaledit.judge;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.TensorVector;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.image.Pixels;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.Probe;
import org.scaledit.scenes.Scene;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.tensor.Tensors;

/** What a detector knows: it is shown true renders of scenes that it was not trained with. */
public record Exam(Composer composer, SceneRenderer renderer) {
    /** Far from the seeds of trainings, which begin at 0. */
    private static final long FIRST_SEED = 1L << 40;

    private static final int BATCH = 32;

    /**
     * @param scenes of each probe
     * @throws CancellationException if the thread is interrupted
     */
    public Shares of(Detector detector, int size, int scenes) {
        List<Shares.Mark> marks = new ArrayList<>();
        for (Probe probe : Probe.values()) {
            for (int first = 0; first < scenes; first += BATCH) {
                if (Thread.interrupted()) {
                    throw new CancellationException("the exam was stopped");
                }
                List<Scene> batch = LongStream.range(first, Math.min(scenes, first + BATCH))
                        .mapToObj(i -> composer.compose(probe, FIRST_SEED + i))
                        .toList();
                List<List<Detection>> seen = Tensors.compute(() -> detector.detect(pictures(batch, size)));
                for (int i = 0; i < batch.size(); i++) {
                    marks.add(new Shares.Mark(probe, Scoring.isRight(probe, batch.get(i), seen.get(i))));
                }
            }
        }
        return Shares.of(marks.stream());
    }

    /** [batch, 3, size, size] */
    private Tensor pictures(List<Scene> scenes, int size) {
        List<byte[]> painted = IntStream.range(0, scenes.size())
                .parallel()
                .mapToObj(i -> renderer.render(scenes.get(i), size))
                .toList();
        return torch.stack(new TensorVector(
                painted.stream().map(rgb -> Pixels.toTensor(rgb, size)).toArray(Tensor[]::new)));
    }
}
