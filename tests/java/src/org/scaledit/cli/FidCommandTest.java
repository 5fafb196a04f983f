package org.scaledit.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.scaledit.cli.Outcome.run;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.testing.DrawnPictures;

class FidCommandTest {
    @TempDir
    static Path folder;

    @BeforeAll
    static void draw() throws IOException {
        DrawnPictures.in(folder.resolve("reference"), 4, 96, 80);
        DrawnPictures.in(folder.resolve("pictures"), 3, 96, 80);
        DrawnPictures.in(folder.resolve("one"), 1, 96, 80);
        Files.createDirectory(folder.resolve("none"));
        Files.writeString(DrawnPictures.in(folder.resolve("text"), 2, 96, 80).resolve("picture02.jpg"), "text");
        Path damaged = DrawnPictures.in(folder.resolve("damaged"), 2, 96, 80).resolve("picture01.png");
        byte[] bytes = Files.readAllBytes(damaged);
        Files.write(damaged, Arrays.copyOf(bytes, bytes.length / 2));
    }

    private static Outcome measured(String arguments) {
        return run(("fid " + arguments.replace("@", folder + "/")).split(" "));
    }

    @Test
    void theDistancesArePrintedAndWritten() throws IOException {
        String arguments = "@reference @pictures --patches 3 --patch-size 40 --seed 4 -o @report.json";
        Outcome outcome = measured(arguments);
        assertThat(outcome.err()).contains("pictures 7/7, seen");
        assertThat(outcome.out().lines())
                .satisfiesExactly(
                        line -> assertThat(line).matches("FID \\d+\\.\\d{4} of 3 pictures to 4"),
                        line -> assertThat(line)
                                .matches("patch FID \\d+\\.\\d{4} of 9 patches to 12, each of 40 × 40 pixels"),
                        line -> assertThat(line)
                                .isEqualTo(
                                        "features: nsfwjs 4.3.0 Inception-v3, 2,048 wide; compares with no paper's numbers"),
                        line -> assertThat(line).startsWith("note: the fewer the pictures, the larger the FID"));
        assertThat(outcome.status()).isZero();
        JsonNode report = report();
        assertThat(report.path("features").asText()).startsWith("nsfwjs 4.3.0 Inception-v3");
        assertThat(report.path("reference").path("count").asInt()).isEqualTo(4);
        assertThat(report.path("pictures").path("folder").asText()).isEqualTo(folder + "/pictures");
        assertThat(report.path("fid").asDouble()).isPositive();
        assertThat(report.path("patches").toString()).isEqualTo("{\"count\":3,\"size\":40,\"seed\":4}");

        measured(arguments.replace("--seed 4", "--seed 5"));
        assertThat(report().path("fid")).isEqualTo(report.path("fid"));
        assertThat(report().path("patch_fid")).isNotEqualTo(report.path("patch_fid"));
    }

    private static JsonNode report() throws IOException {
        return new ObjectMapper().readTree(folder.resolve("report.json").toFile());
    }

    @Test
    void withoutPatchesThereIsOneDistance() {
        Outcome outcome = measured("@pictures @pictures --quiet");
        assertThat(outcome.err()).isEmpty();
        assertThat(outcome.out()).startsWith("FID 0.0000 of 3 pictures to 3\nfeatures: ");
        assertThat(outcome.status()).isZero();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "@reference | 2 | Missing required parameter: 'PICTURES'",
                "@nowhere @pictures | 2 | reference @nowhere does not exist",
                "@reference @nowhere | 2 | pictures @nowhere does not exist",
                "@reference @report.txt | 2 | @report.txt is a file, expected a folder of pictures",
                "@none @pictures | 2 | @none has no pictures, expected 2 or more",
                "@reference @one | 2 | @one has one picture, expected 2 or more",
                "@reference @text | 1 | @text/picture02.jpg is not a picture that can be read, expected PNG or JPEG",
                "@damaged @reference | 1 | cannot read the picture @damaged/picture01.png: ",
                "@reference @pictures --patches 2 | 2 | picture @reference/picture00.png has 96 × 80 pixels, expected 299 × 299"
                        + " or more for a patch",
                "@reference @pictures --patches 0 | 2 | patches is 0, expected 1 or more",
                "@reference @pictures --patches many | 2 | Invalid value for option '--patches': 'many' is not an int",
                "@reference @pictures --patches 1 --patch-size 15 | 2 | patch size is 15, expected 16 or more",
                "@reference @pictures --patch-size 32 | 2 | Error: Missing required argument(s): --patches=N",
                "@reference @pictures --seed 1 | 2 | Error: Missing required argument(s): --patches=N",
                "@reference @pictures --patches 1 --seed x | 2 | Invalid value for option '--seed': 'x' is not a long",
                "@reference @pictures --device tpu | 2 | Invalid value for option '--device': expected one of [CPU, CUDA]",
                "@reference @pictures --device cuda | 1 | device cuda needs builds for GPUs: add ",
                "@reference @pictures --features @nowhere | 2 | features @nowhere does not exist",
                "@reference @pictures --features @none | 1 | @none/model.json does not exist",
                "@reference @pictures -o @none | 2 | output @none is a folder, expected a file",
                "@reference @pictures -o @nowhere/a.json | 2 | folder @nowhere of output a.json does not exist",
                "@reference @pictures --pathces 3 | 2 | Unknown options: '--pathces', '3'",
            })
    void whatIsWrongIsOneSentence(String arguments, int status, String sentence) throws IOException {
        Files.writeString(folder.resolve("report.txt"), "");
        Outcome outcome = measured(arguments + " --quiet");
        assertThat(outcome.err())
                .startsWith("scaledit: " + sentence.replace("@", folder + "/"))
                .hasLineCount(1);
        assertThat(outcome.out()).isEmpty();
        assertThat(outcome.status()).isEqualTo(status);
    }
}
