package org.scaledit.scenes;

import java.util.Arrays;

/**
 * A noise along a region's rows, at the middles of its pixels. What rows have in common is computed once: in which cell of an
 * octave a column is, how far, and the hashes of a row of cells. For one thread.
 */
final class NoiseRows {
    private final Noise noise;
    private final Region region;
    private final Octave[] octaves;
    private final float[] row;
    private double shift = Double.NaN;

    NoiseRows(Noise noise, Region region) {
        this.noise = noise;
        this.region = region;
        this.octaves = new Octave[noise.octaves()];
        Arrays.setAll(octaves, Octave::new);
        this.row = new float[region.columns()];
    }

    /** Along a row, which need not be one of the region's: {@code [columns]}, overwritten by the next call. */
    float[] at(double y) {
        return at(y, 0);
    }

    /** The same from {@code shift} on to the right. */
    float[] at(double y, double shift) {
        if (shift != this.shift) {
            for (Octave octave : octaves) {
                octave.shift(shift);
            }
            this.shift = shift;
        }
        Arrays.fill(row, noise.rest());
        for (Octave octave : octaves) {
            octave.add(y);
        }
        return row;
    }

    private final class Octave {
        private final int seed;
        private final double columns;
        private final double rows;
        private final float weight;
        private final int[] cells = new int[region.columns()]; // of each column, from the first
        private final float[] eased = new float[region.columns()]; // within its cell
        private int firstCell;
        private int cellRow;
        private float[] top = {}; // hashes of the cells, and of one more
        private float[] bottom = {}; // of the row of cells below
        private float[] edges = {}; // between them

        Octave(int octave) {
            this.seed = noise.seed() + octave;
            this.columns = noise.columns() * (1 << octave);
            this.rows = noise.rows() * (1 << octave);
            this.weight = noise.weight(octave);
        }

        void shift(double shift) {
            if (cells.length == 0) {
                return;
            }
            double start = shift * columns;
            double step = columns / region.size();
            firstCell = (int) Math.floor(start + (region.firstColumn() + 0.5) * step);
            for (int x = 0; x < cells.length; x++) {
                double column = start + (region.firstColumn() + x + 0.5) * step;
                int cell = (int) Math.floor(column);
                cells[x] = cell - firstCell;
                eased[x] = Noise.ease((float) (column - cell));
            }
            int corners = cells[cells.length - 1] + 2;
            top = new float[corners];
            bottom = new float[corners];
            edges = new float[corners];
            cellRow = Integer.MIN_VALUE;
        }

        void add(double y) {
            double line = y * rows;
            int iy = (int) Math.floor(line);
            moveTo(iy);
            float v = Noise.ease((float) (line - iy));
            for (int i = 0; i < edges.length; i++) {
                edges[i] = top[i] + (bottom[i] - top[i]) * v;
            }
            for (int x = 0; x < row.length; x++) {
                float left = edges[cells[x]];
                row[x] += weight * (left + (edges[cells[x] + 1] - left) * eased[x]);
            }
        }

        private void moveTo(int iy) {
            if (iy == cellRow) {
                return;
            }
            float[] above = top;
            if (iy == cellRow + 1) {
                top = bottom;
                bottom = above;
            } else {
                fill(top, iy);
            }
            fill(bottom, iy + 1);
            cellRow = iy;
        }

        private void fill(float[] hashes, int iy) {
            for (int i = 0; i < hashes.length; i++) {
                hashes[i] = Noise.hash(firstCell + i, iy, seed);
            }
        }
    }
}
