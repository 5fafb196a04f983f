package org.scaledit.training;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.scaledit.file.Reasons;

/** The course of a training, a line of {@code loss.csv} for each step. */
public final class LossLog implements AutoCloseable {
    private static final String HEADER = "step,loss,learning_rate,gradient_norm"; // other losses' names follow
    private static final int COLUMNS = 4;

    /**
     * A step that was made.
     *
     * @param step from 1
     * @param loss mean of its samples' losses
     * @param learningRate the optimizer's; Prodigy's estimate d times its factor
     * @param gradientNorm of all matrices together, before it is clipped
     * @param others what is learnt besides, means as well; no number where a step has none
     */
    public record Row(long step, double loss, double learningRate, double gradientNorm, List<Double> others) {
        Row(long step, double loss, double learningRate, double gradientNorm) {
            this(step, loss, learningRate, gradientNorm, List.of());
        }

        private String line() {
            StringBuilder line = new StringBuilder(step + "," + loss + "," + learningRate + "," + gradientNorm);
            for (double other : others) {
                line.append(',').append(Double.isNaN(other) ? "" : other);
            }
            return line.append('\n').toString();
        }

        private static Optional<Row> of(String line) {
            String[] columns = line.split(",", -1);
            try {
                return columns.length < COLUMNS
                        ? Optional.empty()
                        : Optional.of(new Row(
                                Long.parseLong(columns[0]),
                                Double.parseDouble(columns[1]),
                                Double.parseDouble(columns[2]),
                                Double.parseDouble(columns[3]),
                                Arrays.stream(columns)
                                        .skip(COLUMNS)
                                        .map(each -> each.isEmpty() ? Double.NaN : Double.parseDouble(each))
                                        .toList()));
            } catch (NumberFormatException e) {
                return Optional.empty();
            }
        }
    }

    private final Path file;
    private final RandomAccessFile lines; // not a channel, which an interrupted thread would close

    private final List<Row> rows;

    private LossLog(Path file, List<Row> rows) {
        this.file = file;
        this.rows = new ArrayList<>(rows);
        try {
            this.lines = new RandomAccessFile(file.toFile(), "rw");
        } catch (IOException e) {
            throw cannotWrite(e);
        }
        try {
            lock();
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    /**
     * Until it is closed, or the process ends: two runs of one training would spoil each other's files. The file must not be
     * read meanwhile by this process, which would unlock it.
     */
    private void lock() {
        boolean locked;
        try {
            locked = lines.getChannel().tryLock() != null;
        } catch (OverlappingFileLockException e) {
            locked = false; // by this process
        } catch (IOException e) {
            throw cannotWrite(e);
        }
        if (!locked) {
            throw new TrainingException(file + " is being written: this training is running already");
        }
    }

    private static String header(List<String> others) {
        return String.join(
                ",", Stream.concat(Stream.of(HEADER), others.stream()).toList());
    }

    /**
     * A log without rows, in the place of one that was there.
     *
     * @param others names of {@link Row#others}
     */
    static LossLog begin(Path file, List<String> others) {
        return new LossLog(file, List.of()).begun(log -> {
            log.cut(0);
            log.write(header(others) + "\n");
        });
    }

    /**
     * The log of a training that was stopped, cut off after {@code steps} rows.
     *
     * @param others names of {@link Row#others}
     * @throws TrainingException if it has not got so many, or other names
     */
    static LossLog resume(Path file, long steps, List<String> others) {
        String header = header(others);
        List<Row> kept = read(file, steps, header, header::equals);
        if (kept.size() < steps) {
            throw new TrainingException(
                    file + " has " + kept.size() + " rows, expected the " + steps + " of the checkpoint beside it");
        }
        return new LossLog(file, kept)
                .begun(log -> log.cut(header.length()
                        + 1
                        + kept.stream().mapToLong(row -> row.line().length()).sum()));
    }

    /** Closed if that fails: nobody has it yet. */
    private LossLog begun(Consumer<LossLog> how) {
        try {
            how.accept(this);
            return this;
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    /** All until now. */
    List<Row> rows() {
        return Collections.unmodifiableList(rows);
    }

    private void cut(long bytes) {
        try {
            lines.setLength(bytes);
            lines.seek(bytes);
        } catch (IOException e) {
            throw cannotWrite(e);
        }
    }

    /** @throws TrainingException if the file cannot be read, or a line is none of a log's */
    public static List<Row> read(Path file) {
        return read(file, Long.MAX_VALUE, HEADER, header -> header.equals(HEADER) || header.startsWith(HEADER + ","));
    }

    /**
     * The first rows, at most so many: what comes after them may be half a line.
     *
     * @param expected in the first line, for the message
     */
    private static List<Row> read(Path file, long most, String expected, Predicate<String> known) {
        List<Row> rows = new ArrayList<>();
        try (BufferedReader reader = Files.newBufferedReader(file, StandardCharsets.US_ASCII)) {
            String header = Objects.requireNonNullElse(reader.readLine(), "");
            int columns = header.split(",", -1).length;
            boolean right = known.test(header);
            while (right && rows.size() < most) {
                String line = reader.readLine();
                if (line == null) {
                    return rows;
                }
                Optional<Row> row = Row.of(line);
                // As it was written: where to cut is counted in whole lines.
                right = row.isPresent()
                        && row.get().step == rows.size() + 1
                        && row.get().others.size() == columns - COLUMNS
                        && row.get().line().equals(line + "\n");
                row.ifPresent(rows::add);
            }
            if (!right) {
                throw new TrainingException(file + " is not the log of a training, expected " + expected
                        + " in its first line, and then a line for each step");
            }
            return rows;
        } catch (IOException e) {
            throw new TrainingException("cannot read " + file + ": " + Reasons.of(e), e);
        }
    }

    void add(Row row) {
        write(row.line());
        rows.add(row);
    }

    /** In one call: a process that is killed leaves whole lines. */
    private void write(String line) {
        try {
            lines.write(line.getBytes(StandardCharsets.US_ASCII));
        } catch (IOException e) {
            throw cannotWrite(e);
        }
    }

    /** Puts all rows on the disk: a checkpoint that follows counts on them. */
    void force() {
        try {
            lines.getFD().sync();
        } catch (IOException e) {
            throw cannotWrite(e);
        }
    }

    private TrainingException cannotWrite(IOException e) {
        return new TrainingException("cannot write " + file + ": " + Reasons.of(e), e);
    }

    @Override
    public void close() {
        try {
            lines.close();
        } catch (IOException e) {
            throw cannotWrite(e);
        }
    }
}
