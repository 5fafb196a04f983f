package org.scaledit.transformer;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.function.BiConsumer;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.stream.LongStream;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.attention.Attention;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Matrix;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** The transformer with all that stays the same over the steps of one picture. Used by one thread at a time. */
public final class Denoiser implements AutoCloseable {
    private final FluxTransformer transformer;
    private final TokenLayout layout;
    private final Attention attention;
    private final float guidance;
    private final Text text;
    private Optional<TrueGuidance> trueGuidance = Optional.empty();
    private final Tensor guidanceTokens; // [guidance, width], embedded; [0, width] in a plain pass
    private final RotaryEmbedding rotary;

    /**
     * What a pass has of its text.
     *
     * @param pooled [pooled width], float32
     * @param tokens [text, width], embedded
     */
    private record Text(Tensor pooled, Tensor tokens, Optional<KeptGuidance> kept) implements AutoCloseable {
        @Override
        public void close() {
            pooled.close();
            tokens.close();
            kept.ifPresent(KeptGuidance::close);
        }
    }

    private record TrueGuidance(Text negative, double scale) {}

    Denoiser(
            FluxTransformer transformer,
            TokenLayout layout,
            Attention attention,
            double theta,
            Tensor textStates,
            Tensor pooledText,
            double guidance,
            Optional<Tensor> guidanceLatents) {
        FluxConfig config = transformer.config();
        int channels = config.latentChannels();
        if (guidanceLatents.isEmpty() && layout.guidanceTokens() > 0) {
            throw new IllegalArgumentException(
                    "no guidance latents given for a layout with " + layout.guidanceTokens() + " guidance tokens");
        }
        guidanceLatents.ifPresent(
                latents -> requireShape("guidance latents", latents, layout.guidanceTokens(), channels));

        this.transformer = transformer;
        this.layout = layout;
        this.attention = attention;
        this.guidance = (float) guidance;
        Placement placement = transformer.placement();
        this.text = text(textStates, pooledText);
        List<Tensor> made = new ArrayList<>();
        try {
            this.guidanceTokens = kept(made, () -> {
                Tensor latents = guidanceLatents.orElseGet(() -> torch.empty(0, channels));
                return transformer.model().latentEmbedder().forward(placement.place(latents), latents.size(0));
            });
            this.rotary = RotaryEmbedding.of(layout, config, theta, placement);
        } catch (RuntimeException | Error e) {
            // A GPU without memory for the one has to get the others back.
            made.forEach(Tensor::close);
            text.close();
            throw e;
        }
    }

    private Text text(Tensor states, Tensor pooled) {
        FluxConfig config = transformer.config();
        requireShape("text states", states, layout.textTokens(), config.jointWidth());
        requireShape("pooled text", pooled, config.pooledWidth());
        Placement placement = transformer.placement();
        List<Tensor> made = new ArrayList<>();
        try {
            return new Text(
                    kept(made, () -> placement.with(torch.ScalarType.Float).place(pooled)),
                    kept(made, () -> transformer.model().textEmbedder().forward(placement.place(states), 0)),
                    attention.guidanceStandsAlone() && layout.guidanceTokens() > 0
                            ? Optional.of(new KeptGuidance(layout.guidanceTokens(), config.headDim()))
                            : Optional.empty());
        } catch (RuntimeException | Error e) {
            made.forEach(Tensor::close);
            throw e;
        }
    }

    /**
     * Classifier-free guidance (diffusers' {@code true_cfg_scale}): from the first pass on, which is still to come, a
     * velocity is {@code negative + scale · (positive − negative)}, of a pass for each text, one after the other.
     *
     * @param textStates T5's of the negative prompt, {@code [T, joint width]}
     * @param pooledText CLIP's, {@code [pooled width]}
     */
    public void guideAwayFrom(Tensor textStates, Tensor pooledText, double scale) {
        if (trueGuidance.isPresent()) {
            throw new IllegalStateException("the denoiser is guided already");
        }
        trueGuidance = Optional.of(new TrueGuidance(text(textStates, pooledText), scale));
    }

    private static Tensor kept(List<Tensor> made, Supplier<Tensor> make) {
        Tensor tensor = Tensors.outlive(() -> new Tensor(make.get()));
        made.add(tensor);
        return tensor;
    }

    /**
     * The velocity of the image tokens: what the model takes for {@code noise − image}.
     *
     * @param latents packed, noised, in the layout's order: {@code [W·H, 64]}
     * @param sigma noise level, 0 … 1
     * @param betweenBlocks runs after every block, of both passes if there are two; what it throws ends the pass and frees everything
     * @return {@code [W·H, 64]}, float32, in the caller's scope
     */
    public Tensor velocity(Tensor latents, double sigma, Runnable betweenBlocks) {
        return velocity(latents, sigma, (block, hidden) -> betweenBlocks.run());
    }

