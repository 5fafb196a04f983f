package org.scaledit.file;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.SeekableByteChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Stream;

/** SHA-256 of several things, one after the other, each with its length: what a cache files its entries under. */
public final class ContentHash {
    /** Up to here a model's file is read whole; of a larger one, that many bytes. */
    private static final long WHOLE = 16 << 20;

    /** Of these pieces, spread evenly over the file: the first one holds the header, which lists every tensor. */
    private static final int PIECES = 16;

    private final MessageDigest digest;

    public ContentHash() {
        try {
            this.digest = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("this Java has no SHA-256", e);
        }
    }

    public ContentHash text(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        length(bytes.length);
        digest.update(bytes);
        return this;
    }

    /** All bytes of a file. */
    public ContentHash file(Path file) throws IOException {
        length(Files.size(file));
        try (InputStream stream = Files.newInputStream(file)) {
            byte[] piece = new byte[1 << 16];
            for (int count = stream.read(piece); count >= 0; count = stream.read(piece)) {
                digest.update(piece, 0, count);
            }
        }
        return this;
    }

    /**
     * Names, sizes and contents of the files in a folder of a model, below which nothing is looked at; hidden ones are left out,
     * such as what a killed process has not finished. Of a large file only a part is read: that tells models apart, as training
     * one changes all of its weights, and takes no time.
     */
    public ContentHash model(Path folder) throws IOException {
        List<Path> files;
        try (Stream<Path> entries = Files.list(folder)) {
            files = entries.filter(Files::isRegularFile)
                    .filter(file -> !file.getFileName().toString().startsWith("."))
                    .sorted()
                    .toList();
        }
        for (Path file : files) {
            text(file.getFileName().toString());
            if (Files.size(file) <= WHOLE) {
                file(file);
            } else {
                pieces(file);
            }
        }
        return this;
    }

    private void pieces(Path file) throws IOException {
        long size = Files.size(file);
        length(size);
        ByteBuffer piece = ByteBuffer.allocate((int) (WHOLE / PIECES));
        try (SeekableByteChannel channel = Files.newByteChannel(file)) {
            for (int i = 0; i < PIECES; i++) {
                channel.position((size - piece.capacity()) * i / (PIECES - 1));
                piece.clear();
                while (piece.hasRemaining() && channel.read(piece) >= 0) {}
                digest.update(piece.flip());
            }
        }
    }

    private void length(long bytes) {
        digest.update(ByteBuffer.allocate(Long.BYTES).putLong(bytes).array());
    }

    /** The hash of everything so far, 64 hexadecimal digits; nothing can be added after it. */
    public String hex() {
        return HexFormat.of().formatHex(digest.digest());
    }
}
