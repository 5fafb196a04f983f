package org.scaledit.text;

import com.fasterxml.jackson.core.io.JsonStringEncoder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.stream.Collectors;
import org.scaledit.checkpoint.CheckpointException;
import org.scaledit.checkpoint.Config;
import org.scaledit.file.Reasons;

/**
 * CLIP's tokens as the fast tokenizer of Hugging Face gives them. FLUX.1 comes with {@code vocab.json} and
 * {@code merges.txt} for it; the {@code tokenizer.json} that the library reads is made of them here, as
 * {@code CLIPConverter} of transformers does.
 */
public final class ClipTokenizer implements AutoCloseable {
    private static final String START = "<|startoftext|>";
    private static final String END = "<|endoftext|>";

    /** To be filled with: start id, end id, end id, start id, vocabulary, merges. */
    private static final String TOKENIZER = """
        {
          "version": "1.0",
          "added_tokens": [
            {"id": %d, "content": "<|startoftext|>", "special": true, "normalized": true,
             "single_word": false, "lstrip": false, "rstrip": false},
            {"id": %d, "content": "<|endoftext|>", "special": true, "normalized": true,
             "single_word": false, "lstrip": false, "rstrip": false}
          ],
          "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\\\s+"}, "content": " "},
            {"type": "Lowercase"}
          ]},
          "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "behavior": "Removed", "invert": true, "pattern": {"Regex":
              "'s|'t|'re|'ve|'m|'ll|'d|[\\\\p{L}]+|[\\\\p{N}]|[^\\\\s\\\\p{L}\\\\p{N}]+"}},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
          ]},
          "post_processor": {"type": "RobertaProcessing", "sep": ["<|endoftext|>", %d],
            "cls": ["<|startoftext|>", %d], "trim_offsets": false, "add_prefix_space": false},
          "model": {"type": "BPE", "unk_token": "<|endoftext|>", "end_of_word_suffix": "</w>",
            "continuing_subword_prefix": "", "fuse_unk": false, "vocab": %s, "merges": [%s]}
        }
        """;

    private final Tokenizer tokenizer;
    private final long padding;

    ClipTokenizer(Tokenizer tokenizer) {
        this.tokenizer = tokenizer;
        this.padding = tokenizer.requiredId(END);
    }

    /**
     * @param folder with {@code vocab.json} and {@code merges.txt}
     * @throws CheckpointException if one of them is missing or damaged
     */
    public static ClipTokenizer load(Path folder) {
        Path vocabulary = folder.resolve("vocab.json");
        Config ids = Config.read(vocabulary);
        int start = ids.integer(START);
        int end = ids.integer(END);
        String json = String.format(
                Locale.ROOT, TOKENIZER, start, end, end, start, read(vocabulary), merges(folder.resolve("merges.txt")));
        return new ClipTokenizer(Tokenizer.of(json, folder));
    }

    /** {@code length} ids: the start token, the text's, the end token; cut or padded with end tokens. */
    public long[] ids(String text, int length) {
        return tokenizer.ids(text, length, padding);
    }

    /** The lines of the file as JSON strings, without the first one, which names a version. */
    private static String merges(Path file) {
        JsonStringEncoder json = JsonStringEncoder.getInstance();
        return read(file)
                .lines()
                .skip(1)
                .filter(line -> !line.isBlank())
                .map(line -> '"' + new String(json.quoteAsString(line)) + '"')
                .collect(Collectors.joining(","));
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (IOException e) {
            throw new CheckpointException("cannot read " + file + ", a part of the tokenizer: " + Reasons.of(e), e);
        }
    }

    @Override
    public void close() {
        tokenizer.close();
    }
}
