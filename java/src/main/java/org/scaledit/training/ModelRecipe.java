package org.scaledit.training;

import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.sampling.Schedule;
import org.scaledit.scenes.Mix;
import org.scaledit.transformer.FluxConfig;
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
     * @param first of their numbers: the same scene has the same number in every training
     * @param mix what they show
     */
    public record Data(Optional<Path> folder, int scenes, int first, Mix mix) {}

    /**
     * Both text encoders.
     *
     * @param tokens T5's length
     * @param frozen a model whose encoders and tokenizers are taken as they are; without one they are trained along
     * @param t5Anew whether T5 begins with random weights where a model is trained further
     */
    public record Text(int tokens, Optional<Path> frozen, Clip clip, T5 t5, boolean t5Anew) {}

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

        int headDim() {
            return width / heads;
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
     * @param pooledDropout how often CLIP's encoder alone is given none. Its summary acts on all tokens alike, says early in
     *     training what there is, and leaves T5's tokens unread, which alone can say what belongs where; each encoder of Stable
     *     Diffusion 3 was left out in 46.4 % (arXiv 2403.03206)
     * @param shift of noise levels, as a schedule has it: more than 1 for more noise, where a picture's composition is decided
     * @param recognition what it learns besides
     * @param layout what its T5 encoder does
     * @param distillation what it learns instead of the pictures' own velocities
     */
    public record Transformer(
            FluxConfig config,
            double captionDropout,
            double pooledDropout,
            Recipe.Timesteps timesteps,
            double shift,
            boolean checkpointing,
            Optional<Recognition> recognition,
            Optional<Layout> layout,
            Optional<Distillation> distillation,
            Training training) {
        /** What a distillation asks for. */
        Optional<FewSteps> fewSteps() {
            return distillation.flatMap(Distillation::steps);
        }

        /** The noise level of the sample that comes after {@code count} others. */
        double sigma(SampleOrder order, long count) {
            return fewSteps().map(few -> order.sigma(count, few.sigmas())).orElseGet(() -> shifted(order.sigma(count)));
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
     * @param emphasis how much a token with an object counts in the flow-matching loss, beside one of the background, where there
     *     is no noise: 1 + (emphasis − 1) (1 − σ)². Where nobody knows yet where objects will be, tokens that count more the
     *     more of them they show would have too many of them painted
     * @param phases in the first of which it is done
     */
    public record Recognition(int block, double weight, double emphasis, int phases) {}

    /**
     * To say from T5's states alone which object is in each cell of a grid over the picture. What a sentence says of left and right
     * is little of a picture's loss; an encoder that is asked for it has it in a few hundred steps. Only scenes know what they show.
     *
     * @param cells along each side of the grid
     * @param weight in the loss
     */
    public record Layout(int cells, double weight) {}

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

        /** The most batches that a step has. */
        int mostBatches() {
            return phases.stream().mapToInt(phase -> phase.batches.size()).max().orElseThrow();
        }

        /**
         * So many can deal out the batches of every step.
         *
         * @param part that is trained, for the message
         */
        void requireRanks(String part, int ranks) {
            if (ranks < 1) {
                throw new IllegalArgumentException("gpus is " + ranks + ", expected 1 or more");
            }
            for (Phase phase : phases) {
                if (phase.batches.size() % ranks != 0) {
                    throw new IllegalArgumentException("a step of a phase of " + part + " has " + phase.batches.size()
                            + " batches, expected a multiple of the " + ranks + " GPUs");
                }
            }
        }

        /** Before the first one of a phase. */
        long stepsBefore(Phase phase) {
            return phases.stream()
                    .takeWhile(each -> each != phase)
                    .mapToLong(Phase::steps)
                    .sum();
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

        /**
         * How many come before a step's batch in the order of its size: of its phase those of the same size, so that each size has
         * every one of its samples once in an epoch, and of earlier phases all.
         *
         * @param step from 1, in the phase
         * @param number of the batch
         */
        long samplesBefore(Phase phase, long step, int number) {
            long earlier = stepsBefore(phase);
            int size = phase.batches.get(number).size;
            return samples(earlier)
                    + (step - 1 - earlier) * phase.samplesOf(size, phase.batches.size())
                    + phase.samplesOf(size, number);
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

        /** Those of one size alone. */
        long samplesOf(int size, int firstBatches) {
            return batches.stream()
                    .limit(firstBatches)
                    .filter(batch -> batch.size == size)
                    .mapToLong(Batch::count)
                    .sum();
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
        return ModelRecipeFile.read(file);
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
}
