package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.scaledit.cli.Outcome.run;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.image.Pixels;
import org.scaledit.image.PngFile;
import org.scaledit.image.PngText;
import org.scaledit.testing.Drawings;
import org.scaledit.testing.Golden;
import org.scaledit.testing.ModelJar;
import org.scaledit.testing.OtherJvm;

class MainTest {
    private static final String TINY = Golden.tinyFlux().toString();

    @TempDir
    static Path folder;

    /** A small picture with few steps. */
    private static Outcome generate(String... more) {
        return prompted("--width 64 --height 48 --steps 1 --guide-steps 1 --seed 5".split(" "), more);
    }

    private static Outcome prompted(String[] options, String... more) {
        List<String> arguments = new ArrayList<>(List.of("generate", "a lighthouse at dusk", "--model", TINY));
        arguments.addAll(List.of(options));
        arguments.addAll(List.of(more));
        return run(arguments.toArray(String[]::new));
    }

    @Test
    void severalPicturesHaveSeedsAndNumbersInARow() throws IOException {
        String[] small = "--width 64 --height 48 --steps 1 --guide-steps 1".split(" ");
        Path files = folder.resolve("dusk.png");
        assertThat(generate("--count", "2", "--quiet", "-o", files.toString()).err())
                .isEmpty();
        prompted(small, "--seed", "6", "-o", folder.resolve("six.png").toString());
        assertThat(files).doesNotExist();
        assertThat(folder.resolve("dusk-1.png")).exists();
        assertThat(Files.mismatch(folder.resolve("dusk-2.png"), folder.resolve("six.png")))
                .isEqualTo(-1);
        assertThat(generate("--count", "0", "-o", files.toString()).err())
                .isEqualToIgnoringNewLines("scaledit: count is 0, expected 1 to 1000000");
        assertThat(generate("--count", "2", "--trace", folder.resolve("t").toString(), "-o", files.toString())
                        .err())
                .isEqualToIgnoringNewLines("scaledit: a trace is given for 2 pictures, expected --count 1");
        assertThat(prompted(small, "--count", "2", "--seed", String.valueOf(Long.MAX_VALUE), "-o", files.toString())
                        .err())
                .isEqualToIgnoringNewLines(
                        "scaledit: seed is 9223372036854775807, expected at most 9223372036854775805 for 2 pictures");
    }

    @Test
    void severalHostsPaintTogetherAndTheFirstOneWrites() throws IOException, InterruptedException {
        String[] command = ("generate dusk --width 512 --height 256 --steps 1 --guide-steps 1 --quiet --nnodes 2"
                        + " --master-addr localhost --master-port " + OtherJvm.freePort() + " --model " + TINY)
                .split(" ");
        Path said = folder.resolve("said.txt");
        Path other = folder.resolve("host1.png");
        Process second = OtherJvm.of(Main.class, with(command, "--node-rank", "1", "-o", other.toString()))
                .redirectOutput(said.toFile())
                .start();
        Path picture = folder.resolve("host0.png");
        Outcome first = run(with(command, "--node-rank", "0", "-o", picture.toString()));
        assertThat(first.err()).isEmpty();
        assertThat(first.status()).isZero();
        assertThat(second.waitFor()).isZero();
        assertThat(Files.readAllLines(said).stream().filter(line -> !line.startsWith("[Gloo]")))
                .containsExactly("host 1 of 2 has done its part, host 0 writes what was asked for");
        assertThat(picture).exists();
        assertThat(other).doesNotExist();
    }

