package org.scaledit.cli;

import java.io.PrintWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import org.scaledit.ScaleDit.Device;
import org.scaledit.ScaleDit.Memory;
import org.scaledit.evaluation.Measurement;
import org.scaledit.evaluation.Method;
import org.scaledit.evaluation.Report;
import org.scaledit.evaluation.SharedMeasurement;
import org.scaledit.evaluation.SharedStepBenchmark;
import org.scaledit.evaluation.StepBenchmark;
import picocli.CommandLine.Command;
import picocli.CommandLine.ExitCode;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;
import picocli.CommandLine.TypeConversionException;

/** {@code scaledit bench}. */
@Command(
        name = "bench",
        description =
                "Measures a sampling step of the transformer beside other ways to compute attention: seconds, those of"
                        + " its bare matrix products in the same run, and the most memory that torch's allocator hands out above"
                        + " the weights that the GPU holds, and in all. What does not fit the memory is a row that says so; with a row that"
                        + " failed for another reason the exit status is 1.",
        mixinStandardHelpOptions = true,
        versionProvider = Version.class,
        sortOptions = false)
final class BenchCommand implements Callable<Integer> {
    private static final List<Method> USUAL = List.of(
            Method.SCALEDIT, Method.SCALEDIT_FP8, Method.DENSE_FLASH, Method.DENSE_CUDNN, Method.NAIVE, Method.LINEAR);

    @Spec
    @SuppressWarnings("NullAway.Init")
    private CommandSpec spec;

    @Option(
            names = "--model",
            paramLabel = "DIR",
            description =
                    "FLUX.1 checkpoint, a diffusers directory. Default: FLUX.1-dev's sizes with random weights, made"
                            + " on the GPU. Unless --memory is low, it has to hold these (24 GB) and what a step takes above"
                            + " them; those in FP8 are made layer by layer once those in bfloat16 are gone.")
    private @Nullable Path model;

    @Option(
            names = "--methods",
            paramLabel = "METHOD",
            split = ",",
            converter = MethodConverter.class,
            description =
                    "scaledit (native INT8 attention), scaledit-fp8 (large products in FP8, too), scaledit-exact (native, not quantised), training (a micro-step of a LoRA of rank 16: forward, every block once"
                            + " more, and back), dense-flash and"
                            + " dense-cudnn (plain FLUX, SDPA by FlashAttention-2 or cuDNN), naive (scores in memory, on a GPU"
                            + " those of a third of the heads at a time), linear"
                            + " (SANA's). Default: all but scaledit-exact and training that the device has.")
    private List<Method> methods = List.of();

    @Option(
            names = "--sizes",
            paramLabel = "N",
            split = ",",
            defaultValue = "1024,2048,4096",
            description = "Pixels along each side, multiples of 16. Default: ${DEFAULT-VALUE}.")
    private List<Integer> sizes = List.of();

    @Option(
            names = "--pictures",
            paramLabel = "N",
            split = ",",
            description =
                    "Those of the sizes at which the methods of Scale-DiT also paint a whole picture, the model loaded and"
                            + " the text encoded: the seconds of 28 steps of guidance, 28 of high resolution, and decoding."
                            + " Default: none.")
    private List<Integer> pictures = List.of();

    @Option(
            names = "--steps",
            paramLabel = "N",
            defaultValue = "5",
            description =
                    "Steps whose median counts; one that takes longer than 30 s is measured once, without warm-up and"
                            + " profile. Default: ${DEFAULT-VALUE}.")
    private int steps;

    @Option(
            names = "--warm-up",
            paramLabel = "N",
            defaultValue = "2",
            description = "Steps before, which do not count. Default: ${DEFAULT-VALUE}.")
    private int warmUp;

    @Option(
            names = "--text-tokens",
            paramLabel = "N",
            defaultValue = "512",
            description = "Length of the text. Default: ${DEFAULT-VALUE}.")
    private int textTokens;

    @Option(
            names = "--device",
            paramLabel = "KIND",
            defaultValue = "cuda",
            description = "cuda (an NVIDIA GPU, in bfloat16) or cpu (in float32; needs --model). Default: cuda.")
    private Device device = Device.CUDA;

    @Option(
            names = "--memory",
            paramLabel = "KIND",
            defaultValue = "normal",
            description =
                    "normal, or low (on a GPU: the transformer's blocks stay in the host's memory, of FLUX.1-dev 24 GB of it"
                            + " in bfloat16, 15 in FP8, and each comes while the one before it computes). Default: normal.")
    private Memory memory = Memory.NORMAL;

