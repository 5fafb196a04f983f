package org.scaledit.testing;

import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;

/**
 * A checkpoint with FLUX.1-dev's names, shapes, shards and sizes (34 GB), in files of zeros that take no room on the
 * disk.
 */
public final class FluxDev {
    private static final int WIDTH = 3072;
    private static final int MLP = 4 * WIDTH;
    private static final int JOINT = 4096;
    private static final int POOLED = 768;

    private FluxDev() {}

    /** Writes the whole checkpoint; its tokenizers are those of the tiny one. */
    public static void write(Path folder) throws IOException {
        for (String file : List.of(
                "model_index.json",
                "scheduler/scheduler_config.json",
                "tokenizer/vocab.json",
                "tokenizer/merges.txt",
                "tokenizer_2/tokenizer.json")) {
            Files.createDirectories(folder.resolve(file).getParent());
            Files.copy(Golden.tinyFlux().resolve(file), folder.resolve(file));
        }
        // As diffusers and transformers cut them: shards of at most 10 and 5 GB.
        writePart(folder.resolve("transformer"), "diffusion_pytorch_model", transformer(), 10_000_000_000L, """
            {"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "guidance_embeds": true,
             "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
             "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768}
            """);
        writePart(folder.resolve("text_encoder_2"), "model", t5(), 5_000_000_000L, """
            {"architectures": ["T5EncoderModel"], "d_ff": 10240, "d_kv": 64, "d_model": 4096, "num_heads": 64,
             "num_layers": 24, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 1e-06,
             "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32, "vocab_size": 32128}
            """);
        writePart(folder.resolve("text_encoder"), "model", clip(), 5_000_000_000L, """
            {"architectures": ["CLIPTextModel"], "hidden_act": "quick_gelu", "hidden_size": 768,
             "intermediate_size": 3072, "layer_norm_eps": 1e-05, "max_position_embeddings": 77, "bos_token_id": 0,
             "eos_token_id": 2, "num_attention_heads": 12, "num_hidden_layers": 12, "vocab_size": 49408}
            """);
        writePart(folder.resolve("vae"), "diffusion_pytorch_model", vae(), 10_000_000_000L, """
            {"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
             "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"],
             "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
             "in_channels": 3, "out_channels": 3, "latent_channels": 16, "layers_per_block": 2,
             "mid_block_add_attention": true, "norm_num_groups": 32, "sample_size": 1024, "force_upcast": true,
             "latents_mean": null, "latents_std": null, "scaling_factor": 0.3611, "shift_factor": 0.1159,
             "use_post_quant_conv": false, "use_quant_conv": false}
            """);
    }

