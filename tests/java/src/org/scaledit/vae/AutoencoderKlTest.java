package org.scaledit.vae;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CancellationException;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import org.scaledit.attention.CudaAttention;
import org.scaledit.image.PixelSource;
import org.scaledit.image.Pixels;
import org.scaledit.image.Resize;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.Gpu;

class AutoencoderKlTest {
    private static final float DECODE_LIMIT = 5e-5f;
    private static final float ENCODE_LIMIT = 1e-4f;

    private static AutoencoderKl vae;

    private final PointerScope scope = new PointerScope();

    @BeforeAll
    static void load() {
        vae = AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), Placement.FLOAT32_CPU);
    }

    @AfterAll
    static void close() {
        vae.close();
    }

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @ParameterizedTest
    @ValueSource(strings = {"decode_8x8", "decode_14x6", "tiled_decode"})
    void decodesAsDiffusers(String name) {
        try (Golden golden = Golden.open("vae/vae")) {
            Tensor image = vae.decode(golden.float32(name + "_latent").squeeze(0), TileListener.NONE);

            Tensor expected = golden.float32(name + "_image").squeeze(0);
            assertThat(Golden.maxAbsoluteDifference(image, expected)).isLessThan(DECODE_LIMIT);
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"encode", "tiled_encode"})
    void encodesAsDiffusers(String name) {
        try (Golden golden = Golden.open("vae/vae")) {
            Tensor latent = vae.encode(signed(golden.tensor(name + "_image")), TileListener.NONE);

            Tensor expected = golden.float32(name + "_mean").squeeze(0);
            assertThat(Golden.maxAbsoluteDifference(latent, expected)).isLessThan(ENCODE_LIMIT);
        }
    }

    @ParameterizedTest
    @CsvSource({"flux_64x64, 4, 4", "flux_128x96, 8, 6"})
    void paintsThePipelinesPictures(String name, int width, int height) {
        try (Golden golden = Golden.open("pipeline/" + name)) {
            Tensor image = decodePacked(last(golden.float32("latents")), height, width);
            assertThat(Golden.maxAbsoluteDifference(image, golden.float32("image")))
                    .isLessThan(DECODE_LIMIT);

            Pixels pixels = new Pixels(16 * width, 16 * height);
            pixels.put(0, image);
            assertThat(Golden.maxAbsoluteDifference(bytes(pixels), golden.float32("image_u8")))
                    .isLessThanOrEqualTo(1);
        }
    }

    @Test
    void decodesThePictureOfTwoStages() {
        try (Golden golden = Golden.open("two_stage/two_stage_37x29r4")) {
            Tensor image = decodePacked(golden.float32("init_noise_final"), 29, 37);

            assertThat(Golden.maxAbsoluteDifference(every(8, image), golden.float32("init_noise_image_every_8th")))
                    .isLessThan(DECODE_LIMIT);
        }
    }

    @Test
    void enlargesTheGuidanceImageForTheHighResolutionPass() {
        try (Golden golden = Golden.open("two_stage/two_stage_37x29r4")) {
            Tensor small = decodePacked(last(golden.float32("guidance_latents")), 8, 10);
            assertThat(Golden.maxAbsoluteDifference(every(2, small), golden.float32("guidance_image_every_2nd")))
                    .isLessThan(DECODE_LIMIT);

            PixelSource enlarged = Resize.enlarged(small, 4, 16 * 29, 16 * 37);
            Tensor whole = enlarged.region(0, 0, 16 * 29, 16 * 37);
            assertThat(Golden.maxAbsoluteDifference(every(8, whole), golden.float32("upsampled_every_8th")))
                    .isLessThan(DECODE_LIMIT);

            Tensor clean = Latents.pack(Latents.scale(vae.encode(enlarged, TileListener.NONE), vae.config()));
            Tensor rows = clean.index_select(0, golden.tensor("rows").to(torch.ScalarType.Long));
            assertThat(Golden.maxAbsoluteDifference(rows, golden.float32("init_guidance_clean")))
                    .isLessThan(ENCODE_LIMIT);
        }
    }

    @ParameterizedTest
    @CsvSource({"16, 16", "2, 2", "17, 3", "16, 30", "26, 26", "28, 12", "40, 14"})
    void bandsCoverThePictureOnceFromTopToBottom(int height, int width) {
        Tensor latent = torch.randn(16, height, width);
        Tensor whole = vae.decode(latent, TileListener.NONE);
        List<Integer> rows = new ArrayList<>();
        List<Integer> finished = new ArrayList<>();

        vae.decode(latent, (tile, tiles) -> finished.add(tiles - tile), (firstRow, band) -> {
            assertThat(firstRow).isEqualTo(rows.size());
            assertThat(band.shape()).containsExactly(3, band.size(1), 8L * width);
            assertThat(Golden.maxAbsoluteDifference(band, whole.narrow(1, firstRow, band.size(1))))
                    .isZero();
            for (int row = 0; row < band.size(1); row++) {
                rows.add(firstRow + row);
            }
        });

        assertThat(rows).hasSize(8 * height);
        boolean tiled = height > 16 || width > 16;
        int tiles = tiled ? ((height + 11) / 12) * ((width + 11) / 12) : 1;
        assertThat(finished).hasSize(tiles + 1).endsWith(0);
        assertThat(finished.get(0)).isEqualTo(tiles);
    }

    /** The blending of diffusers' tiled_decode, row by row and column by column, over whole tiles kept in memory. */
    @ParameterizedTest
    @CsvSource({"18, 14", "26, 40", "14, 30"})
    void blendsLikeALoopOverRowsAndColumns(int height, int width) {
        Tensor latent = torch.randn(16, height, width);
        int rows = (height + 11) / 12;
        int columns = (width + 11) / 12;
        Tensor[][] tiles = new Tensor[rows][columns];
        Tensor expected = torch.empty(3, 8 * height, 8 * width);
        for (int row = 0; row < rows; row++) {
            for (int column = 0; column < columns; column++) {
                Tensor part = latent.narrow(1, 12 * row, Math.min(16, height - 12 * row))
                        .narrow(2, 12 * column, Math.min(16, width - 12 * column));
                Tensor tile = vae.decode(part, TileListener.NONE);
                tiles[row][column] = tile;
                if (row > 0) {
                    blend(1, tiles[row - 1][column], tile);
                }
                if (column > 0) {
                    blend(2, tiles[row][column - 1], tile);
                }
                long high = Math.min(96, tile.size(1));
                long wide = Math.min(96, tile.size(2));
                expected.narrow(1, 96L * row, high)
                        .narrow(2, 96L * column, wide)
                        .copy_(tile.narrow(1, 0, high).narrow(2, 0, wide));
            }
        }

        Tensor image = vae.decode(latent, TileListener.NONE);

        assertThat(Golden.maxAbsoluteDifference(image, expected)).isLessThan(1e-6f);
    }

    private static void blend(int axis, Tensor before, Tensor tile) {
        long extent = Math.min(32, tile.size(axis));
        for (long i = 0; i < extent; i++) {
            Tensor old = before.select(axis, before.size(axis) - extent + i);
            Tensor fresh = tile.select(axis, i);
            double weight = (double) i / extent;
            fresh.copy_(old.mul(new Scalar(1 - weight)).add(fresh.mul(new Scalar(weight))));
        }
    }

    @Test
    void encodesAPictureThatIsComputedPieceByPieceAsOneThatIsThere() {
        Tensor image = torch.rand(3, 8 * 21, 8 * 35);

        Tensor latent = vae.encode(PixelSource.of(image), TileListener.NONE);

        assertThat(latent.shape()).containsExactly(16, 21, 35);
        assertThat(Golden.maxAbsoluteDifference(latent, vae.encode(image, TileListener.NONE)))
                .isZero();
    }

    @Test
    void bfloat16StaysNearFloat32() {
        assertNear(Placement.BFLOAT16_CPU, 1e-4, 0.03);
    }

    @Test
    @Tag("gpu")
    void aGpuStaysNearTheCpu() {
        CudaAttention.requireGpu();
        assertNear(Gpu.FLOAT32, 0, 2e-4);
        assertNear(Gpu.BFLOAT16, 1e-4, 0.03);
    }

    /** How far from the reference. */
    private static void assertNear(Placement placement, double least, double most) {
        try (AutoencoderKl other = AutoencoderKl.load(Golden.tinyFlux().resolve("vae"), placement);
                Golden golden = Golden.open("vae/vae")) {
            Tensor image = other.decode(golden.float32("tiled_decode_latent").squeeze(0), TileListener.NONE);
            assertThat(Golden.relativeL2(
                            image, golden.float32("tiled_decode_image").squeeze(0)))
                    .isBetween(least, most);

            Tensor latent = other.encode(signed(golden.tensor("tiled_encode_image")), TileListener.NONE);
            assertThat(Golden.relativeL2(
                            latent, golden.float32("tiled_encode_mean").squeeze(0)))
                    .isBetween(least, most);
        }
    }

    @Test
    void aListenerCanEndTheWork() {
        List<Integer> bands = new ArrayList<>();
        Tensor latent = torch.randn(16, 40, 16); // four rows of two tiles

        assertThatThrownBy(() -> vae.decode(
                        latent,
                        (finished, tiles) -> {
                            if (finished == 5) {
                                throw new CancellationException("enough");
                            }
                        },
                        (firstRow, band) -> bands.add(firstRow)))
                .isInstanceOf(CancellationException.class)
                .hasMessage("enough");

        assertThat(bands).containsExactly(0, 96);
    }

    @Test
    void refusesShapesByName() {
        assertThatThrownBy(() -> vae.decode(torch.zeros(4, 8, 8), TileListener.NONE))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the latent has shape [4, 8, 8], expected [16, h, w]");
        assertThatThrownBy(() -> vae.encode(torch.zeros(1, 3, 8, 8), TileListener.NONE))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("the picture has shape [1, 3, 8, 8], expected [3, h, w]");
        assertThatThrownBy(() -> vae.encode(torch.zeros(3, 24, 20), TileListener.NONE))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessage("a picture of 20 × 24 pixels cannot be encoded, expected sides that are multiples of 8");
    }

    private static Tensor decodePacked(Tensor tokens, int height, int width) {
        Tensor raw = Latents.unscale(Latents.unpack(tokens, height, width), vae.config());
        return vae.decode(raw, TileListener.NONE);
    }

    private static Tensor last(Tensor steps) {
        return steps.select(0, steps.size(0) - 1);
    }

    private static Tensor every(int stride, Tensor image) { // [3, H, W]
        Tensor rows = torch.arange(new Scalar(0), new Scalar(image.size(1)), new Scalar(stride))
                .to(torch.ScalarType.Long);
        Tensor columns = torch.arange(new Scalar(0), new Scalar(image.size(2)), new Scalar(stride))
                .to(torch.ScalarType.Long);
        return image.index_select(1, rows).index_select(2, columns);
    }

    /** 8 bits [H, W, 3] to [3, H, W] in −1 … 1. */
    private static Tensor signed(Tensor image) {
        return Tensors.toFloat32(image)
                .div(new Scalar(127.5))
                .sub(new Scalar(1.0))
                .permute(2, 0, 1);
    }

    /** [H, W, 3] */
    private static Tensor bytes(Pixels pixels) {
        float[] values = new float[pixels.height() * pixels.width() * 3];
        int next = 0;
        for (int y = 0; y < pixels.height(); y++) {
            for (byte value : pixels.row(y)) {
                values[next++] = Byte.toUnsignedInt(value);
            }
        }
        return Tensors.of(values, pixels.height(), pixels.width(), 3);
    }
}
