package org.scaledit.evaluation;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.DoubleUnaryOperator;

/**
 * An axis from pixel to pixel.
 *
 * @param scale what is even along it
 */
record Axis(double least, double most, double from, double to, DoubleUnaryOperator scale) {
    /** Ticks of a linear axis are as far apart as gives at least so many. */
    private static final int LINEAR_TICKS = 4;

    /** A little wider than its values, which are above 0. */
    static Axis logarithmic(List<Double> values, double from, double to) {
        return new Axis(least(values) / 1.25, most(values) * 1.25, from, to, Math::log);
    }

    /** From the least to the largest of its values. */
    static Axis linear(List<Double> values, double from, double to) {
        double least = least(values);
        double most = most(values);
        return new Axis(least, most > least ? most : least + 1, from, to, DoubleUnaryOperator.identity());
    }

    private static double least(List<Double> values) {
        return values.stream().mapToDouble(Double::doubleValue).min().orElseThrow();
    }

    private static double most(List<Double> values) {
        return values.stream().mapToDouble(Double::doubleValue).max().orElseThrow();
    }

    double at(double value) {
        double start = scale.applyAsDouble(least);
        return from + (to - from) * (scale.applyAsDouble(value) - start) / (scale.applyAsDouble(most) - start);
    }

    /** 1, 2 and 5 of every power of ten. */
    List<Double> ticks() {
        List<Double> ticks = new ArrayList<>();
        for (int power = -6; power <= 6; power++) {
            for (double leading : new double[] {1, 2, 5}) {
                double value = leading * Math.pow(10, power);
                if (least <= value && value <= most) {
                    ticks.add(value);
                }
            }
        }
        return ticks;
    }

    /** Evenly spaced: multiples of 1, 2 or 5 of a power of ten. */
    List<Double> evenTicks() {
        double step = Math.pow(10, Math.ceil(Math.log10(most - least)));
        for (int i = 0; (most - least) / step < LINEAR_TICKS; i++) {
            step /= i % 3 == 1 ? 2.5 : 2;
        }
        List<Double> ticks = new ArrayList<>();
        for (long i = (long) Math.ceil(least / step); i * step <= most; i++) {
            ticks.add(i * step);
        }
        return ticks;
    }

    static String label(double value) {
        return value >= 1 && value == Math.rint(value)
                ? String.valueOf(Math.round(value))
                : String.format(Locale.ROOT, "%.3f", value).replaceAll("\\.?0+$", "");
    }
}
