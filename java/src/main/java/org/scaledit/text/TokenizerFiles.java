package org.scaledit.text;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.Function;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * Makes tokenizers for a vocabulary of a few hundred words, in the ordinary files: each of its words is one token, whatever
 * else is spelt. CLIP's merges are those of byte pair encoding (Sennrich et al., arXiv 1508.07909); T5's are the words as
 * pieces of a unigram model.
 *
 * @param contents of the files by their names
 * @param tokens how many there are
 */
public record TokenizerFiles(Map<String, String> contents, int tokens) {
    private static final String END_OF_WORD = "</w>";
    private static final String START = "<|startoftext|>";
    private static final String END = "<|endoftext|>";

    /** CLIP's own cut, of lower-case text. */
    private static final Pattern WORD = Pattern.compile("'s|'t|'re|'ve|'m|'ll|'d|\\p{L}+|\\p{N}|[^\\s\\p{L}\\p{N}]+");

    private static final ObjectMapper JSON = new ObjectMapper();

    /**
     * {@code vocab.json}, {@code merges.txt} and {@code tokenizer_config.json}. The last token ends a text and pads it.
     *
     * @param texts that the words are taken from
     * @param length of a text, padding included
     */
    public static TokenizerFiles clip(Collection<String> texts, int length) {
        Map<String, Integer> words = count(
                texts,
                text -> WORD.matcher(text.toLowerCase(Locale.ROOT))
                        .results()
                        .map(MatchResult::group)
                        .toList());
        Set<String> tokens = new LinkedHashSet<>();
        List<String> bytes = bytes();
        tokens.addAll(bytes);
        bytes.forEach(letter -> tokens.add(letter + END_OF_WORD));
        List<String> merges = merges(words, bytes);
        merges.forEach(merge -> tokens.add(merge.replace(" ", "")));
        tokens.add(START);
        tokens.add(END);
        ObjectNode vocabulary = JSON.createObjectNode();
        tokens.forEach(token -> vocabulary.put(token, vocabulary.size()));
        Map<String, String> files = new LinkedHashMap<>();
        files.put("vocab.json", vocabulary.toString());
        files.put(
                "merges.txt",
                "#version: 0.2\n" + merges.stream().map(merge -> merge + "\n").collect(Collectors.joining()));
        files.put("tokenizer_config.json", String.format(Locale.ROOT, """
                {"tokenizer_class": "CLIPTokenizer", "do_lower_case": true, "model_max_length": %d,
                 "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
                 "pad_token": "<|endoftext|>"}
                """, length));
        return new TokenizerFiles(files, tokens.size());
    }

    /**
     * {@code tokenizer.json} and {@code tokenizer_config.json}.
     *
     * @param texts that the words are taken from
     * @param length of a text, padding included
     */
    public static TokenizerFiles t5(Collection<String> texts, int length) {
        Map<String, Integer> words = count(
                texts,
                text -> WORD.matcher(text.toLowerCase(Locale.ROOT))
                        .results()
                        .map(MatchResult::group)
                        .toList());
        double all = words.values().stream().mapToInt(Integer::intValue).sum();
        Map<String, Double> pieces = new LinkedHashMap<>();
        pieces.put("<pad>", 0.0);
        pieces.put("</s>", 0.0);
        pieces.put("<unk>", 0.0);
        // A word in one piece, or behind another one, is always more likely than its letters.
        words.forEach((word, count) -> pieces.put("▁" + word, Math.log(count / all)));
        words.forEach((word, count) -> pieces.putIfAbsent(word, Math.log(count / all) - 1));
        double letter = Math.log(1 / all) - 2;
        pieces.putIfAbsent("▁", letter);
        for (char c = '!'; c <= '~'; c++) {
            pieces.putIfAbsent(String.valueOf(c), letter);
        }
        ArrayNode vocabulary = JSON.createArrayNode();
        pieces.forEach((piece, score) -> vocabulary.addArray().add(piece).add(score));
        Map<String, String> files = new LinkedHashMap<>();
        files.put(
                "tokenizer.json",
                String.format(
                        Locale.ROOT,
                        """
                {"version": "1.0", "truncation": null, "padding": null,
                 "added_tokens": [%s],
                 "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
                 "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"},
                  {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]},
                 "post_processor": {"type": "TemplateProcessing",
                  "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                  "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}},
                   {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                  "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}},
                 "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
                 "model": {"type": "Unigram", "unk_id": 2, "byte_fallback": false, "vocab": %s}}
                """,
                        String.join(", ", special(0, "<pad>"), special(1, "</s>"), special(2, "<unk>")),
                        vocabulary));
        files.put("tokenizer_config.json", String.format(Locale.ROOT, """
                {"tokenizer_class": "T5Tokenizer", "model_max_length": %d, "extra_ids": 0, "eos_token": "</s>",
                 "unk_token": "<unk>", "pad_token": "<pad>"}
                """, length));
        return new TokenizerFiles(files, pieces.size());
    }

