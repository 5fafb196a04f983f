package org.scaledit.benchmarks;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;
import org.scaledit.attention.Attention;
import org.scaledit.attention.AttentionWindow;
import org.scaledit.attention.DenseAttention;
import org.scaledit.attention.Geometry;
import org.scaledit.attention.NativeAttention;
import org.scaledit.attention.NativeAttention.Arithmetic;
import org.scaledit.attention.TokenLayout;
import org.scaledit.tensor.Placement;
import org.scaledit.tensor.Tensors;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/** The native core's attention on the CPU against what torch offers for the same mask. */
@Command(
        name = "bench cpu-attention",
        mixinStandardHelpOptions = true,
        description = "Scale-DiT's attention on all cores: native INT8 and float32 against torch.")
final class CpuAttention implements Callable<Integer> {
    private static final AttentionWindow WINDOW = AttentionWindow.DEFAULT;
    private static final int HEAD_DIM = 128;

    @Option(names = "--sizes", split = ",", defaultValue = "64,128", description = "Sides of the image in tokens.")
    private int[] sizes = {};

    @Option(names = "--heads", defaultValue = "8", description = "Attention heads. Default: ${DEFAULT-VALUE}.")
    private int heads;

    @Option(names = "--text", defaultValue = "512", description = "Text tokens. Default: ${DEFAULT-VALUE}.")
    private int text;

    @Option(
            names = "--runs",
            defaultValue = "5",
            description = "Runs to take the median of. Default: ${DEFAULT-VALUE}.")
    private int runs;

    @Option(
            names = "--precisions",
            split = ",",
            defaultValue = "float32,bfloat16",
            description =
                    "Precisions of the tensors. Torch's bfloat16 is slow without AVX-512. Default: ${DEFAULT-VALUE}.")
    private Precision[] precisions = {};

    private enum Precision {
        float32(torch.ScalarType.Float),
        bfloat16(torch.ScalarType.BFloat16);

        private final torch.ScalarType dtype;

        Precision(torch.ScalarType dtype) {
            this.dtype = dtype;
        }
    }

    @Option(names = "--json", paramLabel = "FILE", description = "Write the figures there as well.")
    private @Nullable Path json;

    public static void main(String[] arguments) {
        System.exit(new CommandLine(new CpuAttention()).execute(arguments));
    }

    @Override
    public Integer call() throws IOException {
        ArrayNode results = new ObjectMapper().createArrayNode();
        System.out.printf(
                Locale.ROOT,
                "%d heads x %d, %d text tokens, guidance ratio %d, %d threads; seconds, medians of %d%n",
                heads,
                HEAD_DIM,
                text,
                WINDOW.ratio(),
                torch.get_num_threads(),
                runs);
        for (int size : sizes) {
            if (size < 16 || size % 16 != 0) {
                throw new IllegalArgumentException("size is " + size + " tokens, expected a multiple of 16");
            }
            report(size, results);
        }
        if (json != null) {
            new ObjectMapper().writerWithDefaultPrettyPrinter().writeValue(json.toFile(), results);
        }
        return 0;
    }

    private void report(int size, ArrayNode results) {
        try (PointerScope scope = new PointerScope();
                Geometry geometry = Geometry.windowed(text, size, size, WINDOW);
                Peers peers = new Peers(size, geometry)) {
            double pairs = (double) geometry.pairs() * heads;
            List<Measurement> measurements = peers.measure();
            double masked = fastest(measurements, Peers.MASKED);
            double best = fastest(measurements, "torch");
            System.out.printf(
                    Locale.ROOT,
                    "%n%d x %d tokens, %.1f M pairs%n%-38s %9s %14s %13s %8s %12s%n",
                    size,
                    size,
                    pairs * 1e-6,
                    "",
                    "seconds",
                    "x masked SDPA",
                    "x best torch",
                    "ns/pair",
                    "relative L2");
            for (Measurement m : measurements) {
                System.out.printf(
                        Locale.ROOT,
                        "%-38s %9.4f %14.2f %13.2f %8.2f %12.1e%n",
                        m.name(),
                        m.seconds(),
                        masked / m.seconds(),
                        best / m.seconds(),
                        m.seconds() / pairs * 1e9,
                        m.error());
                ObjectNode row = results.addObject();
                row.put("tokens", size).put("heads", heads).put("text", text).put("pairs", pairs);
                row.put("name", m.name()).put("seconds", m.seconds()).put("relative_l2", m.error());
                row.put("times_masked_sdpa", masked / m.seconds()).put("times_best_torch", best / m.seconds());
            }
        }
    }

