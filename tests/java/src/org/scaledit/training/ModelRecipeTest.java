package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.testing.TinyModel;

class ModelRecipeTest {
    @TempDir
    Path folder;

    private ModelRecipe read(String json) throws IOException {
        return ModelRecipe.read(Files.writeString(folder.resolve("model.json"), json));
    }

    @Test
    void saysWhatAModelIsMadeOfAndHowItIsTrained() throws IOException {
        ModelRecipe recipe = read(TinyModel.CONFIG);
        assertThat(recipe.seed()).isEqualTo(3);
        assertThat(recipe.data().folder()).contains(folder.resolve("data"));
        assertThat(recipe.transformer().config().width()).isEqualTo(64);
        assertThat(recipe.transformer().config().jointWidth()).isEqualTo(16);
        ModelRecipe.Training training = recipe.transformer().training();
        assertThat(training.steps()).isEqualTo(8);
        assertThat(training.phase(4).batches().get(0).size()).isEqualTo(32);
        assertThat(training.phase(5).batches().get(0).size()).isEqualTo(64);
        assertThat(training.samples(6)).isEqualTo(4 * 3 + 2 * 2 * 2);
        assertThat(training.phase(5).batches().get(0).of(10)).isEqualTo(3);
        assertThat(training.phase(1).batches().get(0).of(10)).isEqualTo(10);
        assertThat(recipe.settings("vae"))
                .containsEntry("seed", "3")
                .containsEntry("vae.training.phases[0].accumulate", "1") // what was taken instead
                .containsEntry("vae.channels", "[8, 8, 16, 16]")
                .doesNotContainKey("vae.training.save_every")
                .doesNotContainKey("text.tokens");
    }

