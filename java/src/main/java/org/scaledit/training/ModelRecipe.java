package org.scaledit.training;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.IntPredicate;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.file.Reasons;
import org.scaledit.sampling.Schedule;
import org.scaledit.sampling.TokenGrid;
import org.scaledit.scenes.Mix;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.text.TextEncoders;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.transformer.FluxTransformer;
import org.scaledit.transformer.LoraScope;
import org.scaledit.vae.AutoencoderKl;
import org.scaledit.vae.VaeConfig;

/**
 * What a model that is trained from scratch is made of, and how. Read from a JSON file; {@code tools/demo-model} has one.
 *
 * @param start a model of the same sizes that is trained further: its autoencoder and tokenizers are taken as they are, its
 *     transformer and text encoders to begin with
 * @param data where pictures and captions come from
 * @param settings everything that was read, by the fields' names
 */
public record ModelRecipe(
        long seed,
        Optional<Path> start,
        Data data,
        Text text,
        Vae vae,
        Transformer transformer,
        Map<String, String> settings) {
    private static final String SAVE_EVERY = ".save_every";

    /**
     * One of the two.
     *
     * @param folder of pictures and captions, as {@code train lora} reads it
     * @param scenes that are composed on the way: how many different ones
     * @param mix what they show
     */
    public record Data(Optional<Path> folder, int scenes, Mix mix) {}

    /**
     * Both text encoders.
     *
     * @param tokens T5's length
     * @param frozen a model whose encoders and tokenizers are taken as they are; without one they are trained along
     */
    public record Text(int tokens, Optional<Path> frozen, Clip clip, T5 t5) {}

    /** @param tokens in a text, padding included */
    public record Clip(int tokens, int width, int layers, int heads) {
        static Clip of(ModelDirectory model) {
            Config clip = model.config(ModelFiles.CLIP);
            return new Clip(
                    clip.integer("max_position_embeddings"),
                    clip.integer("hidden_size"),
                    clip.integer("num_hidden_layers"),
                    clip.integer("num_attention_heads"));
        }
    }

    /** @param hidden width of the MLPs */
    public record T5(int width, int layers, int heads, int hidden) {
        static T5 of(ModelDirectory model) {
            Config t5 = model.config(ModelFiles.T5);
            return new T5(t5.integer("d_model"), t5.integer("num_layers"), t5.integer("num_heads"), t5.integer("d_ff"));
        }
    }

    /**
     * The autoencoder, of 16 channels and an eighth of the size.
     *
     * @param channels of the four levels
     * @param layers residual blocks of each level
     * @param groups of every group normalisation
     * @param attention whether the middle blocks attend to all of a tile, as FLUX.1's do; without it the autoencoder is local
     * @param tile side of a picture that is encoded or decoded in one piece
     * @param divergence weight of the Kullback-Leibler divergence in the loss
     * @param gradient weight of the differences between neighbouring pixels in the loss
     * @param pictureSizes sizes of the whole pictures that crops are taken from, equally often
     */
    public record Vae(
            List<Integer> channels,
            int layers,
            int groups,
            boolean attention,
            int tile,
            double divergence,
            double gradient,
            List<Integer> pictureSizes,
            Training training) {

        /** With factors of latents as a transformer takes them. */
        VaeConfig config(double scale, double shift) {
            return new VaeConfig(channels, layers, groups, 16, tile, scale, shift, attention);
        }
    }

    /**
     * The transformer, and the text encoders along with it.
     *
     * @param captionDropout how often a caption is left out
     * @param shift of noise levels, as a schedule has it: more than 1 for more noise, where a picture's composition is decided
     * @param recognition what it learns besides
     * @param distillation what it learns instead of the pictures' own velocities
     */
    public record Transformer(
            FluxConfig config,
            double captionDropout,
            Recipe.Timesteps timesteps,
            double shift,
            boolean checkpointing,
            Optional<Recognition> recognition,
            Optional<Distillation> distillation,
            Training training) {
        /** The noise level of the sample that comes after {@code count} others. */
        double sigma(SampleOrder order, long count) {
            return distillation
                    .flatMap(Distillation::steps)
                    .map(few -> order.sigma(count, few.sigmas()))
                    .orElseGet(() -> shifted(order.sigma(count)));
        }

        /** What a level becomes under the shift. */
        double shifted(double sigma) {
            return shift * sigma / (1 + (shift - 1) * sigma);
        }
    }

    /**
     * To say of each token, from its hidden state, which object it shows and which part of it. A transformer that can say so paints
     * the object far sooner, as one does whose hidden states are held to those of another network that can (REPA, arXiv
     * 2410.06940). Only scenes know what they show.
     *
     * @param block whose input is read, by its number from 0
     * @param weight in the loss
     * @param emphasis how much a token with an object counts in the flow-matching loss, beside one of the background
     * @param phases in the first of which it is done
     */
    public record Recognition(int block, double weight, double emphasis, int phases) {}

    /** What changes the weights. */
    public enum Method {
        ADAMW,
        /** Matrices of a transformer's hidden layers by Muon, all else by AdamW. */
        MUON
    }

    /**
     * To make in one pass the velocity that the model at {@code start} makes in two under true guidance (Meng and others, arXiv
     * 2210.03142; FLUX.1-dev came about so), with the guidance scale as an input if there are several.
     *
     * @param least guidance scale; those of the batches are even between this and {@code most}
     * @param steps fewer, if that is asked for
     */
    public record Distillation(double least, double most, Optional<FewSteps> steps) {}

    /**
     * To go in one step where the teacher goes in several: between two noise levels of a schedule along a straight line to where the
     * teacher comes (piecewise rectified flow: Yan and others, arXiv 2405.07510). The schedule is that of the high-resolution pass,
     * and what is trained has it at any size.
     *
     * @param steps of the schedule
     * @param teacherSteps in each of them
     */
    public record FewSteps(int steps, int teacherSteps) {
        /** Falls from 1 to 0: {@code [steps + 1]}. */
        float[] sigmas() {
            return Schedule.shifted(steps, Schedule.HIGH_RESOLUTION_SHIFT).sigmas();
        }
    }

    /**
     * How a part is trained.
     *
     * @param learningRate its peak
     * @param floor of the learning rate, in parts of the peak
     * @param weightDecay of all weights, as diffusers' scripts have it
     * @param average decay of the weights' moving average, which is what is kept of a training
     * @param clipNorm gradients that are longer in all are shortened to this
     * @param method by which
     * @param saveEvery so many steps a checkpoint and the model are written
     * @param phases one after the other
     */
    public record Training(
            double learningRate,
            double floor,
            int warmupSteps,
            double weightDecay,
            double average,
            double clipNorm,
            int saveEvery,
            Method method,
            List<Phase> phases) {

        /** Of the pictures in all phases. */
        List<Integer> sizes() {
            return phases.stream()
                    .flatMap(phase -> phase.batches.stream())
                    .map(Batch::size)
                    .toList();
        }

        long steps() {
            return phases.stream().mapToLong(Phase::steps).sum();
        }

        /** So many can deal out the batches of every step. */
        void requireRanks(int ranks) {
            if (ranks < 1) {
                throw new IllegalArgumentException("gpus is " + ranks + ", expected 1 or more");
            }
            for (Phase phase : phases) {
                if (phase.batches.size() % ranks != 0) {
                    throw new IllegalArgumentException("a step of a phase has " + phase.batches.size()
                            + " batches, expected a multiple of the " + ranks + " GPUs");
                }
            }
        }

        /** The one that a step, from 1, is in. */
        Phase phase(long step) {
            long before = 0;
            for (Phase phase : phases) {
                before += phase.steps;
                if (step <= before) {
                    return phase;
                }
            }
            throw new IllegalArgumentException("step is " + step + ", expected at most " + before);
        }

        /** Samples of so many steps. */
        long samples(long steps) {
            long samples = 0;
            long left = steps;
            for (Phase phase : phases) {
                samples += Math.min(left, phase.steps) * phase.samplesPerStep();
                left -= Math.min(left, phase.steps);
            }
            return samples;
        }

        LearningRate rate() {
            return new LearningRate(learningRate, floor, warmupSteps, steps());
        }
    }

    /**
     * Steps of the same kind.
     *
     * @param batches of each step, whose gradients count alike; one after the other or, of several ranks, dealt out
     */
    public record Phase(List<Batch> batches, int steps) {
        /** Samples of a step's first batches. */
        long samples(int firstBatches) {
            return batches.stream().limit(firstBatches).mapToLong(Batch::count).sum();
        }

        long samplesPerStep() {
            return samples(batches.size());
        }
    }

    /**
     * Pictures of one size at a time.
     *
     * @param size pixels along each side
     * @param samples how many of the data are used; 0 for all
     */
    public record Batch(int size, int count, int samples) {
        /** How many of so many samples are used. */
        int of(int all) {
            return samples == 0 ? all : Math.min(samples, all);
        }
    }

    /**
     * Reads a recipe.
     *
     * @throws CheckpointException naming the field that is missing, unknown, of the wrong type or out of range, and what is
     *     expected
     */
    public static ModelRecipe read(Path file) {
        Config config = Config.read(file);
        int seed = config.integer("seed", 0);
        Data data = data(config.object("data"));
        Config textConfig = config.object("text");
        Text text = text(textConfig);
        int smallest = data.folder.isPresent() ? TokenGrid.PIXELS_PER_TOKEN : SceneRenderer.SMALLEST;
        Vae vae = vae(config.object("vae"), smallest);
        Transformer transformer = transformer(config.object("transformer"), text, vae.tile, smallest, data);
        Optional<Path> start = config.has("start")
                ? Optional.of(config.file().resolveSibling(config.text("start")))
                : Optional.empty();
        requireTokens(textConfig, text, start, transformer.config);
        transformer.distillation.ifPresent(asked -> {
            int most = transformer.config.withoutGuidanceEmbedder().textTokens();
            config.require(text.tokens <= most, "text.tokens", text.tokens, most + " or fewer, as start has");
            config.require(start.isPresent(), "transformer.distillation", asked, "none without start, which teaches");
            config.require(
                    text.frozen.isPresent() && isSame(text.frozen.get(), start.orElseThrow()),
                    "text.model",
                    text.frozen.map(Path::toString).orElse("none"),
                    "start, whose text encoders stay beside transformer.distillation");
        });
        start.ifPresent(model -> requireSizes(config, ModelDirectory.open(model), text, vae, transformer));
        config.requireNothingElse();
        return new ModelRecipe(seed, start, data, text, vae, transformer, config.settings());
    }

    /** What decides about a stage: the fields that begin with one of {@code parts}, but not how often it is written. */
    Map<String, String> settings(String... parts) {
        return settings(settings, parts);
    }

    static Map<String, String> settings(Map<String, String> all, String... parts) {
        Map<String, String> chosen = new LinkedHashMap<>();
        all.forEach((name, value) -> {
            boolean decides = name.equals("seed");
            for (String part : parts) {
                decides |= name.startsWith(part + ".");
            }
            if (decides && !name.endsWith(SAVE_EVERY)) {
                chosen.put(name, value);
            }
        });
        return chosen;
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
                ? new Data(Optional.of(config.file().resolveSibling(config.text("folder"))), 0, Mix.USUAL)
                : new Data(Optional.empty(), integer(config, "scenes", 1, Integer.MAX_VALUE), mix(config));
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
        int tokens = integer(config, "tokens", 1, 512);
        if (config.has("model")) {
            Path model = config.file().resolveSibling(config.text("model"));
            ModelDirectory directory = ModelDirectory.open(model);
            TextEncoders.check(directory);
            return new Text(tokens, Optional.of(model), Clip.of(directory), T5.of(directory));
        }
        Config clip = config.object("clip");
        Config t5 = config.object("t5");
        return new Text(
                tokens,
                Optional.empty(),
                new Clip(
                        integer(clip, "tokens", 2, 512),
                        multiple(clip, "width", integer(clip, "heads", 1, 64)),
                        integer(clip, "layers", 1, 48),
                        clip.integer("heads")),
                new T5(
                        multiple(t5, "width", integer(t5, "heads", 1, 64)),
                        integer(t5, "layers", 1, 48),
                        t5.integer("heads"),
                        integer(t5, "hidden", 1, 65_536)));
    }

    /** A picture is made with as many tokens as the encoders' own tokenizer allows. */
    private static void requireTokens(Config config, Text text, Optional<Path> start, FluxConfig flux) {
        text.frozen.or(() -> start).ifPresent(model -> {
            int usual = Math.min(flux.textTokens(), TextEncoders.mostTokens(ModelDirectory.open(model)));
            config.require(
                    text.tokens == usual,
                    "tokens",
                    text.tokens,
                    usual + ", as pictures have with " + (text.frozen.isPresent() ? "text.model" : "start"));
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
                transformer.distillation.isEmpty() || !theirs.guidanceEmbedder(),
                "start",
                config.text("start"),
                "a model without guidance as an input beside transformer.distillation");
        FluxConfig taught = transformer.distillation.isPresent()
                ? transformer.config.withoutGuidanceEmbedder()
                : transformer.config;
        requireSame(config, "transformer", taught, theirs);
        if (text.frozen.isEmpty()) {
            requireSame(config, "text.clip", text.clip, Clip.of(start));
            requireSame(config, "text.t5", text.t5, T5.of(start));
        }
        VaeConfig ofVae = VaeConfig.of(start.config(ModelFiles.VAE));
        requireSame(config, "vae", vae.config(ofVae.scalingFactor(), ofVae.shiftFactor()), ofVae);
    }

    private static void requireSame(Config config, String field, Object recipes, Object theirs) {
        config.require(recipes.equals(theirs), field, recipes, theirs + ", as the model has that is trained further");
    }

    /** @param smallest size of a whole picture */
    private static Vae vae(Config config, int smallest) {
        int groups = integer(config, "groups", 1, 64);
        List<Integer> channels = integers(
                config,
                "channels",
                4,
                value -> value > 0 && value % groups == 0,
                "four multiples of groups, " + groups);
        int tile = integer(config, "tile", 32, 8192);
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
                integer(config, "layers", 1, 8),
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
        config.require(headDim == 64 || headDim == 128, "head_dim", headDim, "64 or 128, which attention is made for");
        List<Integer> axes = integers(config, "axes", 3, value -> value > 0 && value % 2 == 0, "three even numbers");
        config.require(
                axes.stream().mapToInt(Integer::intValue).sum() == headDim,
                "axes",
                axes,
                "three numbers that add up to head_dim, " + headDim);
        FluxConfig flux = new FluxConfig(
                64,
                integer(config, "double_blocks", 1, 64),
                integer(config, "single_blocks", 1, 64),
                integer(config, "heads", 1, 64),
                headDim,
                text.t5.width,
                text.clip.width,
                config.flag("guidance"),
                axes);
        config.require(
                text.tokens <= flux.textTokens(),
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
                timesteps.equals("uniform") ? Recipe.Timesteps.UNIFORM : Recipe.Timesteps.LOGIT_NORMAL,
                config.has("shift") ? number(config, "shift", 0.01, 100) : config.number("shift", 1),
                config.flag("checkpointing"),
                config.has("recognition") ? Optional.of(recognition(config, flux, training, data)) : Optional.empty(),
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
                Optional.of(
                        new FewSteps(integer(config, "steps", 1, 1000), integer(config, "teacher_steps", 1, 1000))));
    }

    private static Recognition recognition(Config transformer, FluxConfig flux, Training training, Data data) {
        transformer.require(
                data.folder.isEmpty(), "recognition", "true", "none, as only data.scenes tell what they show");
        Config config = transformer.object("recognition");
        return new Recognition(
                integer(config, "block", 1, flux.doubleBlocks() + flux.singleBlocks() - 1),
                number(config, "weight", 0, 100),
                number(config, "emphasis", 1, 100),
                integer(config, "phases", 1, training.phases.size()));
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
                integer(config, "warmup_steps", 0, Integer.MAX_VALUE),
                number(config, "weight_decay", 0, 1),
                number(config, "average", 0, 0.999999),
                number(config, "clip_norm", 1e-9, 1e9),
                integer(config, "save_every", 1, Integer.MAX_VALUE),
                method,
                phases);
        config.require(
                training.warmupSteps <= training.steps(),
                "warmup_steps",
                training.warmupSteps,
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
                        batch.size != other.size || batch.samples == other.samples,
                        "samples",
                        other.samples,
                        batch.samples + ", as in another batch of the same size");
            }
        }
        return new Phase(batches, integer(config, "steps", 1, Integer.MAX_VALUE));
    }

    private static List<Batch> batches(Config config, int step) {
        int size = integer(config, "size", 16, 8192);
        config.require(size % step == 0, "size", size, "a multiple of " + step);
        Batch batch = new Batch(size, integer(config, "batch", 1, 65_536), config.integer("samples", 0));
        int accumulate =
                config.has("accumulate") ? integer(config, "accumulate", 1, 4096) : config.integer("accumulate", 1);
        return Collections.nCopies(accumulate, batch);
    }

    static int integer(Config config, String field, int least, int most) {
        int value = config.integer(field);
        boolean bounded = most < Integer.MAX_VALUE;
        config.require(
                value >= least && value <= most,
                field,
                value,
                bounded ? "an integer from " + least + " to " + most : "an integer, " + least + " or more");
        return value;
    }

    private static int multiple(Config config, String field, int of) {
        int value = integer(config, field, 1, 16_384);
        config.require(value % of == 0, field, value, "a multiple of heads, " + of);
        return value;
    }

    static double number(Config config, String field, double least, double most) {
        double value = config.number(field);
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
