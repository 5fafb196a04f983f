package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.ToDoubleFunction;
import org.scaledit.image.PngFile;
import org.scaledit.training.LossLog;

/** The loss of a training over its steps: the mean of a few steps, and of many, as single ones jump. */
public final class LossCurve {
    private static final int WIDTH = 960;
    private static final int HEIGHT = 540;
    private static final int LEFT = 80;
    private static final int RIGHT = 30;
    private static final int TOP = 60;
    private static final int BOTTOM = 70;
    private static final int INK = 0x303030;
    private static final int GRID = 0xDDDDDD;
    private static final int FEW = 0xA6CEE3;
    private static final int MANY = 0x0072B2;
    private static final double TEXT = 12;

    /** So many points at most, and the mean of many steps over this share of them. */
    private static final int POINTS = 400;

    private static final int SMOOTHED = 20;

    private LossCurve() {}

    private record Point(double step, double loss) {}

    /**
     * Writes the curve as a PNG; an empty one without rows.
     *
     * @throws org.scaledit.image.ImageException if the file cannot be written
     */
    public static void write(Path file, List<LossLog.Row> rows) {
        PngFile.write(file, draw(rows).pixels(), Map.of("Title", "training loss"));
    }

    private static Canvas draw(List<LossLog.Row> rows) {
        Canvas canvas = new Canvas(WIDTH, HEIGHT);
        canvas.text("training loss", LEFT, 36, 1.3 * TEXT, INK);
        if (rows.isEmpty()) {
            return canvas;
        }
        List<Point> few = few(rows);
        Axis x = Axis.linear(few.stream().map(Point::step).toList(), LEFT, WIDTH - RIGHT);
        Axis y = Axis.linear(few.stream().map(Point::loss).toList(), HEIGHT - BOTTOM, TOP);
        for (double loss : y.evenTicks()) {
            String label = Axis.label(loss);
            canvas.line(LEFT, y.at(loss), WIDTH - RIGHT, y.at(loss), 1, GRID);
            canvas.text(label, LEFT - 12 - Canvas.width(label, TEXT), y.at(loss) + TEXT / 2, TEXT, INK);
        }
        for (double step : x.evenTicks()) {
            String label = Axis.label(step);
            canvas.line(x.at(step), TOP, x.at(step), HEIGHT - BOTTOM, 1, GRID);
            canvas.text(label, x.at(step) - Canvas.width(label, TEXT) / 2, HEIGHT - BOTTOM + 24, TEXT, INK);
        }
        canvas.line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, 1.5, INK);
        canvas.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, 1.5, INK);
        canvas.text("steps", LEFT, HEIGHT - 18, TEXT, INK);
        draw(canvas, x, y, few, FEW, 1.5);
        draw(canvas, x, y, many(few), MANY, 2.5);
        return canvas;
    }

    private static void draw(Canvas canvas, Axis x, Axis y, List<Point> points, int colour, double thickness) {
        Point from = points.get(0);
        for (Point to : points) {
            canvas.line(x.at(from.step), y.at(from.loss), x.at(to.step), y.at(to.loss), thickness, colour);
            from = to;
        }
    }

    private static List<Point> few(List<LossLog.Row> rows) {
        int each = (rows.size() + POINTS - 1) / POINTS;
        List<Point> points = new ArrayList<>();
        for (int first = 0; first < rows.size(); first += each) {
            List<LossLog.Row> part = rows.subList(first, Math.min(rows.size(), first + each));
            points.add(new Point(mean(part, LossLog.Row::step), mean(part, LossLog.Row::loss)));
        }
        return points;
    }

    /** Around each point. */
    private static List<Point> many(List<Point> few) {
        int reach = few.size() / SMOOTHED / 2;
        List<Point> points = new ArrayList<>();
        for (int i = 0; i < few.size(); i++) {
            int within = Math.min(reach, Math.min(i, few.size() - 1 - i));
            points.add(new Point(few.get(i).step, mean(few.subList(i - within, i + within + 1), Point::loss)));
        }
        return points;
    }

    private static <T> double mean(List<T> values, ToDoubleFunction<T> of) {
        return values.stream().mapToDouble(of).average().orElseThrow();
    }
}