    /** Those that are committed; what ships may be trained further by the first, and be the teacher of the second. */
    @Test
    void theDemoModelsRecipesAreSome() throws IOException {
        Path demo = Path.of("../../tools/demo-model");
        ModelRecipe recipe = ModelRecipe.read(demo.resolve("model.json"));
        assertThat(recipe.transformer().config().width()).isEqualTo(256);
        assertThat(recipe.data().scenes()).isPositive();
        Path weights = demo.toRealPath().resolve("weights");
        ModelRecipe further = read("{\"start\": \"" + weights + "\","
                + Files.readString(demo.resolve("model.json")).substring(1));
        assertThat(further.transformer().config())
                .isEqualTo(recipe.transformer().config());
        ModelRecipe fewSteps =
                read(Files.readString(demo.resolve("few-steps.json")).replace(": \"model\"", ": \"" + weights + "\""));
        assertThat(fewSteps.transformer().config())
                .isEqualTo(recipe.transformer().config());
        assertThat(fewSteps.transformer().distillation()).isPresent();
        for (int gpus : new int[] {1, 2, 4}) { // tools/demo-model/train DIR 4
            recipe.vae().training().requireRanks("vae", gpus);
            for (ModelRecipe shared : List.of(recipe, fewSteps)) {
                shared.transformer().training().requireRanks("transformer", gpus);
            }
        }
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            "seed": 3, | "seed": 3, "sede": 4, | has sede, expected none but seed, data, text, vae, transformer, start
            "layers": 1, "heads": 2} | "layers": 1, "heads": 2, "size": 3} | has text.clip.size, expected none but tokens, heads, width, layers
            "batch": 2, "steps": 3} | "batch": 2, "stebs": 3} | has no field vae.training.phases[0].steps, expected a non-negative integer
            "channels": [8, 8, 16, 16] | "channels": [8, 8, 16] | has vae.channels [8, 8, 16], expected four multiples of groups, 4
            {"size": 32, "batch": 3, "steps": 4} | {"batches": [{"size": 32, "batch": 1}, {"size": 32, "batch": 1, "samples": 5}], "steps": 4} | has transformer.training.phases[0].samples 5, expected 0, as in another batch of the same size
            {"size": 32, "batch": 3, "steps": 4} | {"batches": [{"size": 32, "batch": 1}], "size": 32, "steps": 4} | has transformer.training.phases[0].size, expected none but batches, steps
            "attention": true, | "attention": 1, | has vae.attention 1, expected true or false
            "channels": [8, 8, 16, 16] | "channels": "wide" | has vae.channels "wide", expected a list of non-negative integers
            "tile": 64 | "tile": 40 | has vae.tile 40, expected a multiple of 32
            "tile": 64 | "tile": 32 | has transformer.training.phases 64, expected sizes from 16 to vae.tile, 32
            "gradient": 0.5 | "gradient": -1 | has vae.gradient -1.0, expected a number from 0.0 to 100.0
            "picture_sizes": [64, 80] | "picture_sizes": [48] | has vae.picture_sizes [48], expected multiples of 16 from 64, which scenes or vae.training.phases need, to 8192
            "head_dim": 64 | "head_dim": 32 | has transformer.head_dim 32, expected 64 or 128, which attention is made for
            "axes": [16, 24, 24] | "axes": [16, 24, 26] | has transformer.axes [16, 24, 26], expected three numbers that add up to head_dim, 64
            "guidance": false | "guidance": 1 | has transformer.guidance 1, expected true or false
            "tokens": 12 | "tokens": 300 | has transformer.guidance false, expected true, as text.tokens is more than 256
            "caption_dropout": 0.2 | "caption_dropout": 2 | has transformer.caption_dropout 2.0, expected a number from 0.0 to 1.0
            "caption_dropout": 0.2 | "caption_dropout": 0.2, "pooled_dropout": -1 | has transformer.pooled_dropout -1.0, expected a number from 0.0 to 1.0
            "timesteps": "logit-normal" | "timesteps": "logit-normal", "recognition": {"block": 1, "weight": 0.1, "emphasis": 3, "phases": 1} | has transformer.recognition true, expected none, as only data.scenes tell what they show
            "timesteps": "logit-normal" | "timesteps": "logit-normal", "layout": {"cells": 2, "weight": 1} | has transformer.layout true, expected none, as only data.scenes tell what they show
            "heads": 2, "hidden": 32} | "heads": 2, "hidden": 32, "anew": true} | has text.t5.anew true, expected false without start, as all of it is new then
            "timesteps": "logit-normal" | "timesteps": "logit-normal", "shift": 0 | has transformer.shift 0.0, expected a number from 0.01 to 100.0
            "timesteps": "logit-normal" | "timesteps": "normal" | has transformer.timesteps normal, expected logit-normal or uniform
            "size": 32, "batch": 3 | "size": 40, "batch": 3 | has transformer.training.phases[0].size 40, expected a multiple of 16
            "size": 32, "batch": 3 | "size": 32, "batch": 0 | has transformer.training.phases[0].batch 0, expected an integer from 1 to 65536
            {"folder": "data"} | {"scenes": 9} | has transformer.training.phases 32, expected sizes from 64 to vae.tile, 64
            {"folder": "data"} | {} | has neither data.folder and data.scenes, expected one of them: a folder of pictures, or how many scenes are composed
            {"folder": "data"} | {"folder": "data", "scenes": 3} | has both data.folder and data.scenes, expected one of them: a folder of pictures, or how many scenes are composed
            {"folder": "data"} | {"scenes": 9, "mix": {"one": 0.5, "two": 0.3, "same": 0.2, "several": 0.1, "plain": 0}} | has data.mix with one, two, same and several that add up to 1.1, expected 1
            {"folder": "data"} | {"scenes": 9, "mix": {"one": -0.1, "two": 0.8, "same": 0.2, "several": 0.1, "plain": 0}} | has data.mix with -0.1, expected shares from 0 to 1
            {"folder": "data"} | {"scenes": 9, "first": -1} | has data.first -1, expected a non-negative integer
            {"folder": "data"} | {"folder": "data", "first": 9} | has data.first, expected none but folder, scenes
            {"folder": "data"} | {"scenes": 9, "mix": {"one": 0.5, "two": 0.3, "same": 0.1, "several": 0.1}} | has no field data.mix.plain, expected a number
            {"folder": "data"} | {"folder": "data", "mix": {"one": 1, "two": 0, "same": 0, "several": 0, "plain": 0}} | has data.mix, expected none but folder, scenes
            {"folder": "data"} | "data" | has data "data", expected an object
            """)
    void whatIsWrongIsNamed(String right, String wrong, String message) throws IOException {
        assertThat(TinyModel.CONFIG).contains(right);
        assertThatThrownBy(() -> read(TinyModel.CONFIG.replace(right, wrong)))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("model.json") + " " + message);
    }

    @Test
    void whatAMixSaysIsTheCause() {
        String mix = "{\"scenes\": 9, \"mix\": {\"one\": 2, \"two\": 0, \"same\": 0, \"several\": 0, \"plain\": 0}}";
        assertThatThrownBy(() -> read(TinyModel.CONFIG.replace("{\"folder\": \"data\"}", mix)))
                .hasCauseInstanceOf(IllegalArgumentException.class);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            "cells": 2 | "cells": 17 | cells 17, expected an integer from 1 to 16
            "weight": 0.2 | "weight": -1 | weight -1.0, expected a number from 0.0 to 100.0
            "weight": 0.2 | "weight": 0.2, "heads": 2 | heads, expected none but cells, weight
            """)
    void whatIsWrongWithLayoutIsNamed(String right, String wrong, String message) throws IOException {
        assertThat(read(TinyModel.RECOGNISING).transformer().layout()).contains(new ModelRecipe.Layout(2, 0.2));
        assertThatThrownBy(() -> read(TinyModel.RECOGNISING.replace(right, wrong)))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("model.json") + " has transformer.layout." + message);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            "block": 1 | "block": 2 | block 2, expected an integer from 1 to 1
            "weight": 0.1 | "weight": -1 | weight -1.0, expected a number from 0.0 to 100.0
            "emphasis": 3 | "emphasis": 0.5 | emphasis 0.5, expected a number from 1.0 to 100.0
            "phases": 1 | "phases": 3 | phases 3, expected an integer from 1 to 2
            """)
    void whatIsWrongWithRecognitionIsNamed(String right, String wrong, String message) throws IOException {
        ModelRecipe.Recognition recognition =
                read(TinyModel.RECOGNISING).transformer().recognition().orElseThrow();
        assertThat(recognition).isEqualTo(new ModelRecipe.Recognition(1, 0.1, 3, 1));
        assertThatThrownBy(() -> read(TinyModel.RECOGNISING.replace(right, wrong)))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("model.json") + " has transformer.recognition." + message);
    }

    @Test
    void theOptimizerIsAdamWOrMuon() throws IOException {
        assertThat(read(TinyModel.CONFIG).transformer().training().method()).isEqualTo(ModelRecipe.Method.ADAMW);
        assertThat(read(TinyModel.RECOGNISING).transformer().training().method())
                .isEqualTo(ModelRecipe.Method.MUON);
        assertThatThrownBy(() -> read(TinyModel.RECOGNISING.replace("muon", "sgd")))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(folder.resolve("model.json")
                        + " has transformer.training.optimizer sgd, expected adamw or muon");
        assertThatThrownBy(() -> read(
                        TinyModel.CONFIG.replace("\"save_every\": 3,", "\"save_every\": 3, \"optimizer\": \"muon\",")))
                .isInstanceOf(CheckpointException.class)
                .hasMessageStartingWith(
                        folder.resolve("model.json") + " has vae.training.optimizer, expected none but ");
    }

    @Test
    void noiseLevelsAreShiftedAsThoseOfASchedule() throws IOException {
        assertThat(read(TinyModel.CONFIG).transformer().shifted(0.3)).isEqualTo(0.3);
        ModelRecipe.Transformer shifted = read(TinyModel.CONFIG.replace(
                        "\"timesteps\": \"logit-normal\"", "\"timesteps\": \"logit-normal\", \"shift\": 3"))
                .transformer();
        assertThat(shifted.shifted(0)).isZero();
        assertThat(shifted.shifted(0.5)).isCloseTo(0.75, within(1e-12));
        assertThat(shifted.shifted(1)).isEqualTo(1);
    }

    @Test
    void aWarmUpIsNoLongerThanTheTraining() {
        assertThatThrownBy(() -> read(TinyModel.CONFIG.replace("\"warmup_steps\": 2", "\"warmup_steps\": 7")))
                .hasMessageEndingWith(
                        "has vae.training.warmup_steps 7, expected no more than the steps of all phases, 6");
    }

    @Test
    void theLearningRateRisesAndFallsAlongHalfACosine() {
        LearningRate rate = new LearningRate(2e-3, 0.1, 4, 24);
        assertThat(rate.applyAsDouble(1)).isEqualTo(5e-4);
        assertThat(rate.applyAsDouble(4)).isEqualTo(2e-3);
        assertThat(rate.applyAsDouble(14)).isCloseTo(1.1e-3, within(1e-12)); // half way: the mean of peak and floor
        assertThat(rate.applyAsDouble(24)).isCloseTo(2e-4, within(1e-12));
        assertThat(new LearningRate(1, 0, 0, 1).applyAsDouble(1)).isCloseTo(0, within(1e-12));
        assertThat(PartTraining.decay(0.999, 1)).isEqualTo(2.0 / 11);
        assertThat(PartTraining.decay(0.999, 1_000_000)).isEqualTo(0.999);
    }

    private static org.assertj.core.data.Offset<Double> within(double limit) {
        return org.assertj.core.data.Offset.offset(limit);
    }
}
