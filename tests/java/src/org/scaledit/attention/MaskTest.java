package org.scaledit.attention;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.pytorch.Tensor;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.attention.Geometry.QueryTile;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;

/** The dense mask and the native tile lists against the reference's, and against each other. */
class MaskTest {
    private static final int CELL = 8;

    static Stream<JsonNode> counts() {
        return stream(Golden.json("masks/counts").get("cases"));
    }

    @ParameterizedTest
    @MethodSource("counts")
    void theDenseMaskAllowsAsManyPairsAsTheReference(JsonNode expected) {
        JsonNode sizes = expected.get("geometry");
        TokenLayout layout = shuffled(0, sizes);
        int image = layout.imageTokens();
        int guidance = layout.guidanceTokens();
        try (TokenMask mask = new TokenMask(layout, window(sizes), Placement.FLOAT32_CPU)) {
            Tensors.run(() -> {
                Tensor rows = mask.rows(0, layout.tokens());
                Tensor ofImage = rows.narrow(0, 0, image);
                Tensor ofGuidance = rows.narrow(0, image, guidance);
                assertThat(sum(ofImage.narrow(1, 0, image)))
                        .isEqualTo(expected.get("x_to_x").asLong());
                assertThat(sum(ofImage.narrow(1, image, guidance)))
                        .isEqualTo(expected.get("x_to_lr").asLong());
                assertThat(sum(ofGuidance.narrow(1, 0, image))).isZero();
                assertThat(sum(ofGuidance.narrow(1, image, guidance)))
                        .isEqualTo(expected.get("lr_to_lr").asLong());
                long[] keys = Tensors.longs(rows.sum(1));
                assertThat(LongStream.of(keys).min())
                        .hasValue(expected.get("fewest_keys").asLong());
                assertThat(LongStream.of(keys).max())
                        .hasValue(expected.get("most_keys").asLong());
            });
        }
    }

    @ParameterizedTest
    @MethodSource("counts")
    void theTileListsAllowAsManyPairsAsTheReference(JsonNode expected) {
        try (Geometry geometry = geometry(0, expected.get("geometry"))) {
            assertThat(pairs(geometry, Geometry.Stream.IMAGE, Geometry.Stream.IMAGE))
                    .isEqualTo(expected.get("x_to_x").asLong());
            assertThat(pairs(geometry, Geometry.Stream.IMAGE, Geometry.Stream.GUIDANCE))
                    .isEqualTo(expected.get("x_to_lr").asLong());
            assertThat(pairs(geometry, Geometry.Stream.GUIDANCE, Geometry.Stream.IMAGE))
                    .isZero();
            assertThat(pairs(geometry, Geometry.Stream.GUIDANCE, Geometry.Stream.GUIDANCE))
                    .isEqualTo(expected.get("lr_to_lr").asLong());
            assertThat(geometry.pairs())
                    .isEqualTo(expected.get("x_to_x").asLong()
                            + expected.get("x_to_lr").asLong()
                            + expected.get("lr_to_lr").asLong());
        }
    }

    private static long pairs(Geometry geometry, Geometry.Stream query, Geometry.Stream key) {
        List<QueryTile> tiles = geometry.tiles();
        return tiles.stream()
                .filter(tile -> tile.stream() == query)
                .mapToLong(tile -> tile.tokens()
                        * IntStream.of(tile.keys())
                                .mapToObj(tiles::get)
                                .filter(other -> other.stream() == key)
                                .mapToLong(QueryTile::tokens)
                                .sum())
                .sum();
    }

