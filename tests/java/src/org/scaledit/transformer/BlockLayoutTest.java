package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import java.util.Arrays;
import java.util.List;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.transformer.BlockLayout.Piece;
import org.scaledit.transformer.BlockLayout.Place;

class BlockLayoutTest {
    private static final FluxConfig DEV = FluxConfig.DEV;

    private static List<BlockLayout> layouts(torch.ScalarType dtype, boolean fp8) {
        return BlockLayout.of(DEV, dtype, fp8, 3);
    }

    /** As java/NOTES.md has them. */
    @ParameterizedTest
    @CsvSource({"false, 679.9e6, 283.3e6, 23.68e9", "true, 453.4e6, 170.1e6, 15.08e9"})
    void theBytesOfFluxDevsBlocksAreThoseOfTheNotes(boolean fp8, double ofDouble, double ofSingle, double all) {
        List<BlockLayout> layouts = layouts(torch.ScalarType.BFloat16, fp8);
        assertThat(layouts).hasSize(57);
        assertThat((double) layouts.get(0).bytes()).isCloseTo(ofDouble, within(1e6));
        assertThat((double) layouts.get(56).bytes()).isCloseTo(ofSingle, within(1e6));
        assertThat((double) layouts.stream().mapToLong(BlockLayout::bytes).sum())
                .isCloseTo(all, within(0.02e9));
    }

    /** All that the checkpoint has for the blocks, and nothing but what alignment adds. */
    @ParameterizedTest
    @CsvSource({"Float, 4", "BFloat16, 2"})
    void allTensorsHaveRoom(torch.ScalarType dtype, long bytes) {
        long stored = FluxTransformer.expectedTensors(DEV).entrySet().stream()
                .filter(entry -> entry.getKey().contains("transformer_blocks."))
                .mapToLong(entry -> bytes * Arrays.stream(entry.getValue()).reduce(1, Math::multiplyExact))
                .sum();
        long laidOut =
                layouts(dtype, false).stream().mapToLong(BlockLayout::bytes).sum();
        assertThat(laidOut).isBetween(stored, stored + (1 << 20));
    }

    @Test
    void aPieceHasItsShapeItsPrecisionAndAnAlignedPlaceOfItsOwn() {
        BlockLayout block = layouts(torch.ScalarType.BFloat16, true).get(3);
        String attention = "transformer_blocks.3.attn.";
        Piece heads = block.piece(BlockLayout.key(
                List.of(attention + "to_q.weight", attention + "to_k.weight", attention + "to_v.weight"), 1, 3));
        assertPlace(heads.values(), torch.ScalarType.Float8_e4m3fn, 3072, 3072);
        assertPlace(heads.scales().orElseThrow(), torch.ScalarType.Float, 3072, 1);
        assertThat(heads.scales().orElseThrow().offset())
                .isGreaterThanOrEqualTo(heads.values().offset() + heads.values().bytes());
        Piece biases = block.piece(BlockLayout.key(
                List.of(attention + "to_q.bias", attention + "to_k.bias", attention + "to_v.bias"), 1, 3));
        assertPlace(biases.values(), torch.ScalarType.BFloat16, 3072);
        Piece modulation = block.piece("transformer_blocks.3.norm1.linear.weight");
        assertPlace(modulation.values(), torch.ScalarType.BFloat16, 6 * 3072, 3072);
        assertThat(modulation.scales()).isEmpty();
        assertThatThrownBy(() -> block.piece("transformer_blocks.4.norm1.linear.weight"))
                .hasMessage("the block has no transformer_blocks.4.norm1.linear.weight");
    }

    private static void assertPlace(Place place, torch.ScalarType dtype, long... shape) {
        assertThat(place.dtype()).isEqualTo(dtype);
        assertThat(place.dimensions()).containsExactly(shape);
        assertThat(place.offset() % 256).isZero();
    }
}
