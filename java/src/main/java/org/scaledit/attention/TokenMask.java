package org.scaledit.attention;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/**
 * Who attends to whom, from the coordinates of the tokens. All tokens of a cell share a row and a column of the mask,
 * and so does all text: kept is a table of cells and the cell of each token.
 */
final class TokenMask implements AutoCloseable {
    /** Tokens along a cell's side. */
    private static final int CELL = 8;

    /** The table is one array. */
    static final int MOST_CELLS = 46_340;

    private enum Stream {
        TEXT,
        IMAGE,
        GUIDANCE
    }

    private record Cell(Stream stream, int row, int column) {}

    private final TokenLayout layout;
    private final AttentionWindow window;
    private final Tensor cellOfToken; // [tokens], int64
    private final Tensor table; // [cells, cells], true where a token of the first sees the tokens of the second

    /** @param placement whose device the table lies on */
    TokenMask(TokenLayout layout, AttentionWindow window, Placement placement) {
        if (layout.ratio() != window.ratio()) {
            throw new IllegalArgumentException(
                    "the layout has ratio " + layout.ratio() + ", expected the window's, " + window.ratio());
        }
        this.layout = layout;
        this.window = window;
        List<Cell> cells = new ArrayList<>();
        this.cellOfToken = Tensors.outlive(
                () -> new Tensor(placement.with(torch.ScalarType.Long).place(number(cells))));
        this.table = Tensors.outlive(
                () -> new Tensor(placement.with(torch.ScalarType.Bool).place(tabulate(cells))));
    }

    /**
     * Those of an image with its guidance image and text.
     *
     * @param width in tokens, {@code height} likewise
     * @param ratio 0: there is no guidance image
     */
    static long cells(int width, int height, int ratio) {
        long guidance = ratio == 0 ? 0 : cells(ceilDiv(width, ratio), ceilDiv(height, ratio));
        return cells(width, height) + guidance + 1;
    }

    private static long cells(int width, int height) {
        return (long) ceilDiv(width, CELL) * ceilDiv(height, CELL);
    }

    private static int ceilDiv(int length, int part) {
        return (length + part - 1) / part;
    }

    /** The cell of each token; fills {@code cells} with those that there are. */
    private Tensor number(List<Cell> cells) {
        Map<Cell, Integer> numbers = new LinkedHashMap<>();
        long[] numberOfToken = new long[layout.tokens()];
        for (int t = 0; t < numberOfToken.length; t++) {
            numberOfToken[t] = numbers.computeIfAbsent(cell(t), cell -> numbers.size());
        }
        cells.addAll(numbers.keySet());
        return Tensors.of(numberOfToken, numberOfToken.length);
    }

    private Cell cell(int token) {
        int image = token - layout.textTokens();
        int guidance = image - layout.imageTokens();
        if (image < 0) {
            return new Cell(Stream.TEXT, 0, 0);
        }
        if (guidance < 0) {
            return new Cell(Stream.IMAGE, layout.imageRow(image) / CELL, layout.imageColumn(image) / CELL);
        }
        return new Cell(Stream.GUIDANCE, layout.guidanceRow(guidance) / CELL, layout.guidanceColumn(guidance) / CELL);
    }

    /** [cells, cells], 1 where the first sees the second, uint8 on the CPU */
    private Tensor tabulate(List<Cell> cells) {
        int count = cells.size();
        byte[] seen = new byte[Math.multiplyExact(count, count)]; // no more than MOST_CELLS
        for (int q = 0; q < count; q++) {
            for (int k = 0; k < count; k++) {
                seen[q * count + k] = (byte) (sees(cells.get(q), cells.get(k)) ? 1 : 0);
            }
        }
        Tensor bytes =
                torch.empty(new long[] {count, count}, new Placement(torch.ScalarType.Byte, false).options(), null);
        bytes.data_ptr_byte().put(seen);
        return bytes;
    }

    private boolean sees(Cell query, Cell key) {
        return switch (query.stream) {
            case TEXT -> key.stream != Stream.GUIDANCE;
            case IMAGE ->
                switch (key.stream) {
                    case TEXT -> true;
                    case IMAGE -> within(window.reach(), query, key) || sameWindow(query, key);
                    case GUIDANCE -> inGuidanceRegion(query, key);
                };
            case GUIDANCE ->
                switch (key.stream) {
                    case TEXT -> window.guidanceSeesText();
                    case IMAGE -> false;
                    case GUIDANCE -> window.guidanceAttention() == GuidanceAttention.GLOBAL || within(1, query, key);
                };
        };
    }

    private static boolean within(int cells, Cell a, Cell b) {
        return Math.max(Math.abs(a.row - b.row), Math.abs(a.column - b.column)) <= cells;
    }

    private boolean sameWindow(Cell a, Cell b) {
        int cells = window.window() / CELL;
        return a.row / cells == b.row / cells && a.column / cells == b.column / cells;
    }

    private boolean inGuidanceRegion(Cell image, Cell guidance) {
        return inGuidanceRegion(image.row, guidance.row, layout.height(), layout.guidanceHeight())
                && inGuidanceRegion(image.column, guidance.column, layout.width(), layout.guidanceWidth());
    }

    /** Along one axis: does the guidance cell hold a row of what lies under the image cell, widened by the margin? */
    private boolean inGuidanceRegion(int imageCell, int guidanceCell, int size, int guidanceSize) {
        int firstToken = CELL * imageCell;
        int lastToken = Math.min(firstToken + CELL - 1, size - 1);
        long first = Math.max(0, (long) firstToken / window.ratio() - window.guidanceMargin());
        long last = Math.min(guidanceSize - 1, (long) lastToken / window.ratio() + window.guidanceMargin());
        return guidanceCell >= first / CELL && guidanceCell <= last / CELL;
    }

    /** Whether guidance tokens see none but each other. */
    boolean guidanceStandsAlone() {
        return !window.guidanceSeesText();
    }

    /** The rows {@code first … first + count − 1} of the mask: [count, tokens], true where the query sees the key. */
    Tensor rows(long first, long count) {
        return Tensors.scoped(
                () -> table.index_select(0, cellOfToken.narrow(0, first, count)).index_select(1, cellOfToken));
    }

    @Override
    public void close() {
        cellOfToken.close();
        table.close();
    }
}
