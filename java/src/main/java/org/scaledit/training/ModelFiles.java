package org.scaledit.training;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Predicate;
import java.util.function.Supplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.bytedeco.pytorch.Tensor;
import org.scaledit.checkpoint.ModelDirectory;
import org.scaledit.checkpoint.SafetensorsWriter;
import org.scaledit.file.Reasons;
import org.scaledit.file.UnfinishedFile;
import org.scaledit.sampling.Schedule;
import org.scaledit.text.TokenizerFiles;
import org.scaledit.transformer.FluxConfig;
import org.scaledit.vae.VaeConfig;

/**
 * Writes a model's directory in diffusers' layout. Every file appears, or replaces an older one, when it is whole.
 *
 * @param folder of the model, which is made
 */
record ModelFiles(Path folder) {
    static final String VAE = "vae";
    static final String TRANSFORMER = "transformer";
    static final String CLIP = "text_encoder";
    static final String T5 = "text_encoder_2";
    static final String CLIP_TOKENIZER = "tokenizer";
    static final String T5_TOKENIZER = "tokenizer_2";
    private static final String CONFIG = "config.json";
    private static final int T5_BUCKETS = 32;
    private static final int T5_FARTHEST = 128;

    /**
     * What the parts are, but the autoencoder: tokenizers and configurations, without a weight that is trained.
     *
     * @param captions that the tokenizers' words are taken from, if encoders are trained
     */
    void begin(ModelRecipe recipe, Supplier<List<String>> captions) {
        if (recipe.text().frozen().isPresent()) {
            copy(recipe.text().frozen().get(), file -> true, CLIP_TOKENIZER, T5_TOKENIZER, CLIP, T5);
        } else if (recipe.start().isPresent()) {
            // Their weights are written when they have been trained, in one file: an index of several would be read
            // first.
            copy(recipe.start().get(), file -> !file.contains(".safetensors"), CLIP_TOKENIZER, T5_TOKENIZER, CLIP, T5);
        } else {
            beginText(recipe, captions.get());
        }
        FluxConfig flux = recipe.transformer().config();
        write(
                TRANSFORMER,
                CONFIG,
                String.format(
                        Locale.ROOT,
                        """
                {"_class_name": "FluxTransformer2DModel", "in_channels": %d, "out_channels": null, "patch_size": 1,
                 "num_layers": %d, "num_single_layers": %d, "num_attention_heads": %d, "attention_head_dim": %d,
                 "joint_attention_dim": %d, "pooled_projection_dim": %d, "guidance_embeds": %b, "axes_dims_rope": %s}
                """,
                        flux.latentChannels(),
                        flux.doubleBlocks(),
                        flux.singleBlocks(),
                        flux.heads(),
                        flux.headDim(),
                        flux.jointWidth(),
                        flux.pooledWidth(),
                        flux.guidanceEmbedder(),
                        flux.axes()));
        boolean fewSteps = recipe.transformer().fewSteps().isPresent();
        write(
                "scheduler",
                "scheduler_config.json",
                String.format(Locale.ROOT, """
                {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": %s,
                 "use_dynamic_shifting": %b, "base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5,
                 "max_shift": 1.15}
                """, Schedule.HIGH_RESOLUTION_SHIFT, !fewSteps));
        write("", "model_index.json", """
                {"_class_name": "FluxPipeline",
                 "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                 "text_encoder": ["transformers", "CLIPTextModel"],
                 "text_encoder_2": ["transformers", "T5EncoderModel"],
                 "tokenizer": ["transformers", "CLIPTokenizer"],
                 "tokenizer_2": ["transformers", "T5TokenizerFast"],
                 "transformer": ["diffusers", "FluxTransformer2DModel"],
                 "vae": ["diffusers", "AutoencoderKL"]}
                """);
    }