    @Option(
            names = "--gpus",
            paramLabel = "N|all",
            converter = GpusOption.Converter.class,
            description =
                    "Measure steps that the first N GPUs compute together, or all, beside those of one: seconds, what a GPU"
                            + " takes from others in a layer and what it would take in ring attention, the time of a step"
                            + " that it exchanges or waits, and the memory that is handed out on it. With --pictures, whole"
                            + " pictures as well. Methods: scaledit,"
                            + " scaledit-fp8, scaledit-exact; default: the first two. Random weights, or --model.")
    private @Nullable GpusOption gpus;

    @Option(
            names = "--profile",
            description = "Say where a step's time goes: one more step, with a mark in the GPU's queue at each part.")
    private boolean profile;

    @Option(
            names = {"-o", "--output"},
            paramLabel = "DIR",
            description =
                    "Folder for step.json, step.csv, step-time.png and step-memory.png. Default: none, the table alone.")
    private @Nullable Path output;

    @Override
    public Integer call() throws Exception {
        if (gpus != null) {
            return together(gpus);
        }
        StepBenchmark.Plan given = new StepBenchmark.Plan(methods, sizes, pictures, textTokens, warmUp, steps, profile);
        checkPaths();
        PrintWriter out = spec.commandLine().getOut();
        // Better to hear of an unwritable folder before everything is measured than after.
        try (OutputFolder made = OutputFolder.make(output);
                StepBenchmark benchmark =
                        StepBenchmark.open(Optional.ofNullable(model), device == Device.CUDA, memory == Memory.LOW)) {
            benchmark.hardware().forEach((name, value) -> out.println(name + ": " + value));
            StepBenchmark.Plan plan = methods.isEmpty() ? given.with(usual(benchmark, out)) : given;
            out.print(Report.head());
            out.flush();
            List<Measurement> measurements = benchmark.run(plan, measurement -> {
                out.print(Report.line(measurement));
                out.flush();
            });
            if (output != null) {
                new Report(benchmark.hardware(), description(), measurements).write(output);
            }
            return measurements.stream().anyMatch(Measurement::failed) ? ExitCode.SOFTWARE : ExitCode.OK;
        }
    }

    /** What several GPUs do. */
    private int together(GpusOption asked) {
        Map<String, Boolean> ofOneGpu = new LinkedHashMap<>();
        ofOneGpu.put("--profile", profile);
        ofOneGpu.put("--output", output != null);
        ofOneGpu.put("--memory low", memory == Memory.LOW);
        ofOneGpu.forEach((option, given) -> {
            if (given) {
                throw new IllegalArgumentException(option + " is given with --gpus, expected one of them");
            }
        });
        asked.require(device);
        // The same checks as those of steps by one GPU.
        StepBenchmark.Plan given = new StepBenchmark.Plan(methods, sizes, pictures, textTokens, warmUp, steps, profile);
        checkPaths();
        List<Method> measured = methods.isEmpty() ? List.of(Method.SCALEDIT, Method.SCALEDIT_FP8) : given.methods();
        SharedStepBenchmark benchmark = SharedStepBenchmark.open(
                Optional.ofNullable(model),
                new SharedStepBenchmark.Plan(measured, given.sizes(), given.pictures(), textTokens, warmUp, steps),
                asked.count(),
                true);
        PrintWriter out = spec.commandLine().getOut();
        benchmark.hardware().forEach((name, value) -> out.println(name + ": " + value));
        out.print(SharedMeasurement.head());
        out.flush();
        benchmark.run(measurement -> {
            out.print(measurement.line());
            out.flush();
        });
        return ExitCode.OK;
    }

    /** The methods that are measured unless some are named: without those that the device lacks, which are said. */
    private static List<Method> usual(StepBenchmark benchmark, PrintWriter out) {
        List<Method> methods = new ArrayList<>();
        List<String> leftOut = new ArrayList<>();
        for (Method method : USUAL) {
            benchmark
                    .lacking(method)
                    .ifPresentOrElse(
                            reason -> leftOut.add(method.label() + " (" + reason + ")"), () -> methods.add(method));
        }
        if (!leftOut.isEmpty()) {
            out.println("left out: " + String.join(", ", leftOut));
        }
        return methods;
    }

    private void checkPaths() {
        if (model != null) {
            Arguments.requireExists("model", model);
        } else if (device == Device.CPU) {
            throw new IllegalArgumentException(
                    "no model given, expected --model DIR on a CPU: random weights of FLUX.1-dev's size are for a GPU");
        }
    }

    private String description() {
        return model == null ? "FLUX.1-dev's sizes, random weights" : model.toString();
    }

    /** {@code dense-flash} for {@code DENSE_FLASH}. */
    static final class MethodConverter implements ITypeConverter<Method> {
        @Override
        public Method convert(String value) {
            try {
                return Method.of(value);
            } catch (IllegalArgumentException e) {
                throw new TypeConversionException(e.getMessage());
            }
        }
    }
}
