package org.scaledit.checkpoint;

import static java.util.Map.entry;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * How the tools that train a LoRA spell its keys: {@code prefix + module + suffix}. A new spelling is one entry of a
 * table here.
 */
final class LoraNames {
    enum Role {
        DOWN,
        UP,
        ALPHA
    }

    /** What a file calls one module: {@code name} is the key without its suffix. */
    record Key(String name, Role role) {}

    /**
     * The modules of diffusers that a name of a file stands for: several where the original code of FLUX has one
     * fused layer.
     *
     * @param halvesSwapped whether the two halves of the output are in the opposite order
     */
    record Target(List<String> modules, boolean halvesSwapped) {}

    private record Suffix(String text, Role role) {}

    private static final List<Suffix> SUFFIXES = List.of(
            new Suffix(".lora_A.weight", Role.DOWN),
            new Suffix(".lora_B.weight", Role.UP),
            new Suffix(".lora_A.default.weight", Role.DOWN),
            new Suffix(".lora_B.default.weight", Role.UP),
            new Suffix(".lora_down.weight", Role.DOWN),
            new Suffix(".lora_up.weight", Role.UP),
            new Suffix(".lora.down.weight", Role.DOWN),
            new Suffix(".lora.up.weight", Role.UP),
            new Suffix(".down.weight", Role.DOWN),
            new Suffix(".up.weight", Role.UP),
            new Suffix(".alpha", Role.ALPHA));

    /** What is in a key of another kind of adapter, and that kind's name. */
    private static final Map<String, String> OTHER_ADAPTERS = Map.of(
            ".dora_scale", "DoRA",
            ".lora_magnitude_vector", "DoRA",
            ".lokr_", "LoKr",
            ".hada_", "LoHa",
            ".oft_", "OFT",
            ".lora_mid.", "a convolutional LoRA",
            ".lora_B.bias", "a LoRA with biases",
            ".diff", "a difference of full weights");

    private static final List<String> IMAGE_QKV = List.of(
            "transformer_blocks.*.attn.to_q", "transformer_blocks.*.attn.to_k", "transformer_blocks.*.attn.to_v");
    private static final List<String> TEXT_QKV = List.of(
            "transformer_blocks.*.attn.add_q_proj",
            "transformer_blocks.*.attn.add_k_proj",
            "transformer_blocks.*.attn.add_v_proj");
    private static final List<String> SINGLE_QKV = List.of(
            "single_transformer_blocks.*.attn.to_q",
            "single_transformer_blocks.*.attn.to_k",
            "single_transformer_blocks.*.attn.to_v");

    /** Modules of the original FLUX code and what they are in diffusers; * is a block's number. */
    private static final Map<String, List<String>> ORIGINAL = Map.ofEntries(
            entry("img_in", List.of("x_embedder")),
            entry("txt_in", List.of("context_embedder")),
            entry("time_in.in_layer", List.of("time_text_embed.timestep_embedder.linear_1")),
            entry("time_in.out_layer", List.of("time_text_embed.timestep_embedder.linear_2")),
            entry("guidance_in.in_layer", List.of("time_text_embed.guidance_embedder.linear_1")),
            entry("guidance_in.out_layer", List.of("time_text_embed.guidance_embedder.linear_2")),
            entry("vector_in.in_layer", List.of("time_text_embed.text_embedder.linear_1")),
            entry("vector_in.out_layer", List.of("time_text_embed.text_embedder.linear_2")),
            entry("double_blocks.*.img_mod.lin", List.of("transformer_blocks.*.norm1.linear")),
            entry("double_blocks.*.txt_mod.lin", List.of("transformer_blocks.*.norm1_context.linear")),
            entry("double_blocks.*.img_attn.qkv", IMAGE_QKV),
            entry("double_blocks.*.txt_attn.qkv", TEXT_QKV),
            entry("double_blocks.*.img_attn.proj", List.of("transformer_blocks.*.attn.to_out.0")),
            entry("double_blocks.*.txt_attn.proj", List.of("transformer_blocks.*.attn.to_add_out")),
            entry("double_blocks.*.img_mlp.0", List.of("transformer_blocks.*.ff.net.0.proj")),
            entry("double_blocks.*.img_mlp.2", List.of("transformer_blocks.*.ff.net.2")),
            entry("double_blocks.*.txt_mlp.0", List.of("transformer_blocks.*.ff_context.net.0.proj")),
            entry("double_blocks.*.txt_mlp.2", List.of("transformer_blocks.*.ff_context.net.2")),
            entry("single_blocks.*.modulation.lin", List.of("single_transformer_blocks.*.norm.linear")),
            entry(
                    "single_blocks.*.linear1",
                    List.of(
                            "single_transformer_blocks.*.attn.to_q",
                            "single_transformer_blocks.*.attn.to_k",
                            "single_transformer_blocks.*.attn.to_v",
                            "single_transformer_blocks.*.proj_mlp")),
            entry("single_blocks.*.linear2", List.of("single_transformer_blocks.*.proj_out")),
            entry("final_layer.adaLN_modulation.1", List.of("norm_out.linear")),
            entry("final_layer.linear", List.of("proj_out")));