    private void beginText(ModelRecipe recipe, List<String> captions) {
        ModelRecipe.Clip clip = recipe.text().clip();
        ModelRecipe.T5 t5 = recipe.text().t5();
        int clipTokens = tokenizer(CLIP_TOKENIZER, TokenizerFiles.clip(captions, clip.tokens()));
        int t5Tokens = tokenizer(
                T5_TOKENIZER, TokenizerFiles.t5(captions, recipe.text().tokens()));
        write(
                CLIP,
                CONFIG,
                String.format(
                        Locale.ROOT,
                        """
                {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "hidden_act": "quick_gelu",
                 "hidden_size": %d, "num_hidden_layers": %d, "num_attention_heads": %d, "intermediate_size": %d,
                 "projection_dim": %d, "max_position_embeddings": %d, "vocab_size": %d, "layer_norm_eps": 1e-05,
                 "bos_token_id": %d, "eos_token_id": %d, "pad_token_id": %d, "dtype": "float32"}
                """,
                        clip.width(),
                        clip.layers(),
                        clip.heads(),
                        4 * clip.width(),
                        clip.width(),
                        clip.tokens(),
                        clipTokens,
                        clipTokens - 2,
                        clipTokens - 1,
                        clipTokens - 1));
        write(
                T5,
                CONFIG,
                String.format(
                        Locale.ROOT,
                        """
                {"architectures": ["T5EncoderModel"], "model_type": "t5", "feed_forward_proj": "gated-gelu",
                 "dense_act_fn": "gelu_new", "is_gated_act": true, "d_model": %d, "num_layers": %d, "num_heads": %d,
                 "d_kv": %d, "d_ff": %d, "vocab_size": %d, "relative_attention_num_buckets": %d,
                 "relative_attention_max_distance": %d, "layer_norm_epsilon": 1e-06, "is_encoder_decoder": false,
                 "use_cache": false, "pad_token_id": 0, "eos_token_id": 1, "dtype": "float32"}
                """,
                        t5.width(),
                        t5.layers(),
                        t5.heads(),
                        t5.width() / t5.heads(),
                        t5.hidden(),
                        t5Tokens,
                        T5_BUCKETS,
                        T5_FARTHEST));
    }

    /** The autoencoder of another model. */
    void copyVae(Path model) {
        copy(model, file -> true, VAE);
    }

    /** @param wanted which files, by their names */
    private void copy(Path model, Predicate<String> wanted, String... parts) {
        for (String part : parts) {
            try (Stream<Path> files = Files.list(ModelDirectory.open(model).part(part))) {
                for (Path file : files.filter(Files::isRegularFile)
                        .filter(file -> wanted.test(file.getFileName().toString()))
                        .toList()) {
                    Path copy = made(part).resolve(file.getFileName().toString());
                    try (UnfinishedFile unfinished = new UnfinishedFile(copy)) {
                        Files.copy(file, unfinished.stream());
                        unfinished.commit();
                    }
                }
            } catch (IOException e) {
                throw new TrainingException(
                        "cannot copy " + model.resolve(part) + " to " + folder + ": " + Reasons.of(e), e);
            }
        }
    }

    private int tokenizer(String part, TokenizerFiles files) {
        files.contents().forEach((name, content) -> write(part, name, content));
        return files.tokens();
    }

    /** The autoencoder: its weights first, so that a configuration says that it is there. */
    void vae(VaeConfig config, Map<String, Tensor> weights) {
        weights(VAE, weights);
        write(
                VAE,
                CONFIG,
                String.format(
                        Locale.ROOT,
                        """
                {"_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": %s,
                 "down_block_types": %s, "up_block_types": %s, "in_channels": 3, "out_channels": 3,
                 "latent_channels": %d, "layers_per_block": %d, "norm_num_groups": %d, "sample_size": %d,
                 "scaling_factor": %s, "shift_factor": %s, "mid_block_add_attention": %b, "force_upcast": false,
                 "latents_mean": null, "latents_std": null, "use_quant_conv": false, "use_post_quant_conv": false}
                """,
                        config.blockChannels(),
                        each(config, "DownEncoderBlock2D"),
                        each(config, "UpDecoderBlock2D"),
                        config.latentChannels(),
                        config.layersPerBlock(),
                        config.normGroups(),
                        config.sampleSize(),
                        config.scalingFactor(),
                        config.shiftFactor(),
                        config.midAttention()));
    }

    private static String each(VaeConfig config, String block) {
        return IntStream.range(0, config.blockChannels().size())
                .mapToObj(level -> '"' + block + '"')
                .collect(Collectors.joining(", ", "[", "]"));
    }

    /** Whether {@link #vae} has come to its end. */
    boolean hasVae() {
        return Files.exists(folder.resolve(VAE).resolve(CONFIG));
    }

    /** The weights of a part, by the names that diffusers and transformers give them. */
    void weights(String part, Map<String, Tensor> weights) {
        boolean text = part.equals(CLIP) || part.equals(T5);
        Path file = made(part).resolve((text ? "model" : "diffusion_pytorch_model") + ".safetensors");
        SafetensorsWriter.write(file, weights, Map.of("format", "pt"));
    }

    private Path made(String part) {
        try {
            return Files.createDirectories(folder.resolve(part));
        } catch (IOException e) {
            throw new TrainingException("folder " + folder.resolve(part) + " cannot be made: " + Reasons.of(e), e);
        }
    }

    private void write(String part, String name, String content) {
        Path file = made(part).resolve(name);
        try (UnfinishedFile unfinished = new UnfinishedFile(file)) {
            unfinished.stream().write(content.getBytes(StandardCharsets.UTF_8));
            unfinished.commit();
        } catch (IOException e) {
            throw new TrainingException("cannot write " + file + ": " + Reasons.of(e), e);
        }
    }
}
