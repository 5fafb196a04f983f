package org.scaledit.training;

/**
 * The chance in training: which sample comes when, its noise level, its noise. Each is a function of the seed and of a
 * count alone, so that a run that is resumed goes on as if it had not been stopped.
 */
final class SampleOrder {
    private static final long GOLDEN_RATIO = 0x9E3779B97F4A7C15L;

    /** Which of the independent streams of numbers. */
    private enum Stream {
        ORDER,
        SIGMA,
        NOISE,
        START,
        PICTURE,
        CAPTION,
        CROP,
        GUIDANCE,
        POOLED
    }

    private final long seed;
    private final int samples;
    private final Recipe.Timesteps timesteps;
    private long epoch = -1;
    private int[] order = {};

    /** @param samples how many there are, 1 or more */
    SampleOrder(long seed, int samples, Recipe.Timesteps timesteps) {
        this.seed = seed;
        this.samples = samples;
        this.timesteps = timesteps;
    }

    /** The sample that comes after {@code count} others: each once in an epoch, in an order of the epoch's own. */
    int sample(long count) {
        if (count / samples != epoch) {
            epoch = count / samples;
            order = shuffled(epoch);
        }
        return order[(int) (count % samples)];
    }

    private int[] shuffled(long epoch) {
        int[] shuffled = new int[samples];
        for (int i = 0; i < samples; i++) {
            int place = (int) Long.remainderUnsigned(bits(Stream.ORDER, epoch * samples + i), i + 1L);
            shuffled[i] = shuffled[place];
            shuffled[place] = i;
        }
        return shuffled;
    }

    /** The noise level of the sample that comes after {@code count} others, 0 … 1. */
    double sigma(long count) {
        double uniform = unit(Stream.SIGMA, 2 * count);
        return switch (timesteps) {
            case UNIFORM -> uniform;
            case LOGIT_NORMAL -> {
                double angle = 2 * Math.PI * unit(Stream.SIGMA, 2 * count + 1);
                double normal = StrictMath.sqrt(-2 * StrictMath.log(uniform)) * StrictMath.cos(angle);
                yield 1 / (1 + StrictMath.exp(-normal));
            }
        };
    }

    /** The same out of one of several bands of noise levels, which are equally probable; the first, 0, has the lowest. */
    double sigma(long count, int band, int bands) {
        return timesteps.quantile((band + unit(Stream.SIGMA, 2 * count)) / bands);
    }

    /**
     * The same of a schedule, all of whose steps are equally probable: half of the time where the step begins, as whoever follows the
     * schedule asks for no other level, and otherwise anywhere in it.
     *
     * @param schedule falls from 1 to 0
     */
    double sigma(long count, float[] schedule) {
        double place = unit(Stream.SIGMA, 2 * count) * (schedule.length - 1);
        int step = (int) place;
        double within = Math.max(0, 2 * unit(Stream.SIGMA, 2 * count + 1) - 1);
        return schedule[step] + (schedule[step + 1] - schedule[step]) * within;
    }

    /** The seed of its noise. */
    long noise(long count) {
        return bits(Stream.NOISE, count);
    }

    /** The seed of the first values of what is trained. */
    static long start(long seed) {
        return bits(seed, Stream.START, 0);
    }

    /** The seed of a picture's noise in a set that is painted with this seed: of its index, from 0, alone. */
    static long picture(long seed, long index) {
        return bits(seed, Stream.PICTURE, index);
    }

    /** Whether its caption is left out, which happens so often. */
    boolean leavesCaptionOut(long count, double probability) {
        return unit(Stream.CAPTION, count) < probability;
    }

    /** Whether CLIP's encoder is given no caption, which happens so often. */
    boolean leavesPooledOut(long count, double probability) {
        return unit(Stream.POOLED, count) < probability;
    }

    /** The guidance scale of a batch whose first sample comes after {@code count} others. */
    double guidance(long count, ModelRecipe.Distillation scales) {
        return scales.least() + (scales.most() - scales.least()) * unit(Stream.GUIDANCE, count);
    }

    /** What decides which part of a picture is taken, and at which size. */
    long crop(long count) {
        return bits(Stream.CROP, count);
    }

    /** Between 0 and 1, never one of them. */
    private double unit(Stream stream, long count) {
        return ((bits(stream, count) >>> 11) + 0.5) * 0x1p-53;
    }

    private long bits(Stream stream, long count) {
        return bits(seed, stream, count);
    }

    private static long bits(long seed, Stream stream, long count) {
        return mixed(mixed(mixed(seed) + stream.ordinal()) + count);
    }

    /** A step of SplitMix64 (Steele, Lea and Flood, 2014). */
    private static long mixed(long value) {
        long z = value + GOLDEN_RATIO;
        z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
        z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
        return z ^ (z >>> 31);
    }
}
