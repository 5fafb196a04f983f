package org.scaledit.attention;

import java.util.stream.LongStream;

/**
 * The image and guidance tokens that one shard of a picture exchanges with the others: cells whose keys and values it gives
 * to shards whose tokens attend to them, and those that it takes.
 *
 * @param own image tokens of each shard
 * @param given rows of the shard's sequence: those for shard 0, then those for shard 1, and so on
 * @param givenRows how many are for each shard
 * @param takenRows how many come from each shard, in the order in which the shard's sequence ends with them
 * @param exchanged tokens that all shards together take
 */
record Border(long[] own, long[] given, long[] givenRows, long[] takenRows, long exchanged) {

    /** Of the shard of that number, from 0. */
    static Border of(Geometry whole, int shards, int index) {
        TokenLayout[] layouts = new TokenLayout[shards];
        for (int shard = 0; shard < shards; shard++) {
            try (Geometry geometry = whole.shard(shards, shard)) {
                layouts[shard] = geometry.layout();
            }
        }
        int tokens = whole.layout().imageTokens() + whole.layout().guidanceTokens();
        int[] owner = new int[tokens]; // by the token's number
        long[] row = new long[tokens]; // in its owner's sequence
        long[] own = new long[shards];
        for (int shard = 0; shard < shards; shard++) {
            TokenLayout layout = layouts[shard];
            own[shard] = layout.imageTokens();
            for (int position = 0; position < owned(layout); position++) {
                int token = (int) layout.number(position);
                owner[token] = shard;
                row[token] = (long) layout.textTokens() + position;
            }
        }
        LongStream.Builder given = LongStream.builder();
        long[] givenRows = new long[shards];
        long[] takenRows = new long[shards];
        long exchanged = 0;
        for (int taker = 0; taker < shards; taker++) {
            TokenLayout layout = layouts[taker];
            exchanged += layout.importedTokens();
            for (int imported = 0; imported < layout.importedTokens(); imported++) {
                int token = (int) layout.number(owned(layout) + imported);
                if (owner[token] == index) {
                    given.add(row[token]);
                    givenRows[taker]++;
                }
                if (taker == index) {
                    takenRows[owner[token]]++;
                }
            }
        }
        return new Border(own, given.build().toArray(), givenRows, takenRows, exchanged);
    }

    private static int owned(TokenLayout layout) {
        return layout.imageTokens() + layout.guidanceTokens();
    }

    /** Tokens that the shard takes. */
    long taken() {
        return LongStream.of(takenRows).sum();
    }
}
