package org.scaledit.text;

/**
 * T5's buckets of distances: half of them for each direction, the near distances one each, the far ones in steps that
 * grow like a logarithm up to {@code farthest}; all beyond share the last.
 */
record RelativePositions(int buckets, int farthest) {
    /** The bucket of each pair of query and key, row by row, [tokens · tokens]. */
    long[] table(int tokens) {
        long[] table = new long[tokens * tokens];
        for (int query = 0; query < tokens; query++) {
            for (int key = 0; key < tokens; key++) {
                table[query * tokens + key] = bucket(key - query);
            }
        }
        return table;
    }

    long bucket(int distance) {
        int perDirection = buckets / 2;
        int exact = perDirection / 2;
        int length = Math.abs(distance);
        int direction = distance > 0 ? perDirection : 0;
        if (length < exact) {
            return direction + length;
        }
        // In float32, as the model was trained: at powers of two the last bit decides.
        float position = (float) Math.log((float) length / exact) / (float) Math.log((double) farthest / exact);
        int step = (int) (position * (perDirection - exact));
        return direction + Math.min(exact + step, perDirection - 1);
    }
}