    private static String special(int id, String content) {
        return JSON.createObjectNode()
                .put("id", id)
                .put("content", content)
                .put("single_word", false)
                .put("lstrip", false)
                .put("rstrip", false)
                .put("normalized", false)
                .put("special", true)
                .toString();
    }

    /** How often each word occurs, the most frequent first. */
    private static Map<String, Integer> count(Collection<String> texts, Function<String, List<String>> words) {
        Map<String, Integer> counts = new TreeMap<>();
        texts.forEach(text -> words.apply(text).forEach(word -> counts.merge(word, 1, Integer::sum)));
        Map<String, Integer> ordered = new LinkedHashMap<>();
        counts.entrySet().stream()
                .sorted(Map.Entry.<String, Integer>comparingByValue().reversed())
                .forEach(entry -> ordered.put(entry.getKey(), entry.getValue()));
        return ordered;
    }

    /** Pairs of tokens with a space between them, the most frequent pair first, until each word is one token. */
    private static List<String> merges(Map<String, Integer> words, List<String> bytes) {
        Map<List<String>, Integer> spelt = new LinkedHashMap<>();
        words.forEach((word, count) -> {
            List<String> letters = new ArrayList<>();
            for (byte letter : word.getBytes(StandardCharsets.UTF_8)) {
                letters.add(bytes.get(letter & 0xFF));
            }
            int last = letters.size() - 1;
            letters.set(last, letters.get(last) + END_OF_WORD);
            spelt.merge(letters, count, Integer::sum);
        });
        List<String> merges = new ArrayList<>();
        while (true) {
            Map<String, Integer> pairs = new TreeMap<>();
            spelt.forEach((letters, count) -> {
                for (int i = 0; i + 1 < letters.size(); i++) {
                    pairs.merge(letters.get(i) + " " + letters.get(i + 1), count, Integer::sum);
                }
            });
            if (pairs.isEmpty()) {
                return merges;
            }
            String best = pairs.entrySet().stream()
                    .max(Map.Entry.<String, Integer>comparingByValue()
                            .thenComparing(Map.Entry.comparingByKey(Comparator.reverseOrder())))
                    .orElseThrow()
                    .getKey();
            merges.add(best);
            Map<List<String>, Integer> merged = new LinkedHashMap<>();
            spelt.forEach((letters, count) -> merged.merge(merged(letters, best), count, Integer::sum));
            spelt.clear();
            spelt.putAll(merged);
        }
    }

    private static List<String> merged(List<String> letters, String pair) {
        List<String> merged = new ArrayList<>();
        for (int i = 0; i < letters.size(); i++) {
            boolean here = i + 1 < letters.size() && pair.equals(letters.get(i) + " " + letters.get(i + 1));
            merged.add(here ? letters.get(i) + letters.get(i + 1) : letters.get(i));
            i += here ? 1 : 0;
        }
        return merged;
    }

    /** The letter that stands for each byte, as GPT-2 has it: its own if it can be seen, otherwise one from 256 on. */
    private static List<String> bytes() {
        Set<Integer> seen = new TreeSet<>();
        for (int b = 0; b < 256; b++) {
            if (b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
                seen.add(b);
            }
        }
        List<String> letters = new ArrayList<>();
        int next = 256;
        for (int b = 0; b < 256; b++) {
            letters.add(String.valueOf((char) (seen.contains(b) ? b : next++)));
        }
        return letters;
    }
}
