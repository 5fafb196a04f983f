package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.file.Reasons;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.sampling.PictureSampler;
import org.scaledit.sampling.Plan;
import org.scaledit.sampling.Prompt;
import org.scaledit.sampling.SamplingListener;
import org.scaledit.sampling.SeededNoise;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.Latents;

/** Makes pictures under a LoRA in training. The VAE is loaded for them and released: training does not need it. */
final class SamplePainter {
    private final LoraTraining.Run run;
    private final LoraTraining.Samples samples;
    private final ModelDirectory model;
    private final FluxTransformer plain;
    private final FluxTransformer trained;
    private final TrainingSet texts;

    /** @param texts has the states of the prompts */
    SamplePainter(
            LoraTraining.Run run,
            LoraTraining.Samples samples,
            ModelDirectory model,
            FluxTransformer plain,
            FluxTransformer trained,
            TrainingSet texts) {
        this.run = run;
        this.samples = samples;
        this.model = model;
        this.plain = plain;
        this.trained = trained;
        this.texts = texts;
    }

    /** Whether a step has pictures. */
    boolean isDue(long step) {
        return step % samples.every() == 0;
    }

    /** The pictures of a step that has some. */
    void paint(long step) {
        try {
            Files.createDirectories(run.samplesFolder());
        } catch (IOException e) {
            throw new TrainingException("folder " + run.samplesFolder() + " cannot be made: " + Reasons.of(e), e);
        }
        try (AutoencoderKl vae = AutoencoderKl.load(model.part("vae"), run.placement())) {
            for (int prompt = 0; prompt < samples.prompts().size(); prompt++) {
                String name = String.format(Locale.ROOT, "step-%06d-%d.png", step, prompt + 1);
                paint(samples.prompts().get(prompt), vae, run.samplesFolder().resolve(name), step);
            }
        }
    }

    private void paint(String prompt, AutoencoderKl vae, Path file, long step) {
        Plan plan = plan();
        TokenGrid grid = plan.grid();
        Pixels pixels = new Pixels(grid.pixelWidth(), grid.pixelHeight());
        Tensors.withoutGradients(() -> Tensors.run(() -> {
            Tensor latents = PictureSampler.sample(
                    new PictureSampler.Models(model, plain, trained, vae),
                    plan,
                    Prompt.of(texts.text(prompt)),
                    new SeededNoise(run.recipe().seed()),
                    new Interruptible(step));
            Tensor raw = Latents.unscale(
                    Latents.unpack(Placement.FLOAT32_CPU.place(latents), grid.height(), grid.width()), vae.config());
            vae.decode(raw, (tiles, all) -> TrainingLoop.throwIfInterruptedAfter(step), pixels::put);
        }));
        PngFile.write(file, pixels, Map.of("Description", prompt));
    }

    private Plan plan() {
        Recipe recipe = run.recipe();
        return new Plan(
                TokenGrid.ofPixels(recipe.resolution(), recipe.resolution()),
                1,
                recipe.window(),
                switch (recipe.attention()) {
                    case NATIVE -> Plan.Backend.NATIVE_EXACT;
                    case DENSE -> Plan.Backend.DENSE;
                },
                samples.steps(),
                (float) samples.guidance(),
                samples.guideSteps(),
                (float) samples.guideGuidance(),
                Optional.empty(),
                OptionalDouble.empty());
    }

    /** Stops within a block. */
    private record Interruptible(long step) implements SamplingListener {
        @Override
        public void betweenBlocks() {
            TrainingLoop.throwIfInterruptedAfter(step);
        }
    }
}
