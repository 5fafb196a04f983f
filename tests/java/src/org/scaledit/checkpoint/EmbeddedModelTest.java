package org.scaledit.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.scaledit.file.UnfinishedFolder;
import org.scaledit.testing.Golden;
import org.scaledit.testing.ModelJar;

class EmbeddedModelTest {
    @TempDir
    Path folder;

    private Path cache() {
        return folder.resolve("cache/of this program");
    }

    private List<Path> cached() throws IOException {
        try (Stream<Path> entries = Files.list(cache())) {
            return entries.toList();
        }
    }

    private Path extracted(Path classPath) throws Exception {
        return ModelJar.on(classPath, () -> EmbeddedModel.directory(cache()));
    }

    @Test
    void isExtractedOnceAndWhole() throws Exception {
        Path jar = ModelJar.write(Golden.tinyFlux(), folder.resolve("a model.jar"));
        Path model = extracted(jar);
        assertThat(cached()).containsExactly(model);
        assertThat(model.getFileName().toString()).matches("scaledit-model-[0-9a-f]{64}");
        List<Path> expected = UnfinishedFolder.files(Golden.tinyFlux());
        assertThat(UnfinishedFolder.files(model)).hasSize(expected.size());
        for (Path file : expected) {
            assertThat(model.resolve(Golden.tinyFlux().relativize(file))).hasSameBinaryContentAs(file);
        }
        Path weights = model.resolve("vae/diffusion_pytorch_model.safetensors");
        FileTime written = FileTime.fromMillis(1_000_000);
        Files.setLastModifiedTime(weights, written);
        assertThat(extracted(jar)).isEqualTo(model);
        assertThat(Files.getLastModifiedTime(weights)).isEqualTo(written);
    }

    @Test
    void anInterruptCancelsTheExtraction() throws Exception {
        Path jar = ModelJar.write(Golden.tinyFlux(), folder.resolve("model.jar"));
        Thread.currentThread().interrupt();
        assertThatThrownBy(() -> extracted(jar))
                .isInstanceOf(CancellationException.class)
                .hasMessage("extracting the embedded model was cancelled");
        assertThat(Thread.interrupted()).isFalse();
        assertThat(extracted(jar)).isDirectory();
    }

    @Test
    void anotherModelHasAnotherFolderWhateverItsJarIsCalled() throws Exception {
        Path jar = ModelJar.write(Golden.tinyFlux(), folder.resolve("model.jar"));
        Path first = extracted(jar);
        Path changed = Golden.copyOfTinyFlux(folder.resolve("changed"));
        Files.writeString(changed.resolve("generation_config.json"), "{\"steps\": 3}");
        Files.delete(jar);
        Path second = extracted(ModelJar.write(changed, jar));
        assertThat(second).isNotEqualTo(first);
        assertThat(second.resolve("generation_config.json")).exists();
        assertThat(first.resolve("generation_config.json")).doesNotExist();
        assertThat(cached()).containsExactlyInAnyOrder(first, second);
    }

    @Test
    void firstStartsAtOnceGiveTheSameFolder() throws Exception {
        Path jar = ModelJar.write(Golden.tinyFlux(), folder.resolve("model.jar"));
        int starts = 8;
        CyclicBarrier together = new CyclicBarrier(starts);
        ExecutorService threads = Executors.newFixedThreadPool(starts);
        Callable<Path> start = () -> {
            together.await();
            Path model = extracted(jar);
            ModelDirectory.open(model).weights("transformer").close();
            return model;
        };
        try {
            List<Path> models = new ArrayList<>();
            for (Future<Path> model : threads.invokeAll(Collections.nCopies(starts, start))) {
                models.add(model.get());
            }
            assertThat(models).hasSize(starts).containsOnly(models.get(0));
            assertThat(cached()).containsExactly(models.get(0));
        } finally {
            threads.shutdown();
        }
    }

    @Test
    void aFolderOnTheClassPathIsUsedWhereItIs() throws Exception {
        Path model = folder.resolve("class path/org/scaledit/model");
        Files.createDirectories(model.getParent());
        Golden.copyOfTinyFlux(model);
        assertThat(extracted(folder.resolve("class path"))).isEqualTo(model);
        assertThat(cache()).doesNotExist();
    }

    @Test
    void namesTheArtifactThatIsMissing() {
        assertThatThrownBy(() -> EmbeddedModel.directory(cache()))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("no model is given and none is embedded, expected org.scaledit:scaledit-demo-model on the"
                        + " class path or the folder of a FLUX.1 model");
    }

    @Test
    void saysWhyItCannotBeExtracted() throws Exception {
        Path jar = ModelJar.write(Golden.tinyFlux(), folder.resolve("model.jar"));
        Files.writeString(folder.resolve("cache"), "a file");
        assertThatThrownBy(() -> extracted(jar))
                .isInstanceOf(IllegalStateException.class)
                .hasMessage("the embedded model cannot be extracted to " + cache() + ": Not a directory");
    }
}
