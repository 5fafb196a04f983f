package org.scaledit.attention;

import java.util.Optional;
import java.util.function.Supplier;
import org.bytedeco.pytorch.Tensor;

/**
 * The native core's attention of a pass, with the geometry that it is for: {@link NativeAttention} on a
 * CPU, {@link CudaAttention} on a GPU.
 */
public final class CoreAttention implements PartialAttention {
    private final boolean cuda;
    private final boolean int8;
    private final Optional<Supplier<Geometry>> withoutGuidanceQueries; // where guidance stands alone
    private Geometry geometry;
    private PartialAttention attention;

    /**
     * @param width tokens of the image's grid; {@code height} likewise
     * @param cuda whether the tokens are on a GPU
     * @param int8 whether queries and keys are quantised; if not, products are of float32 on a CPU, of bfloat16 on a GPU
     * @throws IllegalArgumentException naming the argument that the core does not take
     */
    public CoreAttention(int textTokens, int width, int height, AttentionWindow window, boolean cuda, boolean int8) {
        this(
                Geometry.windowed(textTokens, width, height, window),
                window.guidanceSeesText()
                        ? Optional.empty()
                        : Optional.of(() -> Geometry.withoutGuidanceQueries(textTokens, width, height, window)),
                cuda,
                int8);
    }

    /** Of a plain FLUX pass: no guidance tokens, everyone attends to everyone. */
    public static CoreAttention plain(int textTokens, int width, int height, boolean cuda, boolean int8) {
        return new CoreAttention(Geometry.full(textTokens, width, height), Optional.empty(), cuda, int8);
    }

    /**
     * Of one shard of a high-resolution pass. It leaves out no queries.
     *
     * @param index of the shard, from 0
     * @throws IllegalArgumentException likewise
     */
    static CoreAttention shard(Geometry whole, int shards, int index, boolean cuda, boolean int8) {
        return new CoreAttention(whole.shard(shards, index), Optional.empty(), cuda, int8);
    }

    private CoreAttention(
            Geometry geometry, Optional<Supplier<Geometry>> withoutGuidanceQueries, boolean cuda, boolean int8) {
        this.cuda = cuda;
        this.int8 = int8;
        this.withoutGuidanceQueries = withoutGuidanceQueries;
        this.geometry = geometry;
        this.attention = attentionFor(geometry);
    }

    /** Closes the geometry if it fails. */
    private PartialAttention attentionFor(Geometry made) {
        try {
            return cuda
                    ? new CudaAttention(made, int8 ? CudaAttention.Arithmetic.INT8 : CudaAttention.Arithmetic.BFLOAT16)
                    : new NativeAttention(
                            made, int8 ? NativeAttention.Arithmetic.INT8 : NativeAttention.Arithmetic.FLOAT32);
        } catch (RuntimeException | Error e) {
            made.close();
            throw e;
        }
    }

    /** How tokens must lie in memory. */
    public TokenLayout layout() {
        return geometry.layout();
    }

    @Override
    public Tensor attend(Tensor query, Tensor key, Tensor value) {
        return attention.attend(query, key, value);
    }

    @Override
    public void attend(Tensor query, Tensor key, Tensor value, Preparation preparation, Tensor output) {
        attention.attend(query, key, value, preparation, output);
    }

    @Override
    public void attend(
            Tensor query, Tensor key, Tensor value, Optional<Preparation> lacking, Tensor output, Tensor logSumExp) {
        attention.attend(query, key, value, lacking, output, logSumExp);
    }

    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value) {
        return attention.attendForGradients(query, key, value);
    }

    @Override
    public Gradients gradients(Tensor query, Tensor key, Tensor value, Attended attended, Tensor outputGradient) {
        return attention.gradients(query, key, value, attended, outputGradient);
    }

    @Override
    public boolean prepares() {
        return attention.prepares();
    }

    @Override
    public Attended attendForGradients(Tensor query, Tensor key, Tensor value, Preparation preparation) {
        return attention.attendForGradients(query, key, value, preparation);
    }

    @Override
    public Gradients gradients(
            Tensor query, Tensor key, Tensor value, Preparation preparation, Attended attended, Tensor outputGradient) {
        return attention.gradients(query, key, value, preparation, attended, outputGradient);
    }

    @Override
    public boolean guidanceStandsAlone() {
        return withoutGuidanceQueries.isPresent();
    }

    @Override
    public void leaveOutGuidanceQueries() {
        close(); // first, for its memory
        geometry = withoutGuidanceQueries.orElseThrow().get();
        attention = attentionFor(geometry);
    }

    /** May be called again. */
    @Override
    public void close() {
        attention.close();
        geometry.close();
    }
}
