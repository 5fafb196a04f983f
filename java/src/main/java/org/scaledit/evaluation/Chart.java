package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.function.Function;
import org.scaledit.image.PngFile;

/**
 * A quantity of every method over the size of the picture, both on logarithmic axes: a line for each method, which ends
 * where the method ran out of memory.
 *
 * @param title without capitals
 * @param quantity of a measurement, above 0
 */
record Chart(String title, Function<Measurement.Result, OptionalDouble> quantity) {
    private static final int WIDTH = 960;
    private static final int HEIGHT = 600;
    private static final int LEFT = 90;
    private static final int RIGHT = 260; // for the legend
    private static final int TOP = 60;
    private static final int BOTTOM = 70;
    private static final int INK = 0x303030;
    private static final int GRID = 0xDDDDDD;
    private static final double TEXT = 12;

    /** Told apart also by those who do not see red and green as different (Okabe and Ito). */
    private static final int[] COLOURS = {0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7, 0xE69F00, 0x56B4E9, 0x606060};

    /** Writes the chart as a PNG; draws an empty one if nothing was measured. */
    void write(Path file, List<Measurement> measurements) {
        PngFile.write(file, draw(measurements).pixels(), Map.of("Title", title));
    }

    private record Point(double size, double value) {}

    private Canvas draw(List<Measurement> measurements) {
        Map<Method, List<Point>> lines = new LinkedHashMap<>();
        for (Measurement measurement : measurements) {
            measurement
                    .result()
                    .flatMap(result -> boxed(quantity.apply(result)))
                    .ifPresent(value -> lines.computeIfAbsent(measurement.method(), method -> new ArrayList<>())
                            .add(new Point(measurement.size(), value)));
        }
        Canvas canvas = new Canvas(WIDTH, HEIGHT);
        canvas.text(title, LEFT, 36, 1.3 * TEXT, INK);
        List<Point> all = lines.values().stream().flatMap(List::stream).toList();
        if (all.isEmpty()) {
            return canvas;
        }
        Axis x = Axis.logarithmic(all.stream().map(Point::size).toList(), LEFT, WIDTH - RIGHT);
        Axis y = Axis.logarithmic(all.stream().map(Point::value).toList(), HEIGHT - BOTTOM, TOP);
        drawGrid(canvas, x, y, all);
        drawLines(canvas, x, y, lines);
        return canvas;
    }

    private static Optional<Double> boxed(OptionalDouble value) {
        return value.isPresent() && value.getAsDouble() > 0 ? Optional.of(value.getAsDouble()) : Optional.empty();
    }

    private static void drawGrid(Canvas canvas, Axis x, Axis y, List<Point> all) {
        for (double value : y.ticks()) {
            canvas.line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), 1, GRID);
            String label = Axis.label(value);
            canvas.text(label, LEFT - 12 - Canvas.width(label, TEXT), y.at(value) + TEXT / 2, TEXT, INK);
        }
        for (double size : all.stream().map(Point::size).distinct().toList()) {
            canvas.line(x.at(size), TOP, x.at(size), HEIGHT - BOTTOM, 1, GRID);
            String label = Axis.label(size);
            canvas.text(label, x.at(size) - Canvas.width(label, TEXT) / 2, HEIGHT - BOTTOM + 24, TEXT, INK);
        }
        canvas.line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, 1.5, INK);
        canvas.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, 1.5, INK);
        canvas.text("pixels along a side", LEFT, HEIGHT - 18, TEXT, INK);
    }

    private static void drawLines(Canvas canvas, Axis x, Axis y, Map<Method, List<Point>> lines) {
        double legend = TOP + TEXT;
        for (Map.Entry<Method, List<Point>> line : lines.entrySet()) {
            int colour = COLOURS[line.getKey().ordinal() % COLOURS.length];
            List<Point> points = line.getValue();
            for (int i = 0; i < points.size(); i++) {
                Point to = points.get(i);
                Point from = points.get(Math.max(0, i - 1));
                canvas.line(x.at(from.size), y.at(from.value), x.at(to.size), y.at(to.value), 2.5, colour);
                canvas.disc(x.at(to.size), y.at(to.value), 5, colour);
            }
            canvas.disc(WIDTH - RIGHT + 32, legend - TEXT / 2, 5, colour);
            canvas.text(line.getKey().label(), WIDTH - RIGHT + 46, legend, TEXT, INK);
            legend += 2 * TEXT;
        }
    }
}
