package org.scaledit.scenes;

import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.function.BooleanSupplier;
import java.util.function.Function;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.scaledit.scenes.Content.Thing;

/** Says what a scene shows. */
final class Captions {
    /** What stands in brackets is left out with any of its words. */
    private static final List<String> TEMPLATES = List.of(
            "{subject}[ {place}][, {style} style]",
            "a picture of {subject}[ {place}][, {style} style]",
            "[{picture} of ]{subject}[ {place}]",
            "[{place}, ]{subject}[, {style} style]",
            "[{place} there {is} ]{subject}[ in {style} style]",
            "there {is} {subject}[ {place}][, {style} style]",
            "an illustration of {subject}[ {place}][ in {style} style]",
            "{subject}[ {place}][, {style}]",
            "[{style} style: ]{subject}[ {place}]",
            "{subject}[, {place}][, {style} art]");

    private static final Pattern CLAUSE = Pattern.compile("\\[([^\\]]*)\\]");
    private static final Pattern WORD = Pattern.compile("\\{(\\w+)\\}");
    private static final List<String> COUNTS = List.of("no", "one", "two", "three", "four");
    private static final double CLAUSE_LEFT_OUT = 0.3;
    private static final double ALL_LEFT_OUT = 0.1;
    private static final double OTHER_WORDS = 0.3;

    /** All that there is to say, and what is left of it to learn from. */
    record Caption(String whole, String text) {}

    private final Content content;
    private final int count;
    private final Style style;
    private final String template;
    private final String place;
    private final String relation;
    private final List<SceneObject.Name> names;

    private Captions(Content content, int count, Style style, Background background, SplittableRandom random) {
        this.content = content;
        this.count = count;
        this.style = style;
        this.template = TEMPLATES.get(random.nextInt(TEMPLATES.size()));
        this.place = background.places().get(random.nextInt(background.places().size()));
        boolean other = random.nextDouble() < OTHER_WORDS;
        this.relation = content.relation()
                .map(is -> other ? is.otherWords() : is.words())
                .orElse("and");
        this.names = content.things().stream()
                .map(thing -> thing.object().names())
                .map(all -> all.get(random.nextDouble() < OTHER_WORDS ? all.size() - 1 : 0))
                .toList();
    }

    /** @param count of each thing */
    static Caption of(Content content, int count, Style style, Background background, SplittableRandom random) {
        Captions captions = new Captions(content, count, style, background, random);
        String whole = captions.say(() -> true);
        String text = captions.say(() -> random.nextDouble() >= CLAUSE_LEFT_OUT);
        return new Caption(whole, random.nextDouble() < ALL_LEFT_OUT ? "" : text);
    }

    /** @param said whether the next clause is */
    private String say(BooleanSupplier said) {
        String subject = subject(said);
        boolean saysPlace = said.getAsBoolean();
        boolean saysStyle = said.getAsBoolean();
        Function<String, String> words = word -> switch (word) {
            case "subject" -> subject;
            case "place" -> saysPlace ? place : "";
            case "style" -> saysStyle ? style.word() : "";
            case "picture" -> saysStyle ? style.picture() : "";
            case "is" -> count > 1 || content.things().size() > 2 ? "are" : "is";
            default -> throw new IllegalStateException("a template has the word " + word);
        };
        String chosen = CLAUSE.matcher(template).replaceAll(clause -> {
            boolean whole = WORD.matcher(clause.group(1))
                    .results()
                    .noneMatch(word -> words.apply(word.group(1)).isEmpty());
            return whole ? Matcher.quoteReplacement(clause.group(1)) : "";
        });
        return WORD.matcher(chosen).replaceAll(word -> Matcher.quoteReplacement(words.apply(word.group(1))));
    }

    private String subject(BooleanSupplier said) {
        List<String> phrases = new ArrayList<>();
        for (int i = 0; i < content.things().size(); i++) {
            Thing thing = content.things().get(i);
            StringBuilder phrase = new StringBuilder();
            thing.colour()
                    .filter(colour -> said.getAsBoolean())
                    .ifPresent(colour -> phrase.append(colour.word()).append(' '));
            if (thing.material() != Material.NONE && said.getAsBoolean()) {
                phrase.append(thing.material().word()).append(' ');
            }
            phrase.append(count > 1 ? names.get(i).several() : names.get(i).one());
            phrases.add(count > 1 ? COUNTS.get(count) + " " + phrase : article(phrase.toString()) + " " + phrase);
        }
        if (phrases.size() == 1) {
            return phrases.get(0);
        }
        if (phrases.size() == 2 && content.relation().isPresent()) {
            return phrases.get(0) + " " + (said.getAsBoolean() ? relation : "and") + " " + phrases.get(1);
        }
        int last = phrases.size() - 1;
        return String.join(", ", phrases.subList(0, last)) + " and " + phrases.get(last);
    }

    /** By the sound of the next word. */
    private static String article(String phrase) {
        boolean an = phrase.matches("(?i)([aeio]|u(?!ni|fo)|hour).*");
        return an ? "an" : "a";
    }
}
