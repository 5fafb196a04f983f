package org.scaledit.evaluation;

import java.nio.file.Path;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.image.Resize;
import org.scaledit.tensor.Tensors;

/** Small copies of judged pictures, in rows from the top left, each in a frame that is green where it is right, else red. */
final class ContactSheet {
    private static final int COLUMNS = 20;
    private static final int PICTURE = 128; // pixels along each side
    private static final int FRAME = 4;
    private static final int CELL = PICTURE + 2 * FRAME;
    private static final byte[] GREEN = {40, (byte) 170, 60};
    private static final byte[] RED = {(byte) 220, 40, 40};

    private final Pixels sheet;
    private final int most;
    private int count;

    /** @param pictures that there will be; the sheet has no more than {@code most} of them */
    ContactSheet(int pictures, int most) {
        int shown = Math.min(pictures, most);
        this.most = shown;
        this.sheet = new Pixels(CELL * Math.min(COLUMNS, shown), CELL * ((shown + COLUMNS - 1) / COLUMNS));
    }

    void add(Tensor picture, boolean right) { // [3, height, width], −1 … 1
        if (count == most) {
            return;
        }
        int left = CELL * (count % COLUMNS);
        int top = CELL * (count / COLUMNS);
        count++;
        for (int y = 0; y < CELL; y++) {
            byte[] row = sheet.row(top + y);
            for (int x = 0; x < CELL; x++) {
                System.arraycopy(right ? GREEN : RED, 0, row, 3 * (left + x), 3);
            }
        }
        Tensors.run(() -> Pixels.round(
                top + FRAME,
                Resize.area(picture, PICTURE, PICTURE),
                (y, row) -> System.arraycopy(row, 0, sheet.row(y), 3 * (left + FRAME), row.length)));
    }

    void write(Path file) {
        PngFile.write(file, sheet, Map.of("Title", "judged pictures"));
    }
}