    private static double fastest(List<Measurement> measurements, String name) {
        return measurements.stream()
                .filter(m -> m.name().startsWith(name))
                .mapToDouble(Measurement::seconds)
                .min()
                .orElseThrow();
    }

    /** All ways to compute one attention, on the same inputs. */
    private final class Peers implements AutoCloseable {
        static final String MASKED = "torch SDPA, mask, ";

        private final int size;
        private final Geometry geometry;
        private final Tensor query; // [tokens, heads, head_dim], float32, raster order
        private final Tensor key;
        private final Tensor value;
        private final Tensor exact; // image rows of the result, [W·H, heads · head_dim]

        Peers(int size, Geometry geometry) {
            this.size = size;
            this.geometry = geometry;
            long[] shape = {geometry.layout().tokens(), heads, HEAD_DIM};
            this.query = Tensors.keep(torch.randn(shape, Placement.FLOAT32_CPU.options()));
            this.key = Tensors.keep(torch.randn(shape, Placement.FLOAT32_CPU.options()));
            this.value = Tensors.keep(torch.randn(shape, Placement.FLOAT32_CPU.options()));
            try (Attention native32 = new NativeAttention(geometry, Arithmetic.FLOAT32)) {
                this.exact = Tensors.keep(result(torch.ScalarType.Float, true, native32::attend));
            }
        }

        List<Measurement> measure() {
            List<Measurement> measurements = new ArrayList<>();
            for (Precision precision : precisions) {
                for (Arithmetic arithmetic : Arithmetic.values()) {
                    String name = "native " + arithmetic.name().toLowerCase(Locale.ROOT) + ", " + precision;
                    try (Attention attention = new NativeAttention(geometry, arithmetic)) {
                        measurements.add(measure(name, precision.dtype, true, attention::attend));
                    }
                }
            }
            TokenLayout raster = TokenLayout.raster(text, size, size, WINDOW.ratio());
            for (Precision precision : precisions) {
                try (Attention dense = DenseAttention.windowed(raster, WINDOW, Placement.FLOAT32_CPU)) {
                    measurements.add(measure(MASKED + precision, precision.dtype, false, dense::attend));
                }
                for (int block : new int[] {8, 16}) {
                    String name = "torch SDPA, gathered " + (block == 8 ? "cells, " : "windows, ") + precision;
                    try (GatheredAttention.Prepared gathered =
                            new GatheredAttention(text, size, size, WINDOW.ratio(), block).prepare()) {
                        measurements.add(measure(name, precision.dtype, false, gathered::attend));
                    }
                }
            }
            return measurements;
        }

        private Measurement measure(String name, torch.ScalarType dtype, boolean hilbert, Operator operator) {
            try (PointerScope scope = new PointerScope()) {
                Tensor difference = result(dtype, hilbert, operator).sub(exact);
                double error = difference.norm().item_double() / exact.norm().item_double();
                Tensor q = input(query, dtype, hilbert);
                Tensor k = input(key, dtype, hilbert);
                Tensor v = input(value, dtype, hilbert);
                return Measurement.of(name, error, runs, () -> operator.attend(q, k, v));
            }
        }

        /** Image rows in raster order, float32. */
        private Tensor result(torch.ScalarType dtype, boolean hilbert, Operator operator) {
            return Tensors.scoped(() -> {
                Tensor output = operator.attend(
                        input(query, dtype, hilbert), input(key, dtype, hilbert), input(value, dtype, hilbert));
                Tensor image = output.narrow(0, text, (long) size * size).reshape((long) size * size, heads * HEAD_DIM);
                return Tensors.toFloat32(hilbert ? geometry.layout().restoreImage(image) : image);
            });
        }

        private Tensor input(Tensor raster, torch.ScalarType dtype, boolean hilbert) {
            return Tensors.scoped(() -> {
                long image = (long) size * size;
                Tensor ordered = !hilbert
                        ? raster
                        : Tensors.concatenate(
                                0,
                                raster.narrow(0, 0, text),
                                geometry.layout().arrangeImage(raster.narrow(0, text, image)),
                                geometry.layout()
                                        .arrangeGuidance(
                                                raster.narrow(0, text + image, raster.size(0) - text - image)));
                return new Placement(dtype, false).place(ordered);
            });
        }

        @Override
        public void close() {
            for (Tensor tensor : new Tensor[] {query, key, value, exact}) {
                tensor.close();
            }
        }
    }

    @FunctionalInterface
    private interface Operator {
        Tensor attend(Tensor query, Tensor key, Tensor value);
    }
}
