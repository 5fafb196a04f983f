package org.scaledit.text;

import ai.djl.huggingface.tokenizers.jni.TokenizersLibrary;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import org.bytedeco.javacpp.Loader;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.file.Reasons;

/**
 * A tokenizer that a {@code tokenizer.json} describes, run by the Hugging Face library.
 *
 * <p>The library is loaded and called directly: the classes of DJL around it report home whenever a tokenizer is
 * made, and on a machine with a GPU they fetch the library itself over the network.
 */
final class Tokenizer implements AutoCloseable {
    /** What DJL calls the platforms of JavaCPP. */
    private static final Map<String, String> LIBRARIES = Map.of(
            "linux-x86_64", "linux-x86_64/cpu/libtokenizers.so",
            "linux-arm64", "linux-aarch64/cpu/libtokenizers.so",
            "macosx-arm64", "osx-aarch64/cpu/libtokenizers.dylib");

    private final TokenizersLibrary library;
    private final Object where;
    private long handle;

    private Tokenizer(TokenizersLibrary library, Object where, long handle) {
        this.library = library;
        this.where = where;
        this.handle = handle;
    }

    /** @throws CheckpointException if {@code json} describes no tokenizer; {@code where} names it in the message */
    static Tokenizer of(String json, Object where) {
        TokenizersLibrary library = library();
        try {
            long handle = library.createTokenizerFromString(json);
            library.disablePadding(handle);
            return new Tokenizer(library, where, handle);
        } catch (RuntimeException e) {
            throw new CheckpointException(where + " does not describe a tokenizer: " + e.getMessage(), e);
        }
    }

    /** Loaded from the cache folder of the other native libraries (property {@code org.bytedeco.javacpp.cachedir}). */
    private static synchronized TokenizersLibrary library() {
        String platform = Loader.getPlatform();
        String name = "/native/lib/" + LIBRARIES.getOrDefault(platform, platform);
        URL resource = TokenizersLibrary.class.getResource(name);
        if (resource == null) {
            throw new UnsatisfiedLinkError(
                    "no tokenizer library for " + platform + " on the class path, expected " + name);
        }
        try {
            System.load(Loader.cacheResource(resource).getPath());
        } catch (IOException e) {
            throw new UncheckedIOException("cannot extract the tokenizer library: " + Reasons.of(e), e);
        }
        return TokenizersLibrary.LIB;
    }

    /** The id of a token that texts do not contain, such as the padding. Without it the tokenizer is closed, as it cannot serve. */
    long requiredId(String token) {
        try {
            long[] ids = encode(token, false);
            if (ids.length != 1) {
                throw new CheckpointException(where + " has no token " + token);
            }
            return ids[0];
        } catch (RuntimeException | Error e) {
            close();
            throw e;
        }
    }

    /**
     * {@code length} ids: the text's, cut so that the special tokens around it remain, then as many {@code padding}.
     */
    synchronized long[] ids(String text, int length, long padding) {
        requireOpen();
        library.setTruncation(handle, length, "LONGEST_FIRST", 0);
        long[] ids = encode(text, true);
        long[] padded = Arrays.copyOf(ids, length);
        Arrays.fill(padded, Math.min(ids.length, length), length, padding);
        return padded;
    }

    private synchronized long[] encode(String text, boolean specialTokens) {
        requireOpen();
        // Half of a surrogate pair is no character, and nothing that the library could be given: it becomes "?".
        String characters = new String(text.getBytes(StandardCharsets.UTF_8), StandardCharsets.UTF_8);
        long encoding = library.encode(handle, characters, specialTokens);
        try {
            return library.getTokenIds(encoding);
        } finally {
            library.deleteEncoding(encoding);
        }
    }

    private void requireOpen() {
        if (handle == 0) {
            throw new IllegalStateException("the tokenizer of " + where + " is closed");
        }
    }

    @Override
    public synchronized void close() {
        if (handle != 0) {
            library.deleteTokenizer(handle);
            handle = 0;
        }
    }
}
