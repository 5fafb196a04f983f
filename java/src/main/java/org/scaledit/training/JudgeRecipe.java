package org.scaledit.training;

import java.nio.file.Path;
import java.util.Map;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.judge.DetectorConfig;
import org.scaledit.scenes.Vocabulary;

/**
 * What a judge of scenes is made of, and how it is trained. Read from a JSON file; {@code tools/demo-model} has one.
 *
 * @param scenes that are composed on the way: how many different ones
 * @param blur how often a picture is blurred, as a model's pictures may be
 * @param noise largest deviation of the noise that is added to a picture, likewise
 * @param exam scenes of each probe that it is examined with at the end
 * @param settings that decide about what is trained, by the fields' names
 */
public record JudgeRecipe(
        long seed,
        int scenes,
        DetectorConfig network,
        double blur,
        double noise,
        int exam,
        ModelRecipe.Training training,
        Map<String, String> settings) {
    /**
     * Reads a recipe.
     *
     * @param vocabulary the objects to tell apart
     * @throws CheckpointException naming the field that is missing, unknown, of the wrong type or out of range, and what is
     *     expected
     */
    public static JudgeRecipe read(Path file, Vocabulary vocabulary) {
        Config config = Config.read(file);
        int seed = config.integer("seed", 0);
        int scenes = config.object("data").integer("scenes", 1, Integer.MAX_VALUE);
        DetectorConfig network = DetectorConfig.read(config.object("network"), vocabulary);
        Config augmentation = config.object("augmentation");
        double blur = ModelRecipeFile.number(augmentation, "blur", 0, 1);
        double noise = ModelRecipeFile.number(augmentation, "noise", 0, 1);
        int exam = config.integer("exam", 1, 1_000_000);
        ModelRecipe.Training training = ModelRecipeFile.training(config.object("training"), network.stride());
        training.sizes()
                .forEach(size -> config.require(
                        size == network.size(), "training.phases", size, "network.size, " + network.size()));
        config.requireNothingElse();
        Map<String, String> settings = ModelRecipe.settings(config.settings(), "network", "augmentation", "training");
        return new JudgeRecipe(seed, scenes, network, blur, noise, exam, training, settings);
    }
}