    /** The original code stores (shift, scale) here, diffusers (scale, shift). */
    private static final String SWAPPED = "final_layer.adaLN_modulation.1";

    /** XLabs puts its layers into processors; here qkv of a single block leaves the fused layer's MLP alone. */
    private static final Map<String, List<String>> XLABS = Map.ofEntries(
            entry("double_blocks.*.processor.qkv_lora1", IMAGE_QKV),
            entry("double_blocks.*.processor.qkv_lora2", TEXT_QKV),
            entry("double_blocks.*.processor.proj_lora1", List.of("transformer_blocks.*.attn.to_out.0")),
            entry("double_blocks.*.processor.proj_lora2", List.of("transformer_blocks.*.attn.to_add_out")),
            entry("single_blocks.*.processor.qkv_lora", SINGLE_QKV),
            entry("single_blocks.*.processor.proj_lora", List.of("single_transformer_blocks.*.proj_out")));

    /** Diffusers' own names. */
    private static final Map<String, List<String>> DIFFUSERS = ORIGINAL.values().stream()
            .flatMap(List::stream)
            .collect(Collectors.toUnmodifiableMap(module -> module, List::of));

    private record Spelling(String prefix, String separator, Map<String, List<String>> names) {}

    private static final List<Spelling> SPELLINGS = List.of(
            new Spelling("transformer.", ".", DIFFUSERS), // diffusers
            new Spelling("base_model.model.", ".", DIFFUSERS), // PEFT
            new Spelling("", ".", DIFFUSERS),
            new Spelling("diffusion_model.", ".", ORIGINAL), // ComfyUI, Black Forest Labs
            new Spelling("", ".", ORIGINAL),
            new Spelling("lora_unet_", "_", ORIGINAL), // kohya
            new Spelling("", ".", XLABS),
            new Spelling("diffusion_model.", ".", XLABS));

    /** A name of one spelling, compiled. */
    private record Form(Pattern name, List<String> modules, boolean halvesSwapped) {}

    private static final List<Form> FORMS = forms();

    private LoraNames() {}

    /** @throws CheckpointException if the key has no known form; {@code file} is for the message */
    static Key key(String key, Object file) {
        OTHER_ADAPTERS.forEach((mark, kind) -> {
            if (key.contains(mark)) {
                throw new CheckpointException(
                        "key " + key + " in " + file + " is that of " + kind + ", expected a plain LoRA");
            }
        });
        return SUFFIXES.stream()
                .filter(suffix -> key.endsWith(suffix.text))
                .findFirst()
                .map(suffix -> new Key(key.substring(0, key.length() - suffix.text.length()), suffix.role))
                .orElseThrow(() -> new CheckpointException("key " + key + " in " + file
                        + " is not that of a LoRA, expected an ending such as .lora_A.weight or .lora_down.weight"));
    }

    /** Whether a key has the form of a LoRA's, whatever module it names. */
    static boolean isKey(String key) {
        return OTHER_ADAPTERS.keySet().stream().noneMatch(key::contains)
                && SUFFIXES.stream().anyMatch(suffix -> key.endsWith(suffix.text));
    }

    /** The modules that a key's name stands for, if it is of a known form. */
    static Optional<Target> target(String name) {
        return FORMS.stream().flatMap(form -> match(form, name).stream()).findFirst();
    }

    private static Optional<Target> match(Form form, String name) {
        Matcher matcher = form.name.matcher(name);
        if (!matcher.matches()) {
            return Optional.empty();
        }
        String block = matcher.groupCount() == 0 ? "" : matcher.group(1);
        List<String> modules =
                form.modules.stream().map(module -> module.replace("*", block)).toList();
        return Optional.of(new Target(modules, form.halvesSwapped));
    }

    /** Every name of every spelling; one star of a name stands for the number of a block. */
    private static List<Form> forms() {
        List<Form> forms = new ArrayList<>();
        for (Spelling spelling : SPELLINGS) {
            spelling.names.forEach((name, modules) -> {
                String spelled = spelling.prefix + name.replace(".", spelling.separator);
                Pattern pattern = Pattern.compile(Pattern.quote(spelled).replace("*", "\\E(\\d{1,4})\\Q"));
                forms.add(new Form(pattern, modules, name.equals(SWAPPED)));
            });
        }
        return List.copyOf(forms);
    }
}
