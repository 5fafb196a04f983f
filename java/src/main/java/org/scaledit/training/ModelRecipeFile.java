package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.function.IntPredicate;
import org.scaledit.attention.NativeAttention;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.file.Reasons;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.scenes.Mix;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.text.TextEncoders;
import org.scaledit.training.ModelRecipe.Batch;
import org.scaledit.training.ModelRecipe.Clip;
import org.scaledit.training.ModelRecipe.Data;
import org.scaledit.training.ModelRecipe.Distillation;
import org.scaledit.training.ModelRecipe.FewSteps;
import org.scaledit.training.ModelRecipe.Layout;
import org.scaledit.training.ModelRecipe.Method;
import org.scaledit.training.ModelRecipe.Phase;
import org.scaledit.training.ModelRecipe.Recognition;
import org.scaledit.training.ModelRecipe.T5;
import org.scaledit.training.ModelRecipe.Text;
import org.scaledit.training.ModelRecipe.Training;
import org.scaledit.training.ModelRecipe.Transformer;
import org.scaledit.training.ModelRecipe.Vae;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.VaeConfig;

/** Reads a {@link ModelRecipe}, and what a judge's recipe has of the same kind. */
final class ModelRecipeFile {
    private ModelRecipeFile() {}

    static ModelRecipe read(Path file) {
        Config config = Config.read(file);
        int seed = config.integer("seed", 0);
        Data data = data(config.object("data"));
        Config textConfig = config.object("text");
        Text text = text(textConfig);
        int smallest = data.folder().isPresent() ? TokenGrid.PIXELS_PER_TOKEN : SceneRenderer.SMALLEST;
        Vae vae = vae(config.object("vae"), smallest);
        Transformer transformer = transformer(config.object("transformer"), text, vae.tile(), smallest, data);
        Optional<Path> start = config.has("start")
                ? Optional.of(config.file().resolveSibling(config.text("start")))
                : Optional.empty();
        requireTokens(textConfig, text, start, transformer.config());
        config.require(
                start.isPresent() || !text.t5Anew(),
                "text.t5.anew",
                true,
                "false without start, as all of it is new then");
        transformer.distillation().ifPresent(asked -> {
            int most = transformer.config().withoutGuidanceEmbedder().textTokens();
            config.require(text.tokens() <= most, "text.tokens", text.tokens(), most + " or fewer, as start has");
            config.require(start.isPresent(), "transformer.distillation", asked, "none without start, which teaches");
            config.require(
                    text.frozen().isPresent() && isSame(text.frozen().get(), start.orElseThrow()),
                    "text.model",
                    text.frozen().map(Path::toString).orElse("none"),
                    "start, whose text encoders stay beside transformer.distillation");
        });
        start.ifPresent(model -> requireSizes(config, ModelDirectory.open(model), text, vae, transformer));
        config.requireNothingElse();
        return new ModelRecipe(seed, start, data, text, vae, transformer, config.settings());
    }

    private static Data data(Config config) {
        boolean folder = config.has("folder");
        boolean scenes = config.has("scenes");
        if (folder == scenes) {
            throw new CheckpointException(
                    config.file() + " has " + (folder ? "both" : "neither") + " data.folder and data.scenes"
                            + ", expected one of them: a folder of pictures, or how many scenes are composed");
        }
        return folder
                ? new Data(Optional.of(config.file().resolveSibling(config.text("folder"))), 0, 0, Mix.USUAL)
                : new Data(
                        Optional.empty(),
                        config.integer("scenes", 1, Integer.MAX_VALUE),
                        config.integer("first", 0),
                        mix(config));
    }

    private static Mix mix(Config data) {
        if (!data.has("mix")) {
            return Mix.USUAL;
        }
        Config mix = data.object("mix");
        double one = mix.number("one");
        double two = mix.number("two");
        double same = mix.number("same");
        double several = mix.number("several");
        double plain = mix.number("plain");
        try {
            return new Mix(one, two, same, several, plain);
        } catch (IllegalArgumentException e) {
            throw new CheckpointException(data.file() + " has data.mix with " + e.getMessage(), e);
        }
    }