    @ParameterizedTest
    @ValueSource(strings = {"cells_36x20r2_reach0_LOCAL_margin0", "cells_37x29r4_reach1_GLOBAL_margin3"})
    void theDenseMaskSeesTheCellsOfTheReference(String name) {
        JsonNode expected = Golden.json("masks/" + name);
        JsonNode sizes = expected.get("geometry");
        TokenLayout layout = shuffled(5, sizes);
        try (TokenMask mask = new TokenMask(layout, window(sizes), Placement.FLOAT32_CPU)) {
            for (int token = 0; token < layout.tokens(); token++) {
                boolean[] row = row(mask, token);
                Cell cell = cell(layout, token);
                if (cell.stream == 0) {
                    IntStream.range(0, row.length)
                            .forEach(key -> assertThat(row[key]).isEqualTo(cell(layout, key).stream < 2));
                } else {
                    JsonNode reference = reference(expected, cell);
                    assertThat(cells(layout, row, 0)).containsExactly("0 0");
                    assertThat(cells(layout, row, 1)).isEqualTo(cells(reference.get("x_keys")));
                    assertThat(cells(layout, row, 2)).isEqualTo(cells(reference.get("lr_keys")));
                    assertThat(IntStream.range(0, row.length)
                                    .filter(key -> row[key])
                                    .count())
                            .isEqualTo(5 + reference.get("keys_without_text").asLong());
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"cells_36x20r2_reach0_LOCAL_margin0", "cells_37x29r4_reach1_GLOBAL_margin3"})
    void theTileListsSeeTheCellsOfTheReference(String name) {
        JsonNode expected = Golden.json("masks/" + name);
        try (Geometry geometry = geometry(70, expected.get("geometry"))) {
            List<QueryTile> tiles = geometry.tiles();
            int cells = 0;
            for (QueryTile tile : tiles) {
                List<QueryTile> keys =
                        IntStream.of(tile.keys()).mapToObj(tiles::get).toList();
                assertThat(tokens(keys, Geometry.Stream.TEXT)).isEqualTo(70);
                if (tile.stream() == Geometry.Stream.TEXT) {
                    assertThat(tokens(keys, Geometry.Stream.IMAGE))
                            .isEqualTo(geometry.layout().imageTokens());
                    assertThat(tokens(keys, Geometry.Stream.GUIDANCE)).isZero();
                } else {
                    JsonNode reference =
                            reference(expected, new Cell(tile.stream().ordinal(), tile.row(), tile.column()));
                    assertThat(tile.tokens()).isEqualTo(reference.get("tokens").asInt());
                    assertThat(cells(keys, Geometry.Stream.IMAGE)).isEqualTo(cells(reference.get("x_keys")));
                    assertThat(cells(keys, Geometry.Stream.GUIDANCE)).isEqualTo(cells(reference.get("lr_keys")));
                    cells++;
                }
            }
            assertThat(cells)
                    .isEqualTo(expected.get("x_queries").size()
                            + expected.get("lr_queries").size());
        }
    }

    @Test
    void denseMaskAndTileListsAgreeOnEveryPairOfTokens() {
        Random random = new Random(7);
        for (int round = 0; round < 40; round++) {
            int text = random.nextInt(100);
            int width = 1 + random.nextInt(40);
            int height = 1 + random.nextInt(40);
            AttentionWindow window = new AttentionWindow(
                    1 << random.nextInt(4),
                    16 << random.nextInt(3),
                    random.nextInt(4),
                    random.nextInt(10),
                    GuidanceAttention.values()[random.nextInt(2)],
                    random.nextBoolean());
            try (Geometry geometry = Geometry.windowed(text, width, height, window);
                    TokenMask mask = new TokenMask(geometry.layout(), window, Placement.FLOAT32_CPU)) {
                assertTilesMatch(geometry, mask, text + " text tokens, " + width + "×" + height + ", " + window);
            }
        }
    }

    private static void assertTilesMatch(Geometry geometry, TokenMask mask, String what) {
        List<QueryTile> tiles = geometry.tiles();
        for (QueryTile tile : tiles) {
            boolean[] listed = new boolean[geometry.layout().tokens()];
            for (int key : tile.keys()) {
                for (int t = 0; t < tiles.get(key).tokens(); t++) {
                    listed[(int) tiles.get(key).first() + t] = true;
                }
            }
            for (int t = 0; t < tile.tokens(); t++) {
                assertThat(row(mask, tile.first() + t)).as(what).isEqualTo(listed);
            }
        }
    }

    @Test
    void aLayoutOfAnotherRatioIsRefused() {
        assertThatThrownBy(() ->
                        new TokenMask(TokenLayout.raster(1, 8, 8, 2), AttentionWindow.DEFAULT, Placement.FLOAT32_CPU))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the layout has ratio 2, expected the window's, 4");
    }

    /** Stream 0 is text, 1 image, 2 guidance. */
    private record Cell(int stream, int row, int column) {}

    private static Cell cell(TokenLayout layout, int token) {
        int image = token - layout.textTokens();
        int guidance = image - layout.imageTokens();
        if (image < 0) {
            return new Cell(0, 0, 0);
        }
        return guidance < 0
                ? new Cell(1, layout.imageRow(image) / CELL, layout.imageColumn(image) / CELL)
                : new Cell(2, layout.guidanceRow(guidance) / CELL, layout.guidanceColumn(guidance) / CELL);
    }

    private static JsonNode reference(JsonNode expected, Cell cell) {
        return stream(expected.get(cell.stream == 1 ? "x_queries" : "lr_queries"))
                .filter(query -> query.get("cell").get(0).asInt() == cell.row
                        && query.get("cell").get(1).asInt() == cell.column)
                .findFirst()
                .orElseThrow();
    }

    private static TreeSet<String> cells(TokenLayout layout, boolean[] row, int stream) {
        TreeSet<String> cells = new TreeSet<>();
        for (int key = 0; key < row.length; key++) {
            Cell cell = cell(layout, key);
            if (row[key] && cell.stream == stream) {
                cells.add(cell.row + " " + cell.column);
            }
        }
        return cells;
    }

    private static TreeSet<String> cells(List<QueryTile> tiles, Geometry.Stream stream) {
        TreeSet<String> cells = new TreeSet<>();
        tiles.stream()
                .filter(tile -> tile.stream() == stream)
                .forEach(tile -> cells.add(tile.row() + " " + tile.column()));
        return cells;
    }

    private static TreeSet<String> cells(JsonNode list) {
        TreeSet<String> cells = new TreeSet<>();
        list.forEach(cell -> cells.add(cell.get(0).asInt() + " " + cell.get(1).asInt()));
        return cells;
    }

    private static long tokens(List<QueryTile> tiles, Geometry.Stream stream) {
        return tiles.stream()
                .filter(tile -> tile.stream() == stream)
                .mapToLong(QueryTile::tokens)
                .sum();
    }

    private static boolean[] row(TokenMask mask, long token) {
        return Tensors.compute(() -> {
            long[] values = Tensors.longs(mask.rows(token, 1));
            boolean[] row = new boolean[values.length];
            for (int key = 0; key < row.length; key++) {
                row[key] = values[key] != 0;
            }
            return row;
        });
    }

    private static long sum(Tensor mask) {
        return mask.sum().item_long();
    }

    /** The mask must not depend on the order: a random one. */
    private static TokenLayout shuffled(int textTokens, JsonNode sizes) {
        TokenLayout raster = TokenLayout.raster(
                textTokens,
                sizes.get("W").asInt(),
                sizes.get("H").asInt(),
                sizes.get("rho").asInt());
        return new TokenLayout(
                textTokens,
                raster.width(),
                raster.height(),
                raster.ratio(),
                permutation(raster.imageTokens()),
                permutation(raster.guidanceTokens()),
                new long[0]);
    }

    private static long[] permutation(int count) {
        List<Long> numbers = new ArrayList<>(LongStream.range(0, count).boxed().toList());
        Collections.shuffle(numbers, new Random(count));
        return numbers.stream().mapToLong(Long::longValue).toArray();
    }

    private static Geometry geometry(int textTokens, JsonNode sizes) {
        return Geometry.windowed(
                textTokens, sizes.get("W").asInt(), sizes.get("H").asInt(), window(sizes));
    }

    private static AttentionWindow window(JsonNode sizes) {
        return new AttentionWindow(
                sizes.get("rho").asInt(),
                16,
                sizes.get("reach").asInt(),
                sizes.get("margin").asInt(),
                GuidanceAttention.valueOf(sizes.get("guidance").asText()),
                true);
    }

    private static Stream<JsonNode> stream(JsonNode list) {
        return StreamSupport.stream(list.spliterator(), false);
    }
}
