package org.scaledit.text;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.file.Reasons;

/** T5's tokens, exactly as {@code tokenizer_2/tokenizer.json} says. */
public final class T5Tokenizer implements AutoCloseable {
    private final Tokenizer tokenizer;
    private final long padding;

    T5Tokenizer(Tokenizer tokenizer) {
        this.tokenizer = tokenizer;
        this.padding = tokenizer.requiredId("<pad>");
    }

    /**
     * @param folder with a {@code tokenizer.json}
     * @throws CheckpointException if it is missing or damaged
     */
    public static T5Tokenizer load(Path folder) {
        Path file = folder.resolve("tokenizer.json");
        try {
            return new T5Tokenizer(Tokenizer.of(Files.readString(file), file));
        } catch (IOException e) {
            throw new CheckpointException(
                    "cannot read " + file + ", which describes the tokenizer: " + Reasons.of(e), e);
        }
    }

    /** {@code length} ids, cut or padded. */
    public long[] ids(String text, int length) {
        return tokenizer.ids(text, length, padding);
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
