package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ImageRequest;
import org.scaledit.ScaleDit;
import org.scaledit.evaluation.PromptBenchmark;
import org.scaledit.judge.Judge;
import org.scaledit.scenes.Composer;
import org.scaledit.scenes.SceneObject;
import org.scaledit.scenes.SceneRenderer;
import org.scaledit.scenes.Sprites;
import org.scaledit.scenes.Vocabulary;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code scaledit evaluate}. */
@Command(
        name = "evaluate",
        description =
                "Says how much of what prompts ask for a model of scenes paints: one object, two, two to four of it, a"
                        + " colour, a position, from held-out combinations, in equal shares. A judge looks at its pictures:"
                        + " prompts.csv has a row for each, prompts.json the shares that are right and how much windows' borders are"
                        + " seen, prompts.png the pictures.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class EvaluateCommand implements Callable<Integer> {
    private static final int STAGE_COLUMNS = 8;
    private static final String GENERATION = "generation";
    private static final String PICTURES = "pictures";

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Parameters(arity = "0..1", paramLabel = "MODEL", description = "FLUX.1 checkpoint, a diffusers directory.")
    private @Nullable Path model;

    @Option(
            names = "--renders",
            description = "Judge true renders of the prompts' scenes in place of a model's pictures: the most that a"
                    + " model can reach.")
    private boolean renders;

    @Option(names = "--judge", paramLabel = "DIR", required = true, description = "Judge that train judge has made.")
    @SuppressWarnings("NullAway.Init")
    private Path judge;

    @Option(
            names = "--prompts",
            paramLabel = "N",
            defaultValue = "400",
            description = "Prompts in all. Default: ${DEFAULT-VALUE}.")
    private int prompts;

    @Option(
            names = "--size",
            paramLabel = "N",
            description = "Pixels along each side. A picture of the judge's own size is one of plain FLUX (--levels 0)"
                    + " unless --levels says something else. Default: the judge's.")
    private @Nullable Integer size;

    @Option(
            names = "--seed",
            paramLabel = "N",
            defaultValue = "0",
            description = "Another one gives other prompts and other noise. Default: ${DEFAULT-VALUE}.")
    private long seed;

    @Mixin(name = GENERATION)
    private final GenerationOptions options = new GenerationOptions();

    @Option(
            names = "--sprites",
            paramLabel = "DIR",
            description = "The SVG sets of scenes, which tools/sprites fetches. Default: those that it has fetched.")
    private @Nullable Path sprites;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            required = true,
            description = "Folder for what comes out.")
    private Path output = Path.of("");

    @Option(
            names = "--pictures",
            description = "Write each picture, too, into pictures in that folder, which is to be made: for fid.")
    private boolean pictures;

    @Option(names = "--quiet", description = "No progress.")
    private boolean quiet;

    @Override
    public Integer call() throws Exception {
        checkPainter();
        Arguments.requireExists("judge", judge);
        options.checkFiles();
        Path innermost = pictures ? output.resolve(PICTURES) : output;
        if (pictures) {
            Arguments.requireAbsent(innermost);
        }
        try (OutputFolder made = OutputFolder.make(innermost);
                CleanInterrupt interrupt = new CleanInterrupt();
                Judge opinion = PromptBenchmark.judge(judge, options.device() == ScaleDit.Device.CUDA);
                ProgressDisplay display = ProgressDisplay.of(
                        quiet, STAGE_COLUMNS, spec.commandLine().getErr())) {
            int side = size == null ? opinion.size() : size;
            PromptBenchmark.Order order = new PromptBenchmark.Order(prompts, side, seed);
            Sprites opened = Sprites.open(Arguments.spritesFolder(sprites));
            Vocabulary vocabulary = Vocabulary.standard();
            requireKnown(vocabulary, opinion);
            Composer composer = new Composer(vocabulary, opened, true);
            PromptBenchmark.Listener listener = (done, all, right) ->
                    display.show("judge", done, all, String.format(Locale.ROOT, "%.3f right", (double) right / done));
            if (model == null) {
                PromptBenchmark.requireSide(side, opinion.size());
                PromptBenchmark.Painter painter = kept(PromptBenchmark.Painter.of(new SceneRenderer(opened), side));
                report(PromptBenchmark.run(opinion, composer, order, painter, listener), opinion, "renders");
            } else {
                ImageRequest request = request(side, opinion);
                // Before hours of painting, and before the model is loaded.
                PromptBenchmark.requireSide(
                        PromptBenchmark.lastSide(ScaleDit.completed(model, request)), opinion.size());
                ScaleDit.Builder builder = ScaleDit.builder(model);
                options.apply(builder);
                try (ScaleDit loaded = builder.load()) {
                    PromptBenchmark.Painter painter = kept(PromptBenchmark.Painter.of(loaded, request));
                    report(PromptBenchmark.run(opinion, composer, order, painter, listener), opinion, model.toString());
                }
            }
        }
        return 0;
    }

    /** Either a model, as the options say, or renders. */
    private void checkPainter() {
        if ((model == null) != renders) {
            throw new ParameterException(
                    spec.commandLine(),
                    renders
                            ? "Both MODEL and --renders given, expected one of them"
                            : "No model given, expected MODEL or --renders");
        }
        if (model != null) {
            Arguments.requireExists("model", model);
            return;
        }
        for (OptionSpec option :
                Objects.requireNonNull(spec.mixins().get(GENERATION)).options()) {
            boolean given = spec.commandLine().getParseResult().hasMatchedOption(option.longestName());
            if (given && !option.longestName().equals("--device")) {
                throw new ParameterException(
                        spec.commandLine(), option.longestName() + " is given beside --renders, expected a model");
            }
        }
    }

    /** One that knows others is never right about some prompts, and takes things for what none of them names. */
    private void requireKnown(Vocabulary vocabulary, Judge opinion) {
        List<SceneObject> known = opinion.vocabulary().objects();
        if (!Set.copyOf(known).equals(Set.copyOf(vocabulary.objects()))) {
            throw new IllegalArgumentException("judge " + judge + " knows " + known.size() + " objects, expected the "
                    + vocabulary.objects().size() + " that prompts are about");
        }
    }

    private PromptBenchmark.Painter kept(PromptBenchmark.Painter painter) {
        return pictures ? painter.keepingIn(output.resolve(PICTURES)) : painter;
    }

    private ImageRequest request(int side, Judge opinion) {
        return options.applied(ImageRequest.of("").size(side, side).levels(side == opinion.size() ? 0 : 1));
    }

    private void report(PromptBenchmark benchmark, Judge opinion, String painter) {
        benchmark.write(output, painter);
        PrintWriter out = spec.commandLine().getOut();
        out.println("right: " + benchmark.right().words());
        benchmark.seams().ifPresent(ratio -> out.println("seams: " + ratio.words()));
        benchmark.tokenBorders().ifPresent(ratio -> out.println("other borders of tokens: " + ratio.words()));
        out.println("the judge, about renders: " + opinion.accuracy().heldOut().words());
        out.flush();
    }
}