    private static Text text(Config config) {
        int tokens = config.integer("tokens", 1, 512);
        if (config.has("model")) {
            Path model = config.file().resolveSibling(config.text("model"));
            ModelDirectory directory = ModelDirectory.open(model);
            TextEncoders.check(directory);
            return new Text(tokens, Optional.of(model), Clip.of(directory), T5.of(directory), false);
        }
        Config clip = config.object("clip");
        Config t5 = config.object("t5");
        return new Text(
                tokens,
                Optional.empty(),
                new Clip(
                        clip.integer("tokens", 2, 512),
                        multiple(clip, "width", clip.integer("heads", 1, 64)),
                        clip.integer("layers", 1, 48),
                        clip.integer("heads")),
                new T5(
                        multiple(t5, "width", t5.integer("heads", 1, 64)),
                        t5.integer("layers", 1, 48),
                        t5.integer("heads"),
                        t5.integer("hidden", 1, 65_536)),
                t5.has("anew") && t5.flag("anew"));
    }

    /** A picture is made with as many tokens as the encoders' own tokenizer allows. */
    private static void requireTokens(Config config, Text text, Optional<Path> start, FluxConfig flux) {
        text.frozen().or(() -> start).ifPresent(model -> {
            int usual = Math.min(flux.textTokens(), TextEncoders.mostTokens(ModelDirectory.open(model)));
            config.require(
                    text.tokens() == usual,
                    "tokens",
                    text.tokens(),
                    usual + ", as pictures have with " + (text.frozen().isPresent() ? "text.model" : "start"));
        });
    }

    /** Whether two folders, which exist, are one. */
    private static boolean isSame(Path one, Path other) {
        try {
            return Files.isSameFile(one, other);
        } catch (IOException e) {
            throw new CheckpointException("cannot read " + other + ": " + Reasons.of(e), e);
        }
    }

    /** A model that is trained further is what the recipe says. */
    private static void requireSizes(Config config, ModelDirectory start, Text text, Vae vae, Transformer transformer) {
        TextEncoders.check(start);
        AutoencoderKl.check(start.part(ModelFiles.VAE));
        FluxConfig theirs = FluxTransformer.check(start, List.of(), LoraScope.GUIDANCE);
        config.require(
                transformer.distillation().isEmpty() || !theirs.guidanceEmbedder(),
                "start",
                config.text("start"),
                "a model without guidance as an input beside transformer.distillation");
        FluxConfig taught = transformer.distillation().isPresent()
                ? transformer.config().withoutGuidanceEmbedder()
                : transformer.config();
        requireSame(config, "transformer", taught, theirs);
        if (text.frozen().isEmpty()) {
            requireSame(config, "text.clip", text.clip(), Clip.of(start));
            requireSame(config, "text.t5", text.t5(), T5.of(start));
        }
        VaeConfig ofVae = VaeConfig.of(start.config(ModelFiles.VAE));
        requireSame(config, "vae", vae.config(ofVae.scalingFactor(), ofVae.shiftFactor()), ofVae);
    }

    private static void requireSame(Config config, String field, Object recipes, Object theirs) {
        config.require(recipes.equals(theirs), field, recipes, theirs + ", as the model has that is trained further");
    }

