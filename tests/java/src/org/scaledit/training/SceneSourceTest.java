package org.scaledit.training;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.scenes.Mix;
import org.scaledit.tensor.Torch;
import org.scaledit.testing.Drawings;

class SceneSourceTest {
    @TempDir
    static Path folder;

    @BeforeAll
    static void draw() throws IOException {
        Torch.load();
        Drawings.write(folder);
    }

    /** So that a further training may see others. */
    @Test
    void scenesBeginWithANumber() {
        try (SceneSource all = source(0, 120);
                SceneSource later = source(100, 20);
                SceneSource early = source(0, 20)) {
            for (int sample = 0; sample < 20; sample++) {
                assertThat(later.scene(sample)).isEqualTo(all.scene(100 + sample));
                assertThat(later.caption(sample)).isEqualTo(all.caption(100 + sample));
                assertThat(later.name(sample)).isEqualTo("scene " + (100 + sample));
            }
            assertThat(later.fingerprint()).isNotEqualTo(early.fingerprint());
        }
    }

    private static SceneSource source(int first, int size) {
        return new SceneSource(first, size, Mix.USUAL, folder, false);
    }
}
