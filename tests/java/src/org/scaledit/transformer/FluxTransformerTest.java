package org.scaledit.transformer;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CancellationException;
import java.util.function.BiConsumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.AttentionWindow.GuidanceAttention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.checkpoint.Lora;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.Safetensors;
import org.scaledit.checkpoint.Weights;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.testing.Golden;
import org.scaledit.testing.ProcessMemory;
import org.scaledit.transformer.Sequence.Backend;

/** The reference's forward passes: each through dense attention in raster order and through the core in Hilbert order. */
class FluxTransformerTest {
    private static final double MAX_ABSOLUTE = 5e-4;
    private static final double RELATIVE_L2 = 5e-5;
    private static final double INT8_RELATIVE_L2 = 2e-2;
    private static final double BFLOAT16_RELATIVE_L2 = 2e-2;

    private static final Runnable NOTHING = () -> {};

    private static FluxTransformer float32;
    private static FluxTransformer bfloat16;

    @BeforeAll
    static void load() {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        float32 = FluxTransformer.load(directory, Placement.FLOAT32_CPU);
        bfloat16 = FluxTransformer.load(directory, Placement.BFLOAT16_CPU);
    }

    @AfterAll
    static void close() {
        float32.close();
        bfloat16.close();
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void aPlainPassHasTheHiddenStatesOfTheReference(Backend backend) {
        List<String> blocks = new ArrayList<>();
        try (Golden golden = Golden.open("transformer/plain_6x5");
                Sequence sequence = plain(golden, backend)) {
            BiConsumer<String, Tensor> compare = (block, hidden) -> {
                blocks.add(block);
                assertHidden(sequence.textOf(hidden), golden.float32(block + ".txt"));
                assertHidden(sequence.imageOf(hidden), golden.float32(block + ".x"));
            };
            Tensors.run(() -> assertVelocity(
                    plainVelocity(float32, golden, sequence, compare), golden.float32("velocity"), backend));
        }
        assertThat(blocks)
                .containsExactly(
                        "transformer_blocks.0",
                        "transformer_blocks.1",
                        "single_transformer_blocks.0",
                        "single_transformer_blocks.1");
    }

    @ParameterizedTest
    @EnumSource
    void aPlainPassHasTheVelocityOfTheReference(Backend backend) {
        for (String name : List.of("transformer/plain_6x5", "transformer/plain_14x9")) {
            try (Golden golden = Golden.open(name);
                    Sequence sequence = plain(golden, backend)) {
                Tensors.run(() -> assertVelocity(
                        plainVelocity(float32, golden, sequence, (block, hidden) -> {}),
                        golden.float32("velocity"),
                        backend));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void aPlainPassInBfloat16IsAsNearAsTheReferences(Backend backend) {
        try (Golden golden = Golden.open("transformer/plain_14x9");
                Sequence sequence = plain(golden, backend)) {
            Tensors.run(() -> {
                Tensor velocity = plainVelocity(bfloat16, golden, sequence, (block, hidden) -> {});
                assertThat(velocity.scalar_type().intern()).isEqualTo(torch.ScalarType.Float);
                assertThat(Golden.relativeL2(velocity, golden.float32("velocity")))
                        .isBetween(1e-3, BFLOAT16_RELATIVE_L2);
            });
        }
    }

    /** Every run of every high-resolution pass of the reference, through every backend. */
    static Stream<Arguments> runs() {
        return Stream.of("20x19r1", "24x24r2", "32x32r4", "33x17r8", "36x20r2", "37x29r4", "40x24r4")
                .map(size -> "scaledit/forward_" + size)
                .flatMap(name -> StreamSupport.stream(
                                Golden.json(name).get("runs").spliterator(), false)
                        .flatMap(run -> Stream.of(Backend.values())
                                .map(backend ->
                                        Arguments.of(name, run.get("name").asText(), backend))));
    }

    @ParameterizedTest
    @MethodSource("runs")
    void aHighResolutionPassHasTheVelocityOfTheReference(String name, String run, Backend backend) {
        try (Golden golden = Golden.open(name)) {
            Tensors.run(() -> assertVelocity(
                    rows(golden, "rows", velocity(float32, golden, run, backend)), golden.float32(run), backend));
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void aHighResolutionPassInBfloat16IsAsNearAsTheReferences(Backend backend) {
        try (Golden golden = Golden.open("scaledit/forward_37x29r4")) {
            Tensors.run(() -> {
                Tensor velocity = rows(golden, "rows", velocity(bfloat16, golden, "run0", backend));
                assertThat(Golden.relativeL2(velocity, golden.float32("run0"))).isBetween(1e-3, BFLOAT16_RELATIVE_L2);
            });
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"DENSE_RASTER", "NATIVE_HILBERT"})
    void aHighResolutionPassHasTheHiddenStatesOfTheReference(Backend backend) {
        try (Golden golden = Golden.open("scaledit/forward_20x19r1");
                Lora lora = lora("scaledit_lora");
                FluxTransformer transformer = adapted(float32, lora, LoraScope.GUIDANCE);
                Sequence sequence = sequence(golden, run(golden, "run0"), backend)) {
            Tensors.run(() -> velocity(transformer, golden, sequence, (block, hidden) -> {
                String prefix = "run0." + block;
                assertHidden(sequence.textOf(hidden), golden.float32(prefix + ".txt"));
                assertHidden(rows(golden, "rows", sequence.imageOf(hidden)), golden.float32(prefix + ".x_rows"));
                assertHidden(rows(golden, "lr_rows", sequence.guidanceOf(hidden)), golden.float32(prefix + ".lr_rows"));
            }));
        }
    }

    /** Every spelling of one LoRA under both scopes, through both exact backends. */
    static Stream<Arguments> spellings() {
        return Stream.of("peft", "peft_alpha_in_metadata", "kohya", "comfy", "bfl_peft")
                .flatMap(spelling -> Stream.of(LoraScope.GUIDANCE, LoraScope.ALL)
                        .flatMap(scope -> Stream.of(Backend.DENSE_RASTER, Backend.NATIVE_HILBERT)
                                .map(backend -> Arguments.of(spelling, scope, backend))));
    }

    @ParameterizedTest
    @MethodSource("spellings")
    void everySpellingOfALoraHasTheVelocityOfTheReference(String spelling, LoraScope scope, Backend backend) {
        try (Golden golden = Golden.open("lora_formats/result");
                Lora lora = Lora.load(Golden.path("golden/lora_formats/" + spelling + ".safetensors"));
                FluxTransformer transformer = adapted(float32, lora, scope);
                Sequence sequence = formats(golden, backend)) {
            String expected = scope == LoraScope.ALL ? "velocity_scope_all" : "velocity_scope_lr";
            Tensors.run(() -> assertVelocity(
                    velocity(transformer, golden, sequence, (block, hidden) -> {}), golden.float32(expected), backend));
        }
    }

    /** As on a GPU: queries, keys and values of a group of heads by one product, LoRAs on its columns. */
    @ParameterizedTest
    @CsvSource({"1, 40x24r4, NATIVE_HILBERT", "2, 40x24r4, DENSE_RASTER", "4, 37x29r4, NATIVE_HILBERT"})
    void headsInGroupsHaveTheVelocityOfTheReference(int headGroups, String size, Backend backend) {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        Weights weights = Weights.of(
                Safetensors.openModel(directory.part("transformer"), "diffusion_pytorch_model"), Placement.FLOAT32_CPU);
        try (Golden golden = Golden.open("scaledit/forward_" + size);
                FluxTransformer grouped = FluxTransformer.load(
                        FluxConfig.of(directory.config("transformer")), weights, headGroups, false)) {
            for (JsonNode run : golden.json().get("runs")) {
                String name = run.get("name").asText();
                Tensors.run(() -> assertVelocity(
                        rows(golden, "rows", velocity(grouped, golden, name, backend)), golden.float32(name), backend));
            }
        }
    }

    /** Where guidance does not see the text, its keys and values of the first pass serve all others. */
    @ParameterizedTest
    @CsvSource({"0, GLOBAL, NATIVE_HILBERT", "4, LOCAL, NATIVE_HILBERT", "0, LOCAL, DENSE_RASTER"})
    void guidanceThatStandsAloneIsComputedOnce(int headGroups, GuidanceAttention attention, Backend backend) {
        ModelDirectory directory = ModelDirectory.open(Golden.tinyFlux());
        Weights weights = Weights.of(
                Safetensors.openModel(directory.part("transformer"), "diffusion_pytorch_model"), Placement.FLOAT32_CPU);
        AttentionWindow window = new AttentionWindow(4, 16, 1, 3, attention, false);
        try (Golden golden = Golden.open("scaledit/forward_37x29r4");
                FluxTransformer transformer = FluxTransformer.load(
                        FluxConfig.of(directory.config("transformer")), weights, headGroups, false);
                Sequence alone = sequence(golden, window, Backend.DENSE_RASTER);
                Sequence sequence = sequence(golden, window, backend)) {
            Tensors.run(() -> {
                Tensor first = golden.float32("x");
                Tensor second = torch.randn_like(first);
                try (Denoiser denoiser = denoiser(
                        transformer, golden, sequence, sequence.layout().arrangeGuidance(golden.float32("x_lr")))) {
                    List<Long> rows = new ArrayList<>();
                    for (Tensor latents : List.of(first, second, first)) {
                        Tensor velocity = sequence.layout()
                                .restoreImage(denoiser.velocity(
                                        sequence.layout().arrangeImage(latents),
                                        0.6,
                                        (block, hidden) -> rows.add(hidden.size(0))));
                        assertVelocity(velocity, ofOnePass(transformer, golden, alone, latents), backend);
                    }
                    TokenLayout layout = sequence.layout();
                    assertThat(rows.subList(0, rows.size() / 3)).containsOnly((long) layout.tokens());
                    assertThat(rows.subList(rows.size() / 3, rows.size()))
                            .containsOnly((long) layout.tokens() - layout.guidanceTokens());
                }
            });
        }
    }

    /** Classifier-free guidance: two passes and their combination, whether or not guidance tokens are kept. */
    @ParameterizedTest
    @CsvSource({
        "true, NATIVE_HILBERT",
        "false, NATIVE_HILBERT",
        "true, DENSE_RASTER",
        "false, DENSE_RASTER",
        "false, NATIVE_INT8_HILBERT"
    })
    void aVelocityThatIsGuidedIsTheCombinationOfTwo(boolean guidanceSeesText, Backend backend) {
        AttentionWindow window = new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, guidanceSeesText);
        try (Golden golden = Golden.open("scaledit/forward_37x29r4");
                Sequence ofPositive = sequence(golden, window, backend);
                Sequence ofNegative = sequence(golden, window, backend);
                Sequence ofBoth = sequence(golden, window, backend)) {
            Tensors.run(() -> {
                Tensor guidance = ofBoth.layout().arrangeGuidance(golden.float32("x_lr"));
                Tensor states = golden.float32("txt").flip(0).neg();
                Tensor pooled = golden.float32("pooled").neg();
                try (Denoiser positive = denoiser(float32, golden, ofPositive, guidance);
                        Denoiser negative = float32.denoiser(
                                ofNegative.layout(),
                                ofNegative.attention(),
                                FluxTransformer.NTK_THETA,
                                states,
                                pooled,
                                golden.json().get("guidance_scale").asDouble(),
                                guidance);
                        Denoiser both = denoiser(float32, golden, ofBoth, guidance)) {
                    both.guideAwayFrom(states, pooled, 3.5);
                    Tensor latents = ofBoth.layout().arrangeImage(golden.float32("x"));
                    for (double sigma : new double[] {0.9, 0.4}) {
                        Tensor towards = positive.velocity(latents, sigma, () -> {});
                        Tensor away = negative.velocity(latents, sigma, () -> {});
                        Tensor combined = both.velocity(latents, sigma, () -> {});
                        Tensor expected = away.add(towards.sub(away).mul(new Scalar(3.5)));
                        assertThat(combined.equal(expected)).isTrue();
                        assertThat(Golden.relativeL2(combined, towards)).isGreaterThan(1e-2);
                    }
                }
            });
        }
    }

    /** A first pass that ends early leaves nothing behind for the next. */
    @Test
    void guidanceOfAPassThatWasBrokenOffIsComputedAgain() {
        AttentionWindow window = new AttentionWindow(4, 16, 1, 3, GuidanceAttention.GLOBAL, false);
        try (Golden golden = Golden.open("scaledit/forward_37x29r4");
                Sequence alone = sequence(golden, window, Backend.DENSE_RASTER);
                Sequence sequence = sequence(golden, window, Backend.NATIVE_HILBERT)) {
            Tensors.run(() -> {
                Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
                try (Denoiser denoiser = denoiser(
                        float32, golden, sequence, sequence.layout().arrangeGuidance(golden.float32("x_lr")))) {
                    assertThatThrownBy(() -> denoiser.velocity(latents, 0.6, (block, hidden) -> {
                                if (block.startsWith("single")) {
                                    throw new CancellationException();
                                }
                            }))
                            .isInstanceOf(CancellationException.class);
                    for (int pass = 0; pass < 2; pass++) {
                        assertVelocity(
                                sequence.layout().restoreImage(denoiser.velocity(latents, 0.6, () -> {})),
                                ofOnePass(float32, golden, alone, golden.float32("x")),
                                Backend.NATIVE_HILBERT);
                    }
                }
            });
        }
    }

    /** By a denoiser that has made no pass before: [W·H, 64], in raster order */
    static Tensor ofOnePass(FluxTransformer transformer, Golden golden, Sequence sequence, Tensor latents) {
        return Tensors.scoped(() -> {
            try (Denoiser denoiser = denoiser(transformer, golden, sequence, golden.float32("x_lr"))) {
                return denoiser.velocity(latents, 0.6, () -> {});
            }
        });
    }

    private static Sequence sequence(Golden golden, AttentionWindow window, Backend backend) {
        return sequence(golden, window, backend, Placement.FLOAT32_CPU);
    }

    static Sequence sequence(Golden golden, AttentionWindow window, Backend backend, Placement placement) {
        return Sequence.ofPicture(backend, placement, size(golden, "T"), size(golden, "W"), size(golden, "H"), window);
    }

    @Test
    void theReleasedScopeIsAllForQueryKeyAndValueAndGuidanceForTheRest() {
        try (Golden golden = Golden.open("scaledit/forward_37x29r4");
                Lora wide = lora("wide_lora");
                Sequence sequence = sequence(golden, run(golden, "run8"), Backend.NATIVE_HILBERT)) {
            Lora projections = only(wide, true);
            Lora others = only(wide, false);
            assertThat(projections.layers()).isNotEmpty();
            assertThat(others.layers()).isNotEmpty();
            Tensors.run(() -> {
                Tensor released = adaptedVelocity(golden, sequence, projections, LoraScope.RELEASED);
                assertThat(released.equal(adaptedVelocity(golden, sequence, projections, LoraScope.ALL)))
                        .isTrue();
                assertThat(released.equal(adaptedVelocity(golden, sequence, projections, LoraScope.GUIDANCE)))
                        .isFalse();
                Tensor releasedOthers = adaptedVelocity(golden, sequence, others, LoraScope.RELEASED);
                assertThat(releasedOthers.equal(adaptedVelocity(golden, sequence, others, LoraScope.GUIDANCE)))
                        .isTrue();
                assertThat(releasedOthers.equal(adaptedVelocity(golden, sequence, others, LoraScope.ALL)))
                        .isFalse();
            });
        }
        assertThat(LoraScope.RELEASED.guidanceOnly("transformer_blocks.3.attn.to_out.0"))
                .isTrue();
        assertThat(LoraScope.RELEASED.guidanceOnly("single_transformer_blocks.37.attn.to_v"))
                .isFalse();
    }

    @Test
    void severalLorasAddUpAndScaleZeroIsNone() {
        try (Golden golden = Golden.open("scaledit/forward_33x17r8");
                Lora narrow = lora("scaledit_lora");
                Lora wide = lora("wide_lora");
                Sequence sequence = sequence(golden, run(golden, "run0"), Backend.NATIVE_HILBERT)) {
            Tensors.run(() -> {
                Tensor twice = velocity(golden, sequence, new ScaledLora(narrow, 1), new ScaledLora(narrow, -0.5));
                Tensor half = velocity(golden, sequence, new ScaledLora(narrow, 0.5));
                assertThat(Golden.relativeL2(twice, half)).isLessThan(1e-6);
                Tensor without = velocity(golden, sequence, new ScaledLora(narrow, 1), new ScaledLora(wide, 0));
                assertVelocity(rows(golden, "rows", without), golden.float32("run0"), Backend.NATIVE_HILBERT);
                Tensor both = velocity(golden, sequence, new ScaledLora(narrow, 1), new ScaledLora(wide, 1));
                assertThat(Golden.relativeL2(both, without)).isGreaterThan(1e-3);
            });
        }
    }

    @Test
    void aPlainPassUnderALoraForGuidanceTokensIsThePlainPass() {
        try (Golden golden = Golden.open("transformer/plain_14x9");
                Lora lora = lora("wide_lora");
                FluxTransformer transformer = adapted(float32, lora, LoraScope.GUIDANCE);
                Sequence sequence = plain(golden, Backend.DENSE_RASTER)) {
            Tensors.run(() -> {
                Tensor under = plainVelocity(transformer, golden, sequence, (block, hidden) -> {});
                Tensor plain = plainVelocity(float32, golden, sequence, (block, hidden) -> {});
                assertThat(under.equal(plain)).isTrue();
            });
        }
    }

    @Test
    void inputsStayAsTheyWereAndStepsDoNotDependOnEachOther() {
        try (Golden golden = Golden.open("scaledit/forward_33x17r8");
                Sequence sequence = sequence(golden, run(golden, "run0"), Backend.NATIVE_HILBERT)) {
            Tensors.run(() -> {
                Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
                Tensor guidance = sequence.layout().arrangeGuidance(golden.float32("x_lr"));
                Tensor before = latents.clone();
                try (Denoiser denoiser = denoiser(float32, golden, sequence, guidance)) {
                    Tensor first = denoiser.velocity(latents, 0.9, NOTHING);
                    Tensor other = denoiser.velocity(first, 0.1, NOTHING);
                    guidance.fill_(new Scalar(Double.NaN));
                    assertThat(denoiser.velocity(latents, 0.9, NOTHING).equal(first))
                            .isTrue();
                    assertThat(first.equal(other)).isFalse();
                }
                assertThat(latents.equal(before)).isTrue();
            });
        }
    }

    @Test
    void aPassEndsBetweenBlocksWhenItIsCancelled() {
        List<Integer> blocks = new ArrayList<>();
        try (Golden golden = Golden.open("scaledit/forward_33x17r8");
                Sequence sequence = sequence(golden, run(golden, "run0"), Backend.NATIVE_HILBERT)) {
            Tensors.run(() -> {
                Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
                Tensor guidance = sequence.layout().arrangeGuidance(golden.float32("x_lr"));
                try (Denoiser denoiser = denoiser(float32, golden, sequence, guidance)) {
                    assertThatThrownBy(() -> denoiser.velocity(latents, 0.9, () -> {
                                blocks.add(blocks.size());
                                if (blocks.size() == 2) {
                                    throw new CancellationException("enough");
                                }
                            }))
                            .isInstanceOf(CancellationException.class);
                }
            });
        }
        assertThat(blocks).hasSize(2);
    }

    @Test
    void passesLeaveTheMemoryOfTheProcessWhereItWas() {
        try (Golden golden = Golden.open("scaledit/forward_33x17r8");
                Lora lora = lora("wide_lora");
                Sequence sequence = sequence(golden, run(golden, "run0"), Backend.NATIVE_HILBERT)) {
            Runnable pass = () -> Tensors.run(() -> adaptedVelocity(golden, sequence, lora, LoraScope.ALL));
            repeat(10, pass);
            long handles = Pointer.totalCount();
            long before = ProcessMemory.residentBytes();
            repeat(40, pass);
            assertThat(ProcessMemory.residentBytes() - before).isLessThan(48L << 20);
            assertThat(Pointer.totalCount() - handles).isLessThan(100);
        }
    }

    private static void repeat(int times, Runnable action) {
        for (int i = 0; i < times; i++) {
            action.run();
        }
    }

    @Test
    void inputsThatDoNotFitAreNamed() {
        try (Golden golden = Golden.open("scaledit/forward_33x17r8");
                Sequence sequence = sequence(golden, run(golden, "run0"), Backend.DENSE_RASTER)) {
            Tensors.run(() -> {
                Tensor latents = golden.float32("x");
                Tensor guidance = golden.float32("x_lr");
                assertThatThrownBy(() -> denoiser(float32, golden, sequence, latents))
                        .hasMessage("guidance latents have shape [561, 64], expected [15, 64]");
                assertThatThrownBy(() -> float32.denoiser(
                                sequence.layout(),
                                sequence.attention(),
                                FluxTransformer.NTK_THETA,
                                golden.float32("txt"),
                                golden.float32("pooled"),
                                4.5))
                        .hasMessage("no guidance latents given for a layout with 15 guidance tokens");
                try (Denoiser denoiser = denoiser(float32, golden, sequence, guidance)) {
                    assertThatThrownBy(() -> denoiser.velocity(guidance, 1, NOTHING))
                            .isInstanceOf(IllegalArgumentException.class)
                            .hasMessage("latents have shape [15, 64], expected [561, 64]");
                }
            });
        }
    }

    static Tensor velocity(FluxTransformer base, Golden golden, String name, Backend backend) {
        JsonNode run = run(golden, name);
        LoraScope scope = run.get("scope").asText().equals("all") ? LoraScope.ALL : LoraScope.GUIDANCE;
        try (Sequence sequence = sequence(golden, run, backend, base.placement())) {
            if (run.get("lora").isNull()) {
                return velocity(base, golden, sequence, (block, hidden) -> {});
            }
            try (Lora lora = lora(run.get("lora").asText());
                    FluxTransformer transformer = adapted(base, lora, scope)) {
                return velocity(transformer, golden, sequence, (block, hidden) -> {});
            }
        }
    }

    private static Tensor velocity(Golden golden, Sequence sequence, ScaledLora... loras) {
        try (FluxTransformer transformer = float32.withLoras(List.of(loras), LoraScope.GUIDANCE)) {
            return velocity(transformer, golden, sequence, (block, hidden) -> {});
        }
    }

    private static Tensor adaptedVelocity(Golden golden, Sequence sequence, Lora lora, LoraScope scope) {
        try (FluxTransformer transformer = adapted(float32, lora, scope)) {
            return velocity(transformer, golden, sequence, (block, hidden) -> {});
        }
    }

    /** The velocity of a high-resolution pass, in raster order: [W·H, 64] */
    private static Tensor velocity(
            FluxTransformer transformer, Golden golden, Sequence sequence, BiConsumer<String, Tensor> afterBlock) {
        return Tensors.scoped(() -> {
            Tensor guidance = sequence.layout().arrangeGuidance(golden.float32("x_lr"));
            Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
            double sigma = golden.json().get("sigma").asDouble();
            try (Denoiser denoiser = denoiser(transformer, golden, sequence, guidance)) {
                return sequence.layout().restoreImage(denoiser.velocity(latents, sigma, afterBlock));
            }
        });
    }

    static Denoiser denoiser(FluxTransformer transformer, Golden golden, Sequence sequence, Tensor guidanceLatents) {
        return transformer.denoiser(
                sequence.layout(),
                sequence.attention(),
                FluxTransformer.NTK_THETA,
                golden.float32("txt"),
                golden.float32("pooled"),
                golden.json().get("guidance_scale").asDouble(),
                guidanceLatents);
    }

    /** The velocity of a plain pass, in raster order: [W·H, 64] */
    static Tensor plainVelocity(
            FluxTransformer transformer, Golden golden, Sequence sequence, BiConsumer<String, Tensor> afterBlock) {
        return Tensors.scoped(() -> {
            Tensor latents = sequence.layout().arrangeImage(golden.float32("x"));
            double sigma = golden.json().get("sigma").asDouble();
            try (Denoiser denoiser = transformer.denoiser(
                    sequence.layout(),
                    sequence.attention(),
                    FluxTransformer.THETA,
                    golden.float32("txt"),
                    golden.float32("pooled"),
                    golden.json().get("guidance").asDouble())) {
                return sequence.layout().restoreImage(denoiser.velocity(latents, sigma, afterBlock));
            }
        });
    }

    private static Sequence plain(Golden golden, Backend backend) {
        return plain(golden, backend, Placement.FLOAT32_CPU);
    }

    static Sequence plain(Golden golden, Backend backend, Placement placement) {
        return Sequence.of(
                backend, placement, size(golden, "T"), size(golden, "W"), size(golden, "H"), Optional.empty());
    }

    private static Sequence sequence(Golden golden, JsonNode run, Backend backend) {
        return sequence(golden, run, backend, Placement.FLOAT32_CPU);
    }

    private static Sequence sequence(Golden golden, JsonNode run, Backend backend, Placement placement) {
        AttentionWindow window = new AttentionWindow(
                size(golden, "rho"),
                16,
                run.get("reach").asInt(),
                run.get("margin").asInt(),
                GuidanceAttention.valueOf(run.get("guidance").asText()),
                true);
        return Sequence.of(
                backend, placement, size(golden, "T"), size(golden, "W"), size(golden, "H"), Optional.of(window));
    }

    private static Sequence formats(Golden golden, Backend backend) {
        return Sequence.of(
                backend,
                Placement.FLOAT32_CPU,
                size(golden, "T"),
                size(golden, "W"),
                size(golden, "H"),
                Optional.of(AttentionWindow.DEFAULT));
    }

    private static int size(Golden golden, String name) {
        return golden.json().get(name).asInt();
    }

    private static JsonNode run(Golden golden, String name) {
        return StreamSupport.stream(golden.json().get("runs").spliterator(), false)
                .filter(run -> run.get("name").asText().equals(name))
                .findFirst()
                .orElseThrow();
    }

    private static Lora lora(String name) {
        return Lora.load(Golden.path("golden/lora/" + name + ".safetensors"));
    }

    private static FluxTransformer adapted(FluxTransformer base, Lora lora, LoraScope scope) {
        return base.withLoras(List.of(new ScaledLora(lora, 1)), scope);
    }

    /** The layers for query, key and value, or the others. */
    private static Lora only(Lora lora, boolean projections) {
        return new Lora(
                lora.file(),
                lora.layers().entrySet().stream()
                        .filter(layer -> projections == layer.getKey().matches(".*to_[qkv]"))
                        .collect(Collectors.toMap(Map.Entry::getKey, Map.Entry::getValue)));
    }

    static Tensor rows(Golden golden, String list, Tensor raster) {
        return raster.index_select(0, golden.tensor(list));
    }

    private static void assertVelocity(Tensor velocity, Tensor expected, Backend backend) {
        double relative = Golden.relativeL2(velocity, expected);
        if (backend.exact()) {
            assertThat(Golden.maxAbsoluteDifference(velocity, expected)).isLessThanOrEqualTo((float) MAX_ABSOLUTE);
            assertThat(relative).isLessThanOrEqualTo(RELATIVE_L2);
        } else {
            assertThat(relative).isLessThanOrEqualTo(INT8_RELATIVE_L2);
        }
    }

    private static void assertHidden(Tensor hidden, Tensor expected) {
        assertThat(Golden.maxAbsoluteDifference(hidden, expected)).isLessThanOrEqualTo((float) MAX_ABSOLUTE);
    }
}