    /** @param smallest size of a whole picture */
    private static Vae vae(Config config, int smallest) {
        int groups = config.integer("groups", 1, 64);
        List<Integer> channels = integers(
                config,
                "channels",
                4,
                value -> value > 0 && value % groups == 0,
                "four multiples of groups, " + groups);
        int tile = config.integer("tile", 32, 8192);
        config.require(tile % 32 == 0, "tile", tile, "a multiple of 32");
        Training training = training(config.object("training"), 8);
        int least = training.sizes().stream().reduce(smallest, Math::max);
        List<Integer> sizes = integers(
                config,
                "picture_sizes",
                0,
                value -> value >= least && value <= 8192 && value % 16 == 0,
                "multiples of 16 from " + least + ", which scenes or vae.training.phases need, to 8192");
        return new Vae(
                channels,
                config.integer("layers", 1, 8),
                groups,
                config.flag("attention"),
                tile,
                number(config, "divergence", 0, 1),
                number(config, "gradient", 0, 100),
                sizes,
                training);
    }

    private static Transformer transformer(Config config, Text text, int tile, int smallest, Data data) {
        int headDim = config.integer("head_dim");
        config.require(
                NativeAttention.takesHeadDim(headDim), "head_dim", headDim, "64 or 128, which attention is made for");
        List<Integer> axes = integers(config, "axes", 3, value -> value > 0 && value % 2 == 0, "three even numbers");
        config.require(
                axes.stream().mapToInt(Integer::intValue).sum() == headDim,
                "axes",
                axes,
                "three numbers that add up to head_dim, " + headDim);
        FluxConfig flux = new FluxConfig(
                64,
                config.integer("double_blocks", 1, 64),
                config.integer("single_blocks", 1, 64),
                config.integer("heads", 1, 64),
                headDim,
                text.t5().width(),
                text.clip().width(),
                config.flag("guidance"),
                axes);
        config.require(
                text.tokens() <= flux.textTokens(),
                "guidance",
                flux.guidanceEmbedder(),
                "true, as text.tokens is more than 256");
        String timesteps = config.text("timesteps");
        config.require("timesteps", "logit-normal", "uniform");
        Config how = config.object("training");
        Training training = training(how, 16, method(how));
        training.sizes()
                .forEach(size -> config.require(
                        size >= smallest && size <= tile,
                        "training.phases",
                        size,
                        "sizes from " + smallest + " to vae.tile, " + tile));
        return new Transformer(
                flux,
                number(config, "caption_dropout", 0, 1),
                number(config, "pooled_dropout", 0, 1, 0),
                timesteps.equals("uniform") ? Recipe.Timesteps.UNIFORM : Recipe.Timesteps.LOGIT_NORMAL,
                number(config, "shift", 0.01, 100, 1),
                config.flag("checkpointing"),
                config.has("recognition") ? Optional.of(recognition(config, flux, training, data)) : Optional.empty(),
                config.has("layout") ? Optional.of(layout(config, text, data)) : Optional.empty(),
                config.has("distillation") ? Optional.of(distillation(config, flux)) : Optional.empty(),
                training);
    }

    private static Distillation distillation(Config transformer, FluxConfig flux) {
        Config config = transformer.object("distillation");
        double least = number(config, "least", 1, 100);
        double most = number(config, "most", least, 100);
        transformer.require(
                flux.guidanceEmbedder() || least == most,
                "guidance",
                false,
                "true beside a distillation of several guidance scales");
        if (!config.has("steps") && !config.has("teacher_steps")) {
            return new Distillation(least, most, Optional.empty());
        }
        String decides = " beside distillation.steps, which decide about noise levels";
        String timesteps = transformer.text("timesteps");
        transformer.require(timesteps.equals("uniform"), "timesteps", timesteps, "uniform" + decides);
        transformer.require(!transformer.has("shift"), "shift", transformer.number("shift", 1), "none" + decides);
        return new Distillation(
                least,
                most,
                Optional.of(new FewSteps(config.integer("steps", 1, 1000), config.integer("teacher_steps", 1, 1000))));
    }

    private static Recognition recognition(Config transformer, FluxConfig flux, Training training, Data data) {
        transformer.require(
                data.folder().isEmpty(), "recognition", "true", "none, as only data.scenes tell what they show");
        Config config = transformer.object("recognition");
        return new Recognition(
                config.integer("block", 1, flux.doubleBlocks() + flux.singleBlocks() - 1),
                number(config, "weight", 0, 100),
                number(config, "emphasis", 1, 100),
                config.integer("phases", 1, training.phases().size()));
    }

