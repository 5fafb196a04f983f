package org.scaledit.evaluation;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.scaledit.image.Pixels;

/**
 * A white sheet to draw lines and letters on. Letters are lines too: a machine that measures may have neither fonts nor
 * the libraries that draw them.
 */
final class Canvas {
    /** Each pixel is the mean of 3 × 3 points. */
    private static final int POINTS = 3;

    /** Of a letter, in steps of its grid: 4 wide, 6 above the line and 2 below it, and 2 to the next one. */
    private static final int ADVANCE = 6;

    /** Strokes through points of the grid, "xy" each: strokes are parted by a bar. */
    private static final Map<Character, String> LETTERS = letters(
            "0 10 30 41 45 36 16 05 01 10",
            "1 11 20 26",
            "2 01 10 30 41 42 06 46",
            "3 01 10 30 41 42 33 13|33 44 45 36 16 05",
            "4 36 30 04 44",
            "5 40 00 03 33 44 45 36 16 05",
            "6 30 10 01 05 16 36 45 44 33 03",
            "7 00 40 16",
            "8 13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33",
            "9 43 13 02 01 10 30 41 45 36 16",
            "a 12 32 43 46|44 14 05 16 36 45",
            "b 00 06|03 12 32 43 45 36 16 05",
            "c 43 32 12 03 05 16 36 45",
            "d 40 46|43 32 12 03 05 16 36 45",
            "e 04 44 43 32 12 03 05 16 36 45",
            "f 30 20 11 16|02 32",
            "g 43 32 12 03 05 16 36 45|42 47 38 18 07",
            "h 00 06|03 12 32 43 46",
            "i 22 26|20 20",
            "j 32 37 28 08|30 30",
            "k 00 06|42 04|14 46",
            "l 20 26",
            "m 02 06|03 12 23 26|23 32 43 46",
            "n 02 06|03 12 32 43 46",
            "o 12 32 43 45 36 16 05 03 12",
            "p 02 08|03 12 32 43 45 36 16 05",
            "q 42 48|43 32 12 03 05 16 36 45",
            "r 02 06|04 13 22 32",
            "s 43 32 12 03 14 34 45 36 16 05",
            "t 10 15 26 36|02 32",
            "u 02 05 16 36 45|42 46",
            "v 02 26 42",
            "w 02 16 23 36 42",
            "x 02 46|42 06",
            "y 02 25|42 08",
            "z 02 42 06 46",
            "G 41 30 10 01 05 16 36 45 43 23",
            "B 00 30 41 42 33 03|33 44 45 36 06 00",
            "- 14 34",
            ". 26 26",
            ", 26 17",
            "  ");

    private final int width;
    private final int height;
    private final int[] points; // 0xRRGGBB

    Canvas(int width, int height) {
        this.width = width;
        this.height = height;
        this.points = new int[width * POINTS * height * POINTS];
        Arrays.fill(points, 0xFFFFFF);
    }

    private static Map<Character, String> letters(String... table) {
        Map<Character, String> letters = new HashMap<>();
        for (String letter : table) {
            letters.put(letter.charAt(0), letter.substring(2));
        }
        return letters;
    }

    /** A line with round ends; coordinates and thickness in pixels. */
    void line(double x0, double y0, double x1, double y1, double thickness, int colour) {
        double steps = Math.max(1, 2 * POINTS * Math.hypot(x1 - x0, y1 - y0));
        for (int i = 0; i <= steps; i++) {
            disc(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps, thickness / 2, colour);
        }
    }

    void disc(double x, double y, double radius, int colour) {
        int reach = (int) Math.ceil(radius * POINTS);
        int column = (int) Math.round(x * POINTS);
        int row = (int) Math.round(y * POINTS);
        for (int dy = -reach; dy <= reach; dy++) {
            for (int dx = -reach; dx <= reach; dx++) {
                if (dx * dx + dy * dy <= radius * radius * POINTS * POINTS) {
                    put(column + dx, row + dy, colour);
                }
            }
        }
    }

    private void put(int column, int row, int colour) {
        if (column >= 0 && column < width * POINTS && row >= 0 && row < height * POINTS) {
            points[row * width * POINTS + column] = colour;
        }
    }

    /**
     * Writes a line of text. What has no letter here is left out as a space.
     *
     * @param x of its left end, in pixels; {@code y} of its base line
     * @param size height of a digit
     */
    void text(String text, double x, double y, double size, int colour) {
        double step = size / 6;
        for (int i = 0; i < text.length(); i++) {
            double left = x + i * ADVANCE * step;
            for (String stroke : LETTERS.getOrDefault(text.charAt(i), "").split("\\|")) {
                stroke(stroke.isBlank() ? new String[0] : stroke.strip().split(" "), left, y - size, step, colour);
            }
        }
    }

    private void stroke(String[] corners, double left, double top, double step, int colour) {
        for (int i = 0; i + 1 < corners.length; i++) {
            line(
                    left + step * Character.digit(corners[i].charAt(0), 10),
                    top + step * Character.digit(corners[i].charAt(1), 10),
                    left + step * Character.digit(corners[i + 1].charAt(0), 10),
                    top + step * Character.digit(corners[i + 1].charAt(1), 10),
                    0.9 * step,
                    colour);
        }
    }

    /** How wide a line of text is, in pixels. */
    static double width(String text, double size) {
        return (text.length() * ADVANCE - 2) * size / 6;
    }

    Pixels pixels() {
        Pixels pixels = new Pixels(width, height);
        for (int y = 0; y < height; y++) {
            byte[] row = pixels.row(y);
            for (int x = 0; x < width; x++) {
                for (int channel = 0; channel < 3; channel++) {
                    row[3 * x + channel] = (byte) mean(x, y, 16 - 8 * channel);
                }
            }
        }
        return pixels;
    }

    private int mean(int x, int y, int shift) {
        int sum = 0;
        for (int dy = 0; dy < POINTS; dy++) {
            for (int dx = 0; dx < POINTS; dx++) {
                sum += points[(y * POINTS + dy) * width * POINTS + x * POINTS + dx] >> shift & 0xFF;
            }
        }
        return (sum + POINTS * POINTS / 2) / (POINTS * POINTS);
    }
}
