package org.scaledit.inception;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.data.Offset.offset;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.bytedeco.javacpp.PointerScope;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.KerasModel;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;

/** A model of a few layers, and what is wrong with it when a word of its file is another. */
class KerasNetworkTest {
    private static final String MODEL = """
            {
              "modelTopology": {"model_config": {"class_name": "Model", "config": {"layers": [
                {"name": "in", "class_name": "InputLayer", "config": {}, "inbound_nodes": []},
                {"name": "conv", "class_name": "Conv2D", "inbound_nodes": [[["in", 0, 0, {}]]], "config": {
                  "filters": 1, "kernel_size": [1, 2], "strides": [1, 1], "padding": "valid", "dilation_rate": [1, 1],
                  "data_format": "channels_last", "activation": "linear", "use_bias": false}},
                {"name": "mean", "class_name": "AveragePooling2D", "inbound_nodes": [[["conv", 0, 0, {}]]], "config": {
                  "pool_size": [1, 3], "strides": [1, 1], "padding": "same", "data_format": "channels_last"}},
                {"name": "relu", "class_name": "Activation", "inbound_nodes": [[["conv", 0, 0, {}]]], "config": {
                  "activation": "relu"}},
                {"name": "both", "class_name": "Concatenate", "config": {"axis": 3},
                  "inbound_nodes": [[["mean", 0, 0, {}], ["relu", 0, 0, {}]]]},
                {"name": "norm", "class_name": "BatchNormalization", "inbound_nodes": [[["both", 0, 0, {}]]], "config": {
                  "axis": 3, "epsilon": 1, "scale": false, "center": true}},
                {"name": "flat", "class_name": "Flatten", "inbound_nodes": [[["norm", 0, 0, {}]]], "config": {
                  "data_format": "channels_last"}},
                {"name": "dense", "class_name": "Dense", "inbound_nodes": [[["flat", 0, 0, {}]]], "config": {}}
              ]}}},
              "weightsManifest": [{"paths": ["first", "second"], "weights": [
                {"name": "conv/kernel", "shape": [1, 2, 3, 1], "quantization": {"min": -1, "scale": 0.5, "dtype": "uint8"}},
                {"name": "norm/beta", "shape": [2], "quantization": {"min": 0, "scale": 1, "dtype": "uint8"}},
                {"name": "norm/moving_mean", "shape": [2], "quantization": {"min": 0, "scale": 1, "dtype": "uint8"}},
                {"name": "norm/moving_variance", "shape": [2], "quantization": {"min": 0, "scale": 1, "dtype": "uint8"}}
              ]}]
            }
            """;

    @TempDir
    Path folder;

    private final PointerScope scope = new PointerScope();

    @AfterEach
    void closeScope() {
        scope.close();
    }

    @BeforeEach
    void write() throws IOException {
        Files.writeString(folder.resolve("model.json"), MODEL);
        // The kernel takes the first channel's next pixel from this one; weights go from one file to the other.
        Files.write(folder.resolve("first"), new byte[] {4, 2, 2, 0});
        Files.write(folder.resolve("second"), new byte[] {2, 2, 7, 0, 1, 0, 3, 8});
    }

    private KerasNetwork network() {
        return new KerasNetwork(KerasModel.read(folder), "dense", Placement.FLOAT32_CPU);
    }

    @Test
    void computesWhatTheLayersSay() {
        float[] picture = {1, 4, 2, 9, 0, 5, 5, 5, 5, 5, 6, 6, 6, 6, 6};
        try (KerasNetwork network = network()) {
            float[] output = Tensors.floats(network.run(Tensors.of(picture, 1, 3, 1, 5)));

            // Differences −3, 2, −7, 9; their means −0.5, −8/3, 4/3, 1; 7 + (mean − 1) / 2 beside relu / 3.
            assertThat(output).hasSize(8);
            assertThat(output)
                    .containsExactly(
                            new float[] {6.25f, 0, 5.1666667f, 0.6666667f, 7.1666667f, 0, 7, 3}, offset(1e-5f));
        }
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "Flatten | Reshape | FILE has layer flat of class Reshape, expected Conv2D, BatchNormalization, Activation,",
                "relu\"} | elu\"} | FILE has modelTopology.model_config.config.layers[3].config.activation elu, expected relu",
                "same | full | FILE has modelTopology.model_config.config.layers[2].config.padding full, expected valid or same",
                "[1, 3] | [1, 2] | FILE has modelTopology.model_config.config.layers[2].config.padding same, expected valid,"
                        + " or strides [1, 1] and an odd window",
                "linear | tanh | FILE has modelTopology.model_config.config.layers[1].config.activation tanh, expected linear",
                "\"use_bias\": false | \"use_bias\": true | FILE has modelTopology.model_config.config.layers[1].config.use_bias"
                        + " true, expected false",
                "\"axis\": 3} | \"axis\": 1} | FILE has modelTopology.model_config.config.layers[4].config.axis 1, expected 3,",
                "[\"norm\", 0, | [\"norm\", 1, | FILE has modelTopology.model_config.config.layers[6].inbound_nodes"
                        + " [[[\"norm\",1,0,{}]]], expected at most one list of",
                "[\"norm\", 0, | [\"dense\", 0, | FILE has modelTopology.model_config.config.layers[6].inbound_nodes dense,"
                        + " expected the names of earlier layers",
                "\"dense\" | \"dance\" | FILE has no layer dense behind others",
                "\"filters\": 1 | \"filters\": 2 | weight conv/kernel of FILE has shape [1, 2, 3, 1], expected [1, 2, 3, 2]",
                "[[[\"conv\", 0, 0, {}]]] | [] | FILE has layer mean with inputs [], expected one",
                "[[[\"flat\", 0, 0, {}]]] | [[[\"norm\", 0, 0, {}]]] | FILE has layer dense with inputs [norm], expected [flat]",
                "norm/beta | norm/gamma | FILE has no weight norm/beta",
                "uint8 | uint16 | FILE has weightsManifest[0].weights[0].quantization.dtype uint16, expected uint8",
                "\"shape\": [2] | \"shape\": [3] | the weights of FILE have 12 bytes, expected 15",
                "second | third | cannot read weights FOLDER/third: there is no such file or folder",
                "`\"Model\"` | `\"Sequential\"` | FILE has modelTopology.model_config.class_name Sequential, expected Model",
            })
    void whatIsWrongIsOneSentence(String right, String wrong, String sentence) throws IOException {
        assertThat(MODEL).contains(right);
        Path file = Files.writeString(folder.resolve("model.json"), MODEL.replace(right, wrong));
        assertThatThrownBy(this::network)
                .isInstanceOf(CheckpointException.class)
                .message()
                .startsWith(sentence.replace("FILE", file.toString()).replace("FOLDER", folder.toString()))
                .hasLineCount(1);
    }
}
