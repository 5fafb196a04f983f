package org.scaledit.image;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import ar.com.hjg.pngj.PngjOutputException;
import java.io.ByteArrayOutputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class PngFileTest {
    @TempDir
    Path folder;

    @Test
    void anotherReaderSeesThePixels() throws IOException {
        Pixels pixels = noise(37, 23);
        Path file = folder.resolve("out.png");

        PngFile.write(file, pixels, Map.of());

        int[] read = ImageIO.read(file.toFile()).getRGB(0, 0, 37, 23, null, 0, 37);
        int[] written = pixels.toBufferedImage().getRGB(0, 0, 37, 23, null, 0, 37);
        assertThat(read).isEqualTo(written);
        assertThat(files()).containsExactly("out.png");
    }

    @Test
    void textsComeBackAsTheyWere() {
        Map<String, String> texts = new LinkedHashMap<>();
        texts.put("prompt", "a fox in snow, äöü 猫 🦊 e\u0301, \"quotes\"\nsecond line\ttab \\ {json: 1}");
        texts.put("Größe é", "a keyword in Latin-1");
        texts.put("empty", "");
        texts.put("long", "many words and 狐; ".repeat(6000));
        Path file = folder.resolve("out.png");

        PngFile.write(file, noise(5, 4), texts);

        assertThat(PngText.read(file)).containsExactlyEntriesOf(texts);
        assertThat(PngText.read(file, "prompt")).isEqualTo(texts.get("prompt"));
    }

    @Test
    void textsStandBeforeThePixels() throws IOException {
        Path file = folder.resolve("out.png");
        PngFile.write(file, noise(64, 64), Map.of("prompt", "a fox"));

        String bytes = Files.readString(file, StandardCharsets.ISO_8859_1);

        assertThat(bytes.indexOf("iTXtprompt")).isBetween(1, bytes.indexOf("IDAT"));
    }

    @Test
    void readsTextsThatAnotherProgramMovedBehindThePixels() throws IOException {
        Path file = folder.resolve("out.png");
        PngFile.write(file, noise(9, 9), Map.of("prompt", "a fox"));
        byte[] bytes = Files.readAllBytes(file);
        String search = new String(bytes, StandardCharsets.ISO_8859_1);
        int from = search.indexOf("iTXt") - 4;
        int length = ByteBuffer.wrap(bytes).getInt(from) + 12;
        int end = search.indexOf("IEND") - 4;
        ByteArrayOutputStream moved = new ByteArrayOutputStream();
        moved.write(bytes, 0, from);
        moved.write(bytes, from + length, end - from - length);
        moved.write(bytes, from, length);
        moved.write(bytes, end, bytes.length - end);
        Files.write(file, moved.toByteArray());

        assertThat(PngText.read(file, "prompt")).isEqualTo("a fox");
    }

    @ParameterizedTest
    @ValueSource(ints = {65_536, 65_535})
    void writesTheWidestPicture(int width) throws IOException {
        Pixels pixels = noise(width, 3);
        Path file = folder.resolve("wide.png");

        PngFile.write(file, pixels, Map.of());

        assertThat(ImageIO.read(file.toFile()).getRGB(width - 1, 2))
                .isEqualTo(pixels.toBufferedImage().getRGB(width - 1, 2));
    }

    @Test
    void writesTheTallestPicture() throws IOException {
        Pixels pixels = noise(2, 65_536);
        Path file = folder.resolve("tall.png");

        PngFile.write(file, pixels, Map.of());

        int[] read = ImageIO.read(file.toFile()).getRGB(0, 0, 2, 65_536, null, 0, 2);
        assertThat(read).isEqualTo(pixels.toBufferedImage().getRGB(0, 0, 2, 65_536, null, 0, 2));
    }

    @Test
    void replacesAnOlderFile() throws IOException {
        Path file = Files.writeString(folder.resolve("out.png"), "old");

        PngFile.write(file, noise(4, 4), Map.of("prompt", "new"));

        assertThat(PngText.read(file, "prompt")).isEqualTo("new");
        assertThat(files()).containsExactly("out.png");
    }

    @Test
    void aFileHasTheRightsThatAnyNewFileHas() throws IOException {
        Path other = Files.writeString(folder.resolve("other"), "");
        Path file = folder.resolve("out.png");
        PngFile.write(file, noise(4, 4), Map.of());

        assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(file)))
                .isEqualTo(PosixFilePermissions.toString(Files.getPosixFilePermissions(other)));
    }

    @Test
    void aFullDiskLeavesTheOlderFileAndNothingElse() throws IOException {
        Path file = Files.writeString(folder.resolve("out.png"), "old");

        assertThatThrownBy(() -> OutputFile.replace(
                        file,
                        stream -> PngFile.write(fullAfter(5000, stream), 99, 99, Map.of(), noise(99, 99)::forEachRow)))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write " + file + ": No space left on device");

        assertThat(file).hasContent("old");
        assertThat(files()).containsExactly("out.png");
    }

    @Test
    void aFullDeviceIsNoticed() throws IOException {
        assumeTrue(Files.isWritable(Path.of("/dev/full")));
        try (OutputStream full = new FileOutputStream("/dev/full")) {
            assertThatThrownBy(() -> PngFile.write(full, 99, 99, Map.of(), noise(99, 99)::forEachRow))
                    .isInstanceOf(PngjOutputException.class)
                    .hasRootCauseMessage("No space left on device");
        }
    }

    @Test
    void anErrorOnTheWayLeavesNothing() throws IOException {
        Path file = folder.resolve("out.png");

        assertThatThrownBy(() -> OutputFile.replace(file, stream -> {
                    stream.write(new byte[100]);
                    throw new IllegalStateException("cancelled");
                }))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("cancelled");

        assertThat(files()).isEmpty();
    }

    @Test
    void rowsMayComeOneByOneInTheSameArray() throws IOException {
        Pixels pixels = noise(37, 23);
        Path whole = folder.resolve("whole.png");
        Path streamed = folder.resolve("streamed.png");
        byte[] array = new byte[3 * 37];

        PngFile.write(whole, pixels, Map.of("prompt", "a fox"));
        PngFile.write(
                streamed,
                37,
                23,
                Map.of("prompt", "a fox"),
                rows -> pixels.forEachRow((y, row) -> {
                    System.arraycopy(row, 0, array, 0, row.length);
                    rows.accept(y, array);
                    Arrays.fill(array, (byte) 0);
                }));

        assertThat(streamed).hasSameBinaryContentAs(whole);
    }

    @Test
    void aPictureThatLacksRowsOrFailsLeavesTheOlderFile() throws IOException {
        Path file = Files.writeString(folder.resolve("out.png"), "old");

        assertThatThrownBy(() ->
                        PngFile.write(file, 9, 9, Map.of(), rows -> noise(9, 8).forEachRow(rows)))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot write " + file + ": ");
        assertThatThrownBy(() -> PngFile.write(file, 9, 9, Map.of(), rows -> rows.accept(1, new byte[27])))
                .isInstanceOf(ImageException.class)
                .hasMessageStartingWith("cannot write " + file + ": ");
        assertThatThrownBy(() -> PngFile.write(file, 9, 9, Map.of(), rows -> {
                    rows.accept(0, new byte[27]);
                    throw new IllegalStateException("cancelled");
                }))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("cancelled");

        assertThat(file).hasContent("old");
        assertThat(files()).containsExactly("out.png");
    }

    @Test
    void namesAFolderThatIsMissing() throws IOException {
        Path file = folder.resolve("none/out.png");
        assertThatThrownBy(() -> PngFile.write(file, noise(4, 4), Map.of()))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write " + file + ": its folder does not exist");

        Path below = Files.writeString(folder.resolve("file"), "").resolve("out.png");
        assertThatThrownBy(() -> PngFile.write(below, noise(4, 4), Map.of()))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write " + below + ": Not a directory");
    }

    @Test
    void namesAFolderThatMayNotBeWrittenTo() throws IOException {
        Path locked = Files.createDirectory(folder.resolve("locked"));
        Files.setPosixFilePermissions(locked, PosixFilePermissions.fromString("r-xr-xr-x"));
        assumeTrue(!Files.isWritable(locked), "root may write anywhere");
        Path file = locked.resolve("out.png");

        assertThatThrownBy(() -> PngFile.write(file, noise(4, 4), Map.of()))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write " + file + ": permission denied");
    }

    @Test
    void doesNotReplaceWhatIsNoFile() {
        assertThatThrownBy(() -> PngFile.write(folder, noise(4, 4), Map.of()))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write " + folder + ": it is a folder");
        Path device = Path.of("/dev/null");
        assertThatThrownBy(() -> PngFile.write(device, noise(4, 4), Map.of()))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot write /dev/null: it is not a regular file");
    }

    @Test
    void refusesTextsThatCannotStandInAPng() throws IOException {
        Path file = folder.resolve("out.png");
        assertThatThrownBy(() -> PngFile.write(file, noise(4, 4), Map.of("prompt", "a\0b")))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the text \"prompt\" has a NUL character at position 1, which cannot stand in a PNG");
        assertThatThrownBy(() -> PngFile.write(file, noise(4, 4), Map.of("prompt", "a\ud83d")))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the text \"prompt\" has half a surrogate pair, which cannot stand in a PNG");
        for (String keyword : new String[] {"", " a", "a ", "狐", "a\nb", "k".repeat(80)}) {
            assertThatThrownBy(() -> PngFile.write(file, noise(4, 4), Map.of(keyword, "text")))
                    .isInstanceOf(IllegalArgumentException.class)
                    .hasMessageStartingWith("the keyword \"" + keyword + "\" cannot stand in a PNG");
        }
        assertThat(files()).isEmpty();
    }

    @Test
    void saysThatAPngHasNoSuchText() {
        Path file = folder.resolve("out.png");
        PngFile.write(file, noise(4, 4), Map.of("Comment", "other"));

        assertThatThrownBy(() -> PngText.read(file, "scaledit"))
                .isInstanceOf(ImageException.class)
                .hasMessage(file + " has no text \"scaledit\": it was not made by this program, or another program has"
                        + " removed its texts");
    }

    @Test
    void saysThatAFileIsNoPngOrIsTruncated() throws IOException {
        Path text = Files.writeString(folder.resolve("notes.txt"), "not a picture at all, but long enough to be one");
        Path empty = Files.writeString(folder.resolve("empty.png"), "");
        Path whole = folder.resolve("whole.png");
        PngFile.write(whole, noise(64, 64), Map.of("prompt", "a fox"));
        byte[] bytes = Files.readAllBytes(whole);
        Path missing = folder.resolve("missing.png");

        for (Path file : new Path[] {text, empty, missing}) {
            assertThatThrownBy(() -> PngText.read(file))
                    .isInstanceOf(ImageException.class)
                    .hasMessageStartingWith("cannot read " + file + " as a PNG: ");
        }
        for (int length : new int[] {8, 20, 40, 50, 200, bytes.length - 20}) {
            Path cut = Files.write(folder.resolve("cut.png"), Arrays.copyOf(bytes, length));
            assertThatThrownBy(() -> PngText.read(cut))
                    .isInstanceOf(ImageException.class)
                    .hasMessageStartingWith("cannot read " + cut + " as a PNG: ");
        }
    }

    @ParameterizedTest
    @ValueSource(ints = {0x7FFFFFF0, 0xFFFFFFF0, 0x80000000, 1000})
    void refusesAChunkThatIsLongerThanItsFile(int length) throws IOException {
        Path file = folder.resolve("long.png");
        PngFile.write(file, noise(4, 4), Map.of("prompt", "a fox"));
        byte[] bytes = Files.readAllBytes(file);
        int chunk = 33; // behind the signature and IHDR
        ByteBuffer.wrap(bytes).putInt(chunk, length);
        Files.write(file, bytes);
        String reason = "its chunk iTXt has " + Integer.toUnsignedString(length) + " bytes, expected at most the "
                + (bytes.length - chunk - 12) + " that the file has left";

        assertThatThrownBy(() -> PngText.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot read " + file + " as a PNG: " + reason);
        assertThatThrownBy(() -> ImageFile.read(file))
                .isInstanceOf(ImageException.class)
                .hasMessage("cannot read the picture " + file + ": " + reason);
    }

    private String[] files() throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).toArray(String[]::new);
        }
    }

    private static OutputStream fullAfter(int bytes, OutputStream stream) {
        return new OutputStream() {
            private int left = bytes;

            @Override
            public void write(int value) throws IOException {
                write(new byte[] {(byte) value}, 0, 1);
            }

            @Override
            public void write(byte[] values, int offset, int length) throws IOException {
                if (length > left) {
                    throw new IOException("No space left on device");
                }
                left -= length;
                stream.write(values, offset, length);
            }
        };
    }

    private static Pixels noise(int width, int height) {
        Pixels pixels = new Pixels(width, height);
        Random random = new Random(width * 31L + height);
        for (int y = 0; y < height; y++) {
            random.nextBytes(pixels.row(y));
        }
        return pixels;
    }
}