    /**
     * The same for a profile.
     *
     * @param begins told which part of the pass begins: what is queued on a GPU from then on belongs to it
     */
    public Tensor profiledVelocity(Tensor latents, double sigma, Consumer<Part> begins) {
        return velocity(latents, sigma, (block, hidden) -> {}, begins);
    }

    /**
     * @param afterBlock sees each block's name and the hidden state {@code [text + image + guidance, width]} after it; from
     *     the second pass on without guidance where it stands alone
     */
    Tensor velocity(Tensor latents, double sigma, BiConsumer<String, Tensor> afterBlock) {
        return velocity(latents, sigma, afterBlock, part -> {});
    }

    private Tensor velocity(
            Tensor latents, double sigma, BiConsumer<String, Tensor> afterBlock, Consumer<Part> begins) {
        Tensor velocity = Tensors.scoped(() -> {
            Tensor positive = velocity(text, latents, sigma, afterBlock, begins);
            if (trueGuidance.isEmpty()) {
                return positive;
            }
            Tensor negative = velocity(trueGuidance.get().negative, latents, sigma, afterBlock, begins);
            return positive.sub_(negative)
                    .mul_(new Scalar(trueGuidance.get().scale))
                    .add_(negative);
        });
        // After all passes of the first step: they share the attention.
        text.kept.filter(guidance -> !guidance.complete()).ifPresent(guidance -> {
            guidance.end();
            trueGuidance.flatMap(guided -> guided.negative.kept).ifPresent(KeptGuidance::end);
            attention.leaveOutGuidanceQueries();
        });
        return velocity;
    }

    /** Of one text: [W·H, 64], float32 */
    private Tensor velocity(
            Text of, Tensor latents, double sigma, BiConsumer<String, Tensor> afterBlock, Consumer<Part> begins) {
        of.kept.ifPresent(KeptGuidance::begin);
        return Tensors.scoped(() -> {
            Pass pass = pass(of, sigma, begins);
            return Tensors.toFloat32(transformer.model().forward(embedded(of, latents), pass, afterBlock));
        });
    }

    /** Guidance tokens that a pass computes. */
    private int guidanceRows() {
        return text.kept.isPresent() && text.kept.get().complete() ? 0 : layout.guidanceTokens();
    }

    FluxTransformer transformer() {
        return transformer;
    }

    /** What all blocks have in common at a noise level, in the caller's scope. */
    Pass pass(double sigma, Consumer<Part> begins) {
        return pass(text, sigma, begins);
    }

    private Pass pass(Text of, double sigma, Consumer<Part> begins) {
        begins.accept(Part.EMBED);
        Placement placement = transformer.placement();
        Tensor conditioning = Tensors.scoped(() -> torch.silu(placement.place(transformer
                .model()
                .conditioning()
                .forward((float) sigma, guidance, of.pooled, guidanceRows() > 0, placement))));
        return new Pass(
                conditioning,
                rotary,
                attention,
                TokenWise.of(placement, transformer.fp8()),
                layout.textTokens(),
                guidanceRows(),
                of.kept,
                transformer.config(),
                begins);
    }

    /** The hidden state before the first block: [text + image + guidance, width] */
    Tensor embedded(Tensor latents) {
        return embedded(text, latents);
    }

    private Tensor embedded(Text of, Tensor latents) {
        requireShape(
                "latents", latents, layout.imageTokens(), transformer.config().latentChannels());
        return Tensors.scoped(() -> {
            Placement placement = transformer.placement();
            long width = transformer.config().width();
            long[] rows = {layout.textTokens(), layout.imageTokens(), guidanceRows()};
            Tensor hidden = torch.empty(new long[] {LongStream.of(rows).sum(), width}, placement.options(), null);
            hidden.narrow(0, 0, rows[0]).copy_(of.tokens);
            transformer
                    .model()
                    .latentEmbedder()
                    .forward(Matrix.of(placement.place(latents)), 0, hidden.narrow(0, rows[0], rows[1]));
            if (rows[2] > 0) {
                hidden.narrow(0, rows[0] + rows[1], rows[2]).copy_(guidanceTokens);
            }
            return hidden;
        });
    }

    private static void requireShape(String name, Tensor tensor, long... expected) {
        if (!Arrays.equals(tensor.shape(), expected)) {
            throw new IllegalArgumentException(
                    name + " have shape " + Tensors.shape(tensor) + ", expected " + Arrays.toString(expected));
        }
    }

    @Override
    public void close() {
        text.close();
        trueGuidance.ifPresent(guided -> guided.negative.close());
        guidanceTokens.close();
        rotary.close();
    }
}