    private static Layout layout(Config transformer, Text text, Data data) {
        transformer.require(data.folder().isEmpty(), "layout", "true", "none, as only data.scenes tell what they show");
        transformer.require(
                text.frozen().isEmpty(), "layout", "true", "none beside text.model, whose encoders are not trained");
        Config config = transformer.object("layout");
        return new Layout(config.integer("cells", 1, 16), number(config, "weight", 0, 100));
    }

    private static Method method(Config training) {
        if (!training.has("optimizer")) {
            return Method.ADAMW;
        }
        training.require("optimizer", "adamw", "muon");
        return training.text("optimizer").equals("muon") ? Method.MUON : Method.ADAMW;
    }

    /** @param step of which a size is a multiple */
    static Training training(Config config, int step) {
        return training(config, step, Method.ADAMW);
    }

    private static Training training(Config config, int step, Method method) {
        List<Phase> phases = config.objects("phases").stream()
                .map(phase -> phase(phase, step))
                .toList();
        Training training = new Training(
                number(config, "learning_rate", 1e-9, 1),
                number(config, "floor", 0, 1),
                config.integer("warmup_steps", 0, Integer.MAX_VALUE),
                number(config, "weight_decay", 0, 1),
                number(config, "average", 0, 0.999999),
                number(config, "clip_norm", 1e-9, 1e9),
                config.integer("save_every", 1, Integer.MAX_VALUE),
                method,
                phases);
        config.require(
                training.warmupSteps() <= training.steps(),
                "warmup_steps",
                training.warmupSteps(),
                "no more than the steps of all phases, " + training.steps());
        return training;
    }

    /** Its batches are listed, or are all like the one whose fields it has. */
    private static Phase phase(Config config, int step) {
        List<Config> listed = config.has("batches") ? config.objects("batches") : List.of(config);
        List<Batch> batches =
                listed.stream().flatMap(batch -> batches(batch, step).stream()).toList();
        for (Batch batch : batches) {
            for (Batch other : batches) {
                config.require(
                        batch.size() != other.size() || batch.samples() == other.samples(),
                        "samples",
                        other.samples(),
                        batch.samples() + ", as in another batch of the same size");
            }
        }
        return new Phase(batches, config.integer("steps", 1, Integer.MAX_VALUE));
    }

    private static List<Batch> batches(Config config, int step) {
        int size = config.integer("size", 16, 8192);
        config.require(size % step == 0, "size", size, "a multiple of " + step);
        Batch batch = new Batch(size, config.integer("batch", 1, 65_536), config.integer("samples", 0));
        int accumulate =
                config.has("accumulate") ? config.integer("accumulate", 1, 4096) : config.integer("accumulate", 1);
        return Collections.nCopies(accumulate, batch);
    }

    private static int multiple(Config config, String field, int of) {
        int value = config.integer(field, 1, 16_384);
        config.require(value % of == 0, field, value, "a multiple of heads, " + of);
        return value;
    }

    static double number(Config config, String field, double least, double most) {
        return inRange(config, field, config.number(field), least, most);
    }

    /** @param otherwise where there is none */
    private static double number(Config config, String field, double least, double most, double otherwise) {
        return inRange(config, field, config.number(field, otherwise), least, most);
    }

    private static double inRange(Config config, String field, double value, double least, double most) {
        config.require(value >= least && value <= most, field, value, "a number from " + least + " to " + most);
        return value;
    }

    /** @param count how many there must be; 0 for one at least */
    static List<Integer> integers(Config config, String field, int count, IntPredicate each, String expected) {
        List<Integer> values = config.integers(field);
        boolean right = (count == 0 ? !values.isEmpty() : values.size() == count)
                && values.stream().allMatch(each::test);
        config.require(right, field, values, expected);
        return values;
    }
}
