package org.scaledit;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import org.scaledit.testing.OtherJvm;

/** A host of two that is another process. */
final class HostProcess implements AutoCloseable {
    private static final int LIMIT_IN_SECONDS = 60;

    /** What becomes of it in the midst of a picture. */
    enum Fate {
        ENDS_WELL,
        DIES,
        HANGS
    }

    private final Process process;
    private final Path output;

    private HostProcess(Process process, Path output) {
        this.process = process;
        this.output = output;
    }

    /**
     * Paints {@link SharedPictureTest#ragged} with the tiny model.
     *
     * @param ranks on a CPU, or with 0 the first GPU
     * @param width of the picture
     */
    static HostProcess start(Path folder, int number, int port, int ranks, int width, Fate fate) throws IOException {
        Path output = Files.createTempFile(folder, "host", ".txt");
        ProcessBuilder builder = OtherJvm.of(
                HostProcess.class,
                String.valueOf(number),
                String.valueOf(port),
                String.valueOf(ranks),
                String.valueOf(width),
                fate.name());
        if (ranks == 0) {
            builder.environment().put("CUDA_VISIBLE_DEVICES", "1");
        }
        return new HostProcess(builder.redirectOutput(output.toFile()).start(), output);
    }

    public static void main(String[] arguments) {
        int ranks = Integer.parseInt(arguments[2]);
        int number = Integer.parseInt(arguments[0]);
        ScaleDit.Builder builder = ranks == 0
                ? ScaleDitGpuTest.tiny()
                : ScaleDitTest.tinyWithLora().ranksOnCpu(ranks);
        ImageRequest request = SharedPictureTest.ragged().width(Integer.parseInt(arguments[3]));
        Consumer<Progress> fate =
                ScaleDitTest.at(Progress.Stage.HIGH_RESOLUTION, () -> meet(Fate.valueOf(arguments[4])));
        try (ScaleDit model = builder.host(number, 2, "localhost", Integer.parseInt(arguments[1]))
                .load()) {
            if (number == 0) {
                model.generate(request, fate);
            } else {
                model.follow(request);
            }
            System.out.println("said: done");
        } catch (RuntimeException e) {
            System.out.println("said: " + e.getMessage());
        }
    }

    private static void meet(Fate fate) {
        switch (fate) {
            case ENDS_WELL -> {}
            case DIES -> Runtime.getRuntime().halt(1);
            case HANGS -> hang(ProcessHandle.current().pid());
        }
    }

    private static void hang(long pid) {
        try {
            new ProcessBuilder("kill", "-STOP", String.valueOf(pid)).start().waitFor();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    void hang() {
        hang(process.pid());
    }

    void die() {
        process.destroyForcibly();
    }

    /** What it says at its end, which is in order. */
    void assertSays(String sentence) throws IOException, InterruptedException {
        boolean ended = process.waitFor(LIMIT_IN_SECONDS, TimeUnit.SECONDS);
        String printed = Files.readString(output);
        assertThat(ended).as(printed).isTrue();
        assertThat(process.exitValue()).as(printed).isZero();
        assertThat(printed.lines().filter(line -> line.startsWith("said: ")))
                .as(printed)
                .containsExactly("said: " + sentence);
    }

    @Override
    public void close() throws IOException {
        process.destroyForcibly();
        System.out.print(Files.readString(output));
    }
}
