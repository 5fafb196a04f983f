package org.scaledit.judge;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.tensor.Placement;
import org.scaledit.testing.DrawnJudge;

/** A judge that knows nothing, and what is wrong with it when a line of its configuration is another. */
class JudgeTest {
    @TempDir
    Path folder;

    @BeforeEach
    void write() {
        DrawnJudge.writeUntrained(folder, HandMade.CONFIG);
    }

    @Test
    void itIsReadAsItWasWritten() {
        try (Judge judge = Judge.open(folder, Placement.FLOAT32_CPU)) {
            assertThat(judge.size()).isEqualTo(64);
            assertThat(judge.vocabulary()).isEqualTo(DrawnJudge.VOCABULARY);
            assertThat(judge.accuracy().usual().overall()).isEqualTo(0.5);
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "size | 68 | size 68, expected a multiple of 8, as channels has 3 levels that halve it",
                "size | 0 | size 0, expected an integer from 64 to 8192",
                "groups | 0 | groups 0, expected an integer from 1 to 64",
                "groups | 3 | channels [8, 8, 8], expected multiples of groups, 3, one at least",
                "channels | [] | channels [], expected multiples of groups, 4, one at least",
                "channels | [8, 0] | channels [8, 0], expected multiples of groups, 4, one at least",
                "channels | [4, 4, 4, 4, 4, 4, 4] | channels [4, 4, 4, 4, 4, 4, 4], expected at most 6 levels",
                "layers | 9 | layers 9, expected an integer from 1 to 8",
                "objects | [] | objects [], expected 4 or more",
                "objects | ['tulip', 'fish', 'bird', 'tulip'] | objects tulip twice, expected each of them once"
            },
            quoteCharacter = '~')
    void whatIsWrongInAConfigurationIsNamed(String field, String value, String message) throws IOException {
        Path config = folder.resolve("config.json");
        String right = Files.readString(config);
        String changed = Matcher.quoteReplacement("\"" + field + "\" : " + value.replace('\'', '"'));
        String wrong = right.replaceFirst("\"" + field + "\" : (\\[[^]]*]|\\d+)", changed);
        assertThat(wrong).isNotEqualTo(right);
        Files.writeString(config, wrong);
        assertThatThrownBy(() -> Judge.open(folder, Placement.FLOAT32_CPU))
                .isInstanceOf(CheckpointException.class)
                .hasMessage(config + " has " + message);
    }
}