    /** 19 double and 38 single blocks: 11.9 billion parameters. */
    public static Map<String, long[]> transformer() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        for (Map.Entry<String, Integer> embedder :
                List.of(Map.entry("timestep", 256), Map.entry("guidance", 256), Map.entry("text", POOLED))) {
            String name = "time_text_embed." + embedder.getKey() + "_embedder.";
            linear(shapes, name + "linear_1", WIDTH, embedder.getValue());
            linear(shapes, name + "linear_2", WIDTH, WIDTH);
        }
        linear(shapes, "context_embedder", WIDTH, JOINT);
        linear(shapes, "x_embedder", WIDTH, 64);
        for (int i = 0; i < 19; i++) {
            String block = "transformer_blocks." + i + ".";
            linear(shapes, block + "norm1.linear", 6 * WIDTH, WIDTH);
            linear(shapes, block + "norm1_context.linear", 6 * WIDTH, WIDTH);
            for (String norm : List.of("norm_q", "norm_k", "norm_added_q", "norm_added_k")) {
                shapes.put(block + "attn." + norm + ".weight", new long[] {128});
            }
            for (String projection : List.of(
                    "to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0", "to_add_out")) {
                linear(shapes, block + "attn." + projection, WIDTH, WIDTH);
            }
            for (String stream : List.of("ff", "ff_context")) {
                linear(shapes, block + stream + ".net.0.proj", MLP, WIDTH);
                linear(shapes, block + stream + ".net.2", WIDTH, MLP);
            }
        }
        for (int i = 0; i < 38; i++) {
            String block = "single_transformer_blocks." + i + ".";
            linear(shapes, block + "norm.linear", 3 * WIDTH, WIDTH);
            linear(shapes, block + "proj_mlp", MLP, WIDTH);
            linear(shapes, block + "proj_out", WIDTH, WIDTH + MLP);
            shapes.put(block + "attn.norm_q.weight", new long[] {128});
            shapes.put(block + "attn.norm_k.weight", new long[] {128});
            for (String projection : List.of("to_q", "to_k", "to_v")) {
                linear(shapes, block + "attn." + projection, WIDTH, WIDTH);
            }
        }
        linear(shapes, "norm_out.linear", 2 * WIDTH, WIDTH);
        linear(shapes, "proj_out", 64, WIDTH);
        return shapes;
    }

    /** T5 v1.1 XXL's encoder: 4.8 billion parameters. */
    public static Map<String, long[]> t5() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put("shared.weight", new long[] {32128, JOINT});
        for (int i = 0; i < 24; i++) {
            String attention = "encoder.block." + i + ".layer.0.";
            for (String projection : List.of("q", "k", "v", "o")) {
                shapes.put(attention + "SelfAttention." + projection + ".weight", new long[] {JOINT, JOINT});
            }
            if (i == 0) {
                shapes.put(attention + "SelfAttention.relative_attention_bias.weight", new long[] {32, 64});
            }
            shapes.put(attention + "layer_norm.weight", new long[] {JOINT});
            String mlp = "encoder.block." + i + ".layer.1.";
            shapes.put(mlp + "DenseReluDense.wi_0.weight", new long[] {10240, JOINT});
            shapes.put(mlp + "DenseReluDense.wi_1.weight", new long[] {10240, JOINT});
            shapes.put(mlp + "DenseReluDense.wo.weight", new long[] {JOINT, 10240});
            shapes.put(mlp + "layer_norm.weight", new long[] {JOINT});
        }
        shapes.put("encoder.final_layer_norm.weight", new long[] {JOINT});
        return shapes;
    }

    /** CLIP L's text model: 123 million parameters. */
    public static Map<String, long[]> clip() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        shapes.put("text_model.embeddings.token_embedding.weight", new long[] {49408, POOLED});
        shapes.put("text_model.embeddings.position_embedding.weight", new long[] {77, POOLED});
        for (int i = 0; i < 12; i++) {
            String layer = "text_model.encoder.layers." + i + ".";
            for (String projection : List.of("k_proj", "v_proj", "q_proj", "out_proj")) {
                linear(shapes, layer + "self_attn." + projection, POOLED, POOLED);
            }
            norm(shapes, layer + "layer_norm1", POOLED);
            linear(shapes, layer + "mlp.fc1", 4 * POOLED, POOLED);
            linear(shapes, layer + "mlp.fc2", POOLED, 4 * POOLED);
            norm(shapes, layer + "layer_norm2", POOLED);
        }
        norm(shapes, "text_model.final_layer_norm", POOLED);
        return shapes;
    }

    /** The autoencoder of 16 channels: 84 million parameters. */
    public static Map<String, long[]> vae() {
        Map<String, long[]> shapes = new LinkedHashMap<>();
        int[] down = {128, 256, 512, 512};
        convolution(shapes, "encoder.conv_in", 128, 3, 3);
        for (int i = 0; i < 4; i++) {
            String block = "encoder.down_blocks." + i + ".";
            for (int j = 0; j < 2; j++) {
                residual(shapes, block + "resnets." + j, j == 0 ? down[Math.max(0, i - 1)] : down[i], down[i]);
            }
            if (i < 3) {
                convolution(shapes, block + "downsamplers.0.conv", down[i], down[i], 3);
            }
        }
        middle(shapes, "encoder.mid_block.");
        norm(shapes, "encoder.conv_norm_out", 512);
        convolution(shapes, "encoder.conv_out", 32, 512, 3);

        int[] up = {512, 512, 256, 128};
        convolution(shapes, "decoder.conv_in", 512, 16, 3);
        for (int i = 0; i < 4; i++) {
            String block = "decoder.up_blocks." + i + ".";
            for (int j = 0; j < 3; j++) {
                residual(shapes, block + "resnets." + j, j == 0 ? up[Math.max(0, i - 1)] : up[i], up[i]);
            }
            if (i < 3) {
                convolution(shapes, block + "upsamplers.0.conv", up[i], up[i], 3);
            }
        }
        middle(shapes, "decoder.mid_block.");
        norm(shapes, "decoder.conv_norm_out", 128);
        convolution(shapes, "decoder.conv_out", 3, 128, 3);
        return shapes;
    }

    private static void middle(Map<String, long[]> shapes, String block) {
        norm(shapes, block + "attentions.0.group_norm", 512);
        for (String projection : List.of("to_q", "to_k", "to_v", "to_out.0")) {
            linear(shapes, block + "attentions.0." + projection, 512, 512);
        }
        residual(shapes, block + "resnets.0", 512, 512);
        residual(shapes, block + "resnets.1", 512, 512);
    }

    private static void residual(Map<String, long[]> shapes, String name, int in, int out) {
        norm(shapes, name + ".norm1", in);
        convolution(shapes, name + ".conv1", out, in, 3);
        norm(shapes, name + ".norm2", out);
        convolution(shapes, name + ".conv2", out, out, 3);
        if (in != out) {
            convolution(shapes, name + ".conv_shortcut", out, in, 1);
        }
    }

    private static void linear(Map<String, long[]> shapes, String name, long out, long in) {
        shapes.put(name + ".weight", new long[] {out, in});
        shapes.put(name + ".bias", new long[] {out});
    }

    private static void convolution(Map<String, long[]> shapes, String name, long out, long in, long side) {
        shapes.put(name + ".weight", new long[] {out, in, side, side});
        shapes.put(name + ".bias", new long[] {out});
    }

    private static void norm(Map<String, long[]> shapes, String name, long width) {
        shapes.put(name + ".weight", new long[] {width});
        shapes.put(name + ".bias", new long[] {width});
    }

    /** Writes {@code config.json} and the weights, cut as soon as a file would exceed {@code largest} bytes. */
    private static void writePart(Path folder, String stem, Map<String, long[]> shapes, long largest, String config)
            throws IOException {
        Files.createDirectories(folder);
        Files.writeString(folder.resolve("config.json"), config);
        List<Map<String, long[]>> shards = new ArrayList<>(List.of(new LinkedHashMap<>()));
        long size = 0;
        for (Map.Entry<String, long[]> tensor : shapes.entrySet()) {
            size += bytes(tensor.getValue());
            if (size > largest) {
                shards.add(new LinkedHashMap<>());
                size = bytes(tensor.getValue());
            }
            shards.get(shards.size() - 1).put(tensor.getKey(), tensor.getValue());
        }
        if (shards.size() == 1) {
            writeFile(folder.resolve(stem + ".safetensors"), shards.get(0));
            return;
        }
        List<String> entries = new ArrayList<>();
        for (int i = 0; i < shards.size(); i++) {
            String file = String.format(Locale.ROOT, "%s-%05d-of-%05d.safetensors", stem, i + 1, shards.size());
            writeFile(folder.resolve(file), shards.get(i));
            shards.get(i).keySet().forEach(name -> entries.add("\"%s\": \"%s\"".formatted(name, file)));
        }
        Files.writeString(
                folder.resolve(stem + ".safetensors.index.json"),
                "{\"metadata\": {}, \"weight_map\": {" + String.join(", ", entries) + "}}");
    }

    /** A safetensors file of bfloat16 zeros, of which only the header takes room on the disk. */
    public static void writeFile(Path file, Map<String, long[]> shapes) throws IOException {
        List<String> entries = new ArrayList<>();
        long offset = 0;
        for (Map.Entry<String, long[]> tensor : shapes.entrySet()) {
            long end = offset + bytes(tensor.getValue());
            entries.add(String.format(
                    Locale.ROOT,
                    "\"%s\":{\"dtype\":\"BF16\",\"shape\":%s,\"data_offsets\":[%d,%d]}",
                    tensor.getKey(),
                    Arrays.toString(tensor.getValue()),
                    offset,
                    end));
            offset = end;
        }
        String json = entries.stream().collect(Collectors.joining(",", "{", "}"));
        byte[] header = (json + " ".repeat((8 - json.length() % 8) % 8)).getBytes(StandardCharsets.UTF_8);
        try (RandomAccessFile sparse = new RandomAccessFile(file.toFile(), "rw")) {
            sparse.write(ByteBuffer.allocate(8)
                    .order(ByteOrder.LITTLE_ENDIAN)
                    .putLong(header.length)
                    .array());
            sparse.write(header);
            sparse.setLength(8 + header.length + offset);
        }
    }

    private static long bytes(long[] shape) {
        return Arrays.stream(shape).reduce(2, Math::multiplyExact);
    }
}