    private static String[] with(String[] command, String... more) {
        return Stream.of(command, more).flatMap(Stream::of).toArray(String[]::new);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--node-rank 1 | node-rank is given, expected --nnodes N beside it",
                "--master-addr a | master-addr is given, expected --nnodes N beside it",
                "--nnodes 2 | nnodes is 2, expected --node-rank N beside it",
                "--nnodes 2 --node-rank 0 | nnodes is 2, expected --master-addr HOST beside it",
                "--nnodes 2 --node-rank 2 --master-addr a | host 2 of 2 is given, expected 0 to 1",
                "--nnodes 0 | number of hosts is 0, expected 1 or more"
            })
    void hostsThatAreNotNamedInFullAreRefused(String options, String sentence) {
        Outcome outcome = generate(options.split(" "));
        assertThat(outcome.err()).isEqualToIgnoringNewLines("scaledit: " + sentence);
        assertThat(outcome.status()).isEqualTo(2);
    }

    @Test
    void picturesOfSeveralHostsHaveAGivenSeed() {
        String[] options = "--count 2 --nnodes 2 --node-rank 0 --master-addr a".split(" ");
        assertThat(prompted(options).err())
                .isEqualToIgnoringNewLines(
                        "scaledit: no seed is given for 2 pictures of several hosts, expected --seed N");
    }

    @Test
    void makesAPictureAndTheSameOneAgain() throws IOException {
        Path first = folder.resolve("first.png");
        Path again = folder.resolve("again.png");
        Outcome outcome = generate("-o", first.toString());
        assertThat(outcome.err()).contains("high resolution 1/1");
        assertThat(outcome.status()).isZero();
        Outcome repeated = run("generate", "--from", first.toString(), "-o", again.toString(), "--quiet");
        assertThat(repeated.err()).isEmpty();
        assertThat(repeated.status()).isZero();
        assertThat(Files.mismatch(first, again)).isEqualTo(-1);
    }

    @Test
    void aSeedIsNotIgnoredForTheNoiseOfAPicture() {
        Path first = folder.resolve("of-a-seed.png");
        Path noisy = folder.resolve("of-noise.png");
        generate("-o", first.toString(), "--quiet");
        String settings =
                PngText.read(first, "scaledit").replaceFirst("}$", ",\"noise\":\"/there/noise.safetensors\"}");
        PngFile.write(noisy, new Pixels(1, 1), Map.of("scaledit", settings));
        Outcome outcome = run("generate", "--from", noisy.toString(), "--seed", "6", "-o", first.toString());
        assertThat(outcome.err())
                .isEqualToIgnoringNewLines("scaledit: --seed is given with --from " + noisy
                        + ", made of the noise in /there/noise.safetensors, expected none: noise is what a seed draws");
        assertThat(outcome.status()).isEqualTo(2);
    }

    @Test
    void aPromptThatBeginsWithAnAtIsNoFileOfArguments() throws IOException {
        Path arguments = Files.writeString(folder.resolve("arguments"), "a fox");
        Path picture = folder.resolve("at.png");
        run(("generate @" + arguments + " --width 64 --height 48 --steps 1 --guide-steps 1 --model " + TINY + " -o "
                        + picture)
                .split(" "));
        assertThat(run("info", picture.toString()).out()).contains("\"@" + arguments + "\"");
    }

    @Test
    void anOptionBesideFromReplacesItsOwn() throws IOException {
        Path first = folder.resolve("seed5.png");
        Path other = folder.resolve("seed6.png");
        generate("-o", first.toString());
        assertThat(run("generate", "--from", first.toString(), "--seed", "6", "-o", other.toString(), "--quiet")
                        .status())
                .isZero();
        assertThat(run("info", other.toString()).out()).contains("\"seed\" : 6");
        assertThat(Files.mismatch(first, other)).isNotEqualTo(-1);
        run(("generate --from " + first + " --negative dull --true-guidance 2 --quiet -o " + other).split(" "));
        assertThat(run("info", other.toString()).out()).contains("\"negative\" : \"dull\"", "\"trueGuidance\" : 2.0");
        for (String choice : List.of("off", "on")) {
            run("generate", "--from", first.toString(), "--guidance-text", choice, "-o", other.toString(), "--quiet");
            assertThat(run("info", other.toString()).out()).contains("\"guidanceText\" : " + choice.equals("on"));
        }
    }

    @Test
    void helpAndVersionSuffice() {
        Outcome help = run("generate", "--help");
        assertThat(help.status()).isZero();
        assertThat(help.out())
                .contains(
                        "--model",
                        "--lora",
                        "--vae",
                        "--width",
                        "--height",
                        "--ratio",
                        "--levels",
                        "--steps",
                        "--guidance",
                        "--clip-prompt",
                        "--t5-prompt",
                        "--negative",
                        "--true-guidance",
                        "--guide-steps",
                        "--guide-guidance",
                        "--guide-image",
                        "--init",
                        "--strength",
                        "--window",
                        "--reach",
                        "--guidance-attention",
                        "--guidance-margin",
                        "--guidance-text",
                        "--lora-scope",
                        "--attention",
                        "--precision",
                        "--device",
                        "--memory",
                        "--text-tokens",
                        "--seed",
                        "--noise",
                        "--trace",
                        "--from",
                        "--output",
                        "--quiet");
        assertThat(help.out().replaceAll("\\s+", " "))
                .contains(
                        "Guidance of the high-resolution pass; ignored by a model without guidance embedder.",
                        "Guidance of the guidance image; ignored by a model without guidance embedder.");
        assertThat(run("make-dataset", "--help").out()).contains("Ignored by a model without guidance embedder.");
        for (String command : List.of("generate", "train lora", "loss")) {
            assertThat(run((command + " --help").split(" ")).out().replaceAll("\\s+", " "))
                    .contains("or what the model's tokenizer allows if that is less.");
        }
        assertThat(run("--version").out()).startsWith("Scale-DiT for Java");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "--width 100 | width is 100 pixels, expected a multiple of 16 from 16 to 65536",
                "--seed 3 --noise pom.xml | --seed is given with --noise, expected one of them: noise is what a seed draws",
                "--width abc | Invalid value for option '--width': 'abc' is not an int",
                "--height 100 | height is 100 pixels, expected a multiple of 16 from 16 to 65536",
                "--model nowhere | option '--model' (DIR) should be specified only once",
                "--true-guidance 0.9 | true guidance is 0.9, expected a number of 1 or more",
                "--true-guidance 4 | true guidance is given without a negative prompt, expected both or neither",
                "--negative dull | a negative prompt is given without true guidance, expected both or neither",
                "--guide-steps -1 | guide steps is -1, expected 1 to 1000",
                "--guide-guidance -1 | guide guidance is -1.0, expected a number of 0 or more",
                "--guidance-attention nearby | Invalid value for option '--guidance-attention': expected one of"
                        + " [GLOBAL, LOCAL] (case-insensitive) but was 'nearby'",
                "--guidance-margin -1 | guidance margin is -1, expected 0 to 4096",
                "--guidance-text yes | Invalid value for option '--guidance-text': expected one of [ON, OFF]"
                        + " (case-insensitive) but was 'yes'",
                "--lora-scope some | Invalid value for option '--lora-scope': expected one of [GUIDANCE, ALL,"
                        + " RELEASED] (case-insensitive) but was 'some'",
                "--precision int4 | Invalid value for option '--precision': expected one of [FLOAT32, BFLOAT16, FP8]"
                        + " (case-insensitive) but was 'int4'",
                "--precision fp8 | precision fp8 is for a GPU alone, expected device cuda",
                "--memory low | memory low is for a GPU alone, expected device cuda",
                "--memory high | Invalid value for option '--memory': expected one of [NORMAL, LOW]",
                "--device tpu | Invalid value for option '--device': expected one of [CPU, CUDA]"
                        + " (case-insensitive) but was 'tpu'",
                "--gpus 0 | gpus is 0, expected 1 or more",
                "--gpus 2 | gpus is 2, expected device cuda beside it",
                "--gpus all | gpus is all, expected device cuda beside it",
                "--gpus some | Invalid value for option '--gpus': expected a number or all but was 'some'",
                "--text-tokens 0 | text tokens is 0, expected 1 to 4096",
                "--seed 1.5 | Invalid value for option '--seed': '1.5' is not a long",
                "--trace /nowhere/t.safetensors | folder /nowhere of output t.safetensors does not exist",
                "--quiet=maybe | Invalid value for option '--quiet': 'maybe' is not a boolean",
                "--verbose=2 | Invalid value for option '--verbose': '2' is not a boolean",
                "--ratio 3 | ratio is 3, expected 1, 2, 4 or 8, or 0 for no guidance image",
                "--ratio 0 --guide-steps 4 | --guide-steps is given with ratio 0, expected 1, 2, 4 or 8: there is no guidance image",
                "--ratio 0 --lora pom.xml | --lora is given with ratio 0, expected 1, 2, 4 or 8: there is no guidance image",
                "--levels 0 --lora pom.xml | --lora is given with 0 levels, expected 1 or more: a picture of plain FLUX has no",
                "--ratio 0 --levels 2 | ratio is 0, which is a picture without a guidance image, expected 1 level",
                "--init noise --strength 0.5 | --strength is given with init noise, expected init guidance, of whose steps",
                "--guide-image pom.xml --guide-steps 4 | --guide-steps is given with a guidance image, expected one of them",
                "--trace a.png -o ./a.png | trace and output are both a.png, expected two files",
                "--levels -1 | levels is -1, expected 0 to 8",
                "--plain-size 15 | plain size is 15, expected 16 to 65536",
                "--plain-size 64 --guide-image pom.xml | --plain-size is given with a guidance image, expected one of them",
                "--steps 0 | steps is 0, expected 1 to 1000",
                "--guidance NaN | guidance is NaN, expected a number of 0 or more",
                "--window 20 | window is 20, expected 16, 32 or 64",
                "--reach -2 | reach is -2, expected 0 to 512",
                "--init nose | Invalid value for option '--init': expected one of [NOISE, GUIDANCE] (case-insensitive)"
                        + " but was 'nose'",
                "--attention sparse | Invalid value for option '--attention': expected native, native-exact, native-int8 or"
                        + " dense but was 'sparse'",
                "--strength 2 | strength is 2.0, expected more than 0 and at most 1",
                "--lora x.safetensors:much | Invalid value for option '--lora' (FILE[:scale]): the scale 'much' of"
                        + " 'x.safetensors:much' is not a number",
                "--lora nowhere.safetensors | LoRA nowhere.safetensors does not exist",
                "--vae nowhere | VAE nowhere does not exist",
                "--guide-image nowhere.png | guide image nowhere.png does not exist",
                "--noise nowhere | noise nowhere does not exist",
                "--from nowhere.png | picture nowhere.png does not exist",
                "-o /nowhere/out.png | folder /nowhere of output out.png does not exist",
                "--steps 1 --steps 2 | option '--steps' (N) should be specified only once",
                "--stpes 3 | Unknown options: '--stpes', '3'",
            })
    void aWrongArgumentIsOneSentenceAndStatusTwo(String option, String sentence) {
        Outcome outcome = prompted(option.split(" "));
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(2);
    }

    @Test
    void benchMeasuresAndWritesItsResults() {
        Path results = folder.resolve("bench");
        Outcome outcome = run(("bench --device cpu --model " + TINY
                        + " --sizes 64,128 --methods scaledit,linear --steps 1 --warm-up 1 --text-tokens 8 --pictures 64 -o "
                        + results)
                .split(" "));
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.out())
                .contains("scaledit           64", "linear            128")
                .containsOnlyOnce("picture: ");
        assertThat(results.resolve("step.json")).exists();
        assertThat(results.resolve("step.csv")).exists();
        assertThat(outcome.status()).isZero();
    }

    @Test
    void aMethodThatFailsIsARowOfItsOwnAndStatusOne() {
        Outcome outcome = run(("bench --device cpu --model " + TINY
                        + " --sizes 64 --methods scaledit-fp8,linear --steps 1" + " --warm-up 1 --text-tokens 8")
                .split(" "));
        assertThat(outcome.out()).contains("precision fp8 is for bfloat16 on a GPU alone\n", "linear             64");
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.status()).isEqualTo(1);
    }

    @Test
    void withoutMethodsOnlyThoseThatTheDeviceHasAreMeasured() {
        Outcome outcome =
                run(("bench --device cpu --model " + TINY + " --sizes 64 --steps 1 --warm-up 1 --text-tokens 8")
                        .split(" "));
        assertThat(outcome.out())
                .contains("left out: scaledit-fp8 (precision fp8 is for bfloat16 on a GPU alone), dense-cudnn (cuDNN is"
                        + " for a GPU alone)\n")
                .contains("\nscaledit  ", "\ndense-flash  ", "\nnaive  ", "\nlinear  ")
                .doesNotContain("\nscaledit-fp8", "\ndense-cudnn");
        assertThat(outcome.status()).isZero();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "--methods linear,linear | methods are [linear, linear], expected each of them once",
                "--model nowhere | model nowhere does not exist",
                "--device cpu | no model given, expected --model DIR on a CPU: random weights",
                "--device tpu | Invalid value for option '--device': expected one of [CPU, CUDA]",
                "--memory high | Invalid value for option '--memory': expected one of [NORMAL, LOW]",
                "--memory low --device cpu --model pom.xml | memory low is for a GPU alone, expected device cuda",
                "--gpus 2 --profile | --profile is given with --gpus, expected one of them",
                "--gpus all --memory low | --memory low is given with --gpus, expected one of them",
                "--gpus 2 --pictures 8192 | pictures are [8192], expected some of the sizes [1024, 2048, 4096]",
                "--gpus 2 --device cpu | gpus is 2, expected --device cuda beside it",
                "--gpus 0 | gpus is 0, expected 1 or more",
                "--gpus 2 --methods linear | method linear is asked of several GPUs, expected scaledit, scaledit-fp8 or",
                "--methods sparse | Invalid value for option '--methods' (METHOD): 'sparse' is no method, expected scaledit,",
                "--sizes 1000 | width is 1000 pixels, expected a multiple of 16 from 16 to 65536",
                "--pictures 8192 | pictures are [8192], expected some of the sizes [1024, 2048, 4096]",
                "--sizes big | Invalid value for option '--sizes' (N): 'big' is not an int",
                "--steps 0 | steps is 0, expected 1 to 1000",
                "--warm-up 0 | warm-up steps is 0, expected 1 to 1000",
                "--text-tokens 0 | text tokens is 0, expected 1 to 4096",
                "-o pom.xml | output pom.xml is a file, expected a folder",
                "-o pom.xml/bench | output pom.xml is a file, expected a folder",
                "--szies 1 | Unknown options: '--szies', '1'",
            })
    void aWrongArgumentOfBenchIsOneSentenceAndStatusTwo(String option, String sentence) {
        Outcome outcome = run(("bench " + option).split(" "));
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(2);
    }

    @Test
    void scenesAreWrittenAndTheSameAgain() throws IOException {
        Path sprites = Files.createDirectory(folder.resolve("sprites"));
        Drawings.write(sprites);
        for (String out : List.of("scenes", "again")) {
            Outcome outcome =
                    run(("scenes --count 3 --size 64 --seed 9 --sprites " + sprites + " -o " + folder.resolve(out))
                            .split(" "));
            assertThat(outcome.err()).isEmpty();
            assertThat(outcome.status()).isZero();
        }
        for (String file : List.of("00000000.png", "00000002.png", "metadata.jsonl")) {
            assertThat(folder.resolve("scenes").resolve(file))
                    .hasSameBinaryContentAs(folder.resolve("again").resolve(file));
        }
        Outcome other =
                run(("scenes --count 3 --size 64 --seed 8 --sprites " + sprites + " -o " + folder.resolve("again"))
                        .split(" "));
        assertThat(other.err())
                .isEqualToIgnoringNewLines("scaledit: the scenes in " + folder.resolve("again")
                        + " were composed with seed 9, expected the same instead of 8");
        assertThat(other.status()).isEqualTo(2);
        Path evaluation = folder.resolve("evaluation");
        run(("scenes --held-out --count 1 --size 64 --seed 9 --sprites " + sprites + " -o " + evaluation).split(" "));
        assertThat(evaluation.resolve("00000000.png")).exists();
        assertThat(Files.mismatch(evaluation.resolve("metadata.jsonl"), folder.resolve("again/metadata.jsonl")))
                .isNotEqualTo(-1);
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--count 1 | Missing required option: '--output=DIR'",
                "-o out | Missing required option: '--count=N'",
                "--count x -o out | Invalid value for option '--count': 'x' is not an int",
                "--count 0 -o out --sprites SPRITES | count is 0, expected at least 1",
                "--count 2 --seed 9223372036854775807 -o out --sprites SPRITES | seed is 9223372036854775807, expected at most"
                        + " 9223372036854775806 for 2 pictures",
                "--count 1 --size 32 -o out --sprites SPRITES | size is 32 pixels, expected 64 to 8192",
                "--count 1 -o pom.xml --sprites SPRITES | output pom.xml is a file, expected a folder",
                "--count 1 -o out --sprites nowhere | sprites nowhere does not exist",
                "--count 1 -o out | no sprites given, expected --sprites DIR",
                "--count 1 -o out --sprites src | sprites src have no noto.json, expected the SVG sets that tools/sprites fetches",
            })
    void aWrongArgumentOfScenesIsOneSentenceAndStatusTwo(String options, String sentence) throws IOException {
        Path sprites = Files.createDirectories(folder.resolve("sets"));
        Drawings.write(sprites);
        Outcome outcome = run(("scenes " + options.replace("SPRITES", sprites.toString())).split(" "));
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(2);
        assertThat(Path.of("out")).doesNotExist();
    }

    /** By what the launcher names, which takes its time: nothing is fetched for arguments that are wrong. */
    @Test
    void spritesAreFetchedOnceAllElseIsRight() throws IOException {
        Path sprites = Files.createDirectory(folder.resolve("fetched"));
        Path tool = Files.writeString(folder.resolve("fetch"), "#!/bin/sh\ntouch " + sprites + "/asked\n");
        Files.setPosixFilePermissions(tool, PosixFilePermissions.fromString("rwx------"));
        System.setProperty("scaledit.sprites", sprites.toString());
        System.setProperty("scaledit.sprites.tool", tool.toString());
        try {
            for (String wrong : List.of(
                    "scenes --count 1",
                    "scenes --count 0 -o out",
                    "scenes --count 1 -o pom.xml",
                    "evaluate --renders -o out",
                    "evaluate --renders --judge nowhere -o out",
                    "train judge --config nowhere -o out",
                    "train model --config nowhere -o out")) {
                assertThat(run(wrong.split(" ")).err()).startsWith("scaledit: ").hasLineCount(1);
                assertThat(sprites).isEmptyDirectory();
            }
            Drawings.write(sprites);
            Path out = folder.resolve("of-fetched");
            assertThat(run(("scenes --count 1 --size 64 -o " + out).split(" ")).err())
                    .isEmpty();
            assertThat(sprites.resolve("asked")).exists();

            Files.writeString(tool, "#!/bin/sh\nexit 3\n");
            Outcome outcome = run("scenes", "--count", "1", "-o", "out");
            assertThat(outcome.err())
                    .isEqualToIgnoringNewLines("scaledit: no sprites: " + tool + " ended with status 3");
            assertThat(outcome.status()).isEqualTo(1);
            assertThat(Path.of("out")).doesNotExist();
        } finally {
            System.clearProperty("scaledit.sprites");
            System.clearProperty("scaledit.sprites.tool");
        }
    }

    @Test
    void aDatasetIsPaintedAndTrainedOn() throws IOException {
        Path prompts = Files.writeString(folder.resolve("prompts.txt"), "a fox\na lighthouse\n");
        Path set = folder.resolve("set");
        for (String shard : List.of("2/2", "1/2")) {
            Outcome outcome = run(("make-dataset --count 3 --size 64 --steps 1 --shard " + shard + " --model " + TINY
                            + " --prompts " + prompts + " -o " + set)
                    .split(" "));
            assertThat(outcome.err())
                    .containsPattern("paint (1/1|2/2), \\d+\\.\\d a minute, 0:00 left\n")
                    .startsWith("encode ");
            assertThat(outcome.status()).isZero();
        }
        Files.createDirectory(folder.resolve("training"));
        Outcome training = run(("train lora --resolution 64 --accumulate 1 --steps 1 --cache " + set
                        + "/training-cache --model " + TINY + " --data " + set + " -o "
                        + folder.resolve("training/lora.safetensors"))
                .split(" "));
        assertThat(training.err()).contains("encode 3/3, pictures and captions\n", "train 1/1, loss ");
        assertThat(training.status()).isZero();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "--count 0 | 2 | count is 0, expected 1 to 1000000",
                "--size 100 | 2 | size is 100, expected a multiple of 16 from 64 to 8192",
                "--steps 0 | 2 | steps is 0, expected 1 to 1000",
                "--guidance -1 | 2 | guidance is -1.0, expected a number of 0 or more",
                "--shard 5/4 | 2 | Invalid value for option '--shard': shard is 5/4, expected 1/4 to 4/4",
                "--shard half | 2 | Invalid value for option '--shard': expected i/n, 1/4 for example, but was 'half'",
                "--precision fp8 | 2 | precision fp8 is for bfloat16 on a GPU alone",
                "--memory low | 2 | memory low is for a GPU alone, expected device cuda",
                "--device cuda | 1 | device cuda needs builds for GPUs: add org.bytedeco:pytorch:2",
                "--model nowhere | 2 | model nowhere does not exist",
                "--prompts nowhere | 2 | prompts nowhere does not exist",
                "--prompts /dev/null | 1 | prompts /dev/null has no prompt, expected one on each line",
                "-o pom.xml | 2 | output pom.xml is a file, expected a folder",
                "-o pom.xml/set | 1 | folder pom.xml/set cannot be made: Not a directory",
                "-o src | 1 | folder src has files but no dataset.json, expected an empty folder, or one of this set",
            })
    void aWrongArgumentOfMakeDatasetIsOneSentence(String option, int status, String sentence) throws IOException {
        Path prompts = Files.writeString(folder.resolve("wrong-prompts.txt"), "a fox\n");
        List<String> arguments = new ArrayList<>(List.of("make-dataset"));
        Map.of(
                        "--model",
                        TINY,
                        "--prompts",
                        prompts.toString(),
                        "-o",
                        folder.resolve("wrong").toString())
                .forEach((name, value) -> {
                    if (!option.startsWith(name)) {
                        arguments.addAll(List.of(name, value));
                    }
                });
        arguments.addAll(List.of(option.split(" ")));
        Outcome outcome = run(arguments.toArray(String[]::new));
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.status()).isEqualTo(status);
        assertThat(folder.resolve("wrong")).doesNotExist();
    }

    @Test
    void aGpuThatCannotBeUsedIsNoReasonToFallBack() {
        Outcome outcome =
                generate("--device", "cuda", "-o", folder.resolve("gpu.png").toString());
        assertThat(outcome.err())
                .startsWith("scaledit: device cuda needs builds for GPUs: add org.bytedeco:pytorch:2")
                .contains(":linux-x86_64-gpu, org.bytedeco:cuda:13", "org.scaledit:scaledit-native:")
                .endsWith("start Java with -Dorg.bytedeco.javacpp.platform.extension=-gpu\n")
                .hasLineCount(1);
        assertThat(outcome.status()).isEqualTo(1);
        assertThat(folder.resolve("gpu.png")).doesNotExist();
    }

    @Test
    void missingArgumentsAreNamed() {
        assertThat(run().err())
                .startsWith(
                        "scaledit: No command given, expected one of: generate, info, quantize, bench, train, make-dataset, scenes, evaluate, loss, fid");
        assertThat(run("generate", "--model", TINY).err()).startsWith("scaledit: No prompt given");
        Outcome noModel = run("generate", "x");
        assertThat(noModel.err())
                .startsWith("scaledit: no model is given and none is embedded, expected"
                        + " org.scaledit:scaledit-demo-model on the class path or the folder of a FLUX.1 model")
                .hasLineCount(1);
        assertThat(noModel.status()).isEqualTo(1);
        Outcome missing = run("generate", "x", "--model", "nowhere");
        assertThat(missing.err()).startsWith("scaledit: model nowhere does not exist");
        assertThat(missing.status()).isEqualTo(2);
    }

    @Test
    void withoutAModelTheEmbeddedOnePaintsAndItsPictureIsMadeAgain() throws Exception {
        Path classPath = folder.resolve("class-path");
        Path model = classPath.resolve("org/scaledit/model");
        Files.createDirectories(model.getParent());
        Golden.copyOfTinyFlux(model);
        Path picture = folder.resolve("embedded.png");
        Path again = folder.resolve("embedded-again.png");
        String[] options = "generate dusk --steps 1 --guide-steps 1 --seed 5 --quiet --width 64 -o".split(" ");
        List<String> arguments = new ArrayList<>(List.of(options));
        arguments.add(picture.toString());
        Outcome outcome = ModelJar.on(classPath, () -> run(arguments.toArray(String[]::new)));
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.status()).isZero();
        // 1024 is the height on a CPU, where other models have 4096.
        assertThat(run("info", picture.toString()).out()).contains("64 × 1024", "\"model\" : \"embedded\"");
        ModelJar.on(classPath, () -> run("generate", "--from", picture.toString(), "-o", again.toString(), "--quiet"));
        assertThat(again).hasSameBinaryContentAs(picture);
        assertThat(run("generate", "--from", picture.toString()).err()).contains("none is embedded");
    }

    @Test
    void quantizeWritesAModelThatPaints() {
        Path int8 = folder.resolve("int8");
        Outcome outcome = run("quantize", TINY, "-o", int8.toString());
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.status()).isZero();
        assertThat(outcome.out().lines())
                .satisfiesExactly(
                        line -> assertThat(line)
                                .matches("text_encoder +3.22 MB -> +1.82 MB, changed by 0.0053 of their norm"),
                        line -> assertThat(line)
                                .matches("text_encoder_2 +0.11 MB -> +0.07 MB, changed by 0.0053 of their norm"),
                        line -> assertThat(line)
                                .matches("transformer +14.45 MB -> +7.36 MB, changed by 0.0059 of their norm"),
                        line -> assertThat(line).matches("vae +0.26 MB -> +0.16 MB, changed by 0.0051 of their norm"),
                        line -> assertThat(line).matches("weights +18.04 MB -> +9.39 MB"));
        assertThat(run("info", int8.toString()).out()).contains("INT8 with a scale for each row");
        Path picture = folder.resolve("int8.png");
        Outcome painted = run(("generate dusk --width 64 --height 48 --steps 1 --guide-steps 1 --quiet --model " + int8
                        + " -o " + picture)
                .split(" "));
        assertThat(painted.err()).isEmpty();
        assertThat(picture).exists();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "TINY              | Missing required option: '--output=DIR'",
                "-o out            | Missing required parameter: 'MODEL'",
                "nowhere -o out    | model nowhere does not exist",
                "TINY nowhere -o out | model nowhere does not exist",
                "TINY -o src       | output src exists, expected a folder that is to be made",
                "TINY -o /none/out | folder /none of output out does not exist",
            })
    void aWrongArgumentOfQuantizeIsOneSentenceAndStatusTwo(String options, String sentence) {
        Outcome outcome = run(("quantize " + options.replace("TINY", TINY)).split(" "));
        assertThat(outcome.err()).startsWith("scaledit: " + sentence).hasLineCount(1);
        assertThat(outcome.status()).isEqualTo(2);
    }

    @Test
    void aFailureIsOneSentenceAndStatusOneAndVerboseTellsMore() throws IOException {
        Path model = Files.createDirectories(folder.resolve("empty-model"));
        Outcome outcome = run("generate", "x", "--model", model.toString());
        assertThat(outcome.status()).isEqualTo(1);
        assertThat(outcome.err())
                .startsWith("scaledit: ")
                .contains("model_index.json")
                .hasLineCount(1);
        assertThat(run("generate", "x", "--model", model.toString(), "--verbose")
                        .err())
                .contains("CheckpointException", "at org.scaledit");
    }

    /** A header of as many bytes is read at once. */
    @Test
    void aHeapThatIsTooSmallIsOneSentence() throws IOException, InterruptedException {
        Path file = folder.resolve("large.safetensors");
        try (RandomAccessFile bytes = new RandomAccessFile(file.toFile(), "rw")) {
            bytes.writeLong(Long.reverseBytes(90_000_000));
            bytes.setLength(90_000_008);
        }
        ProcessBuilder other = OtherJvm.of(Main.class, "info", file.toString());
        List<String> command = new ArrayList<>(other.command());
        command.add(1, "-Xmx48m");
        Process process = other.command(command).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(said)
                .matches("scaledit: Java's heap of 4\\d MiB is too small, expected more in the variable SCALEDIT_HEAP"
                        + " \\(8g, for example\\)\n");
        assertThat(process.waitFor()).isEqualTo(1);
    }

    @Test
    void infoTellsWhatAModelALoraAndAPictureHold() throws IOException {
        assertThat(run("info", TINY).out()).contains("2 double and 2 single blocks", "2 heads of 128");
        assertThat(run(
                                "info",
                                Golden.path("golden/lora/scaledit_lora.safetensors")
                                        .toString())
                        .out())
                .contains("LoRA", "rank 16", "12 layers");
        Path picture = folder.resolve("info.png");
        generate("-o", picture.toString());
        assertThat(run("info", picture.toString()).out()).contains("64 × 48", "a lighthouse at dusk");
        Path renamed = Files.copy(picture, folder.resolve("info"));
        assertThat(run("info", renamed.toString()).out()).contains("64 × 48", "a lighthouse at dusk");
        Outcome other = run("info", "pom.xml");
        assertThat(other.err())
                .isEqualToIgnoringNewLines("scaledit: pom.xml is a file of another kind, expected a diffusers folder,"
                        + " a safetensors file or a PNG");
        assertThat(other.status()).isEqualTo(2);
        Path damaged = Files.writeString(folder.resolve("damaged.safetensors"), "no safetensors file");
        assertThat(run("info", damaged.toString()).err())
                .startsWith("scaledit: " + damaged + " is truncated or no safetensors file")
                .hasLineCount(1);
        Outcome nothing = run("info", "nowhere");
        assertThat(nothing.err()).startsWith("scaledit: nowhere does not exist");
        assertThat(nothing.status()).isEqualTo(2);
    }
}
