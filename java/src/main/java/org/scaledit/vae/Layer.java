package org.scaledit.vae;

import static org.scaledit.tensor.Tensors.optional;
import static org.scaledit.tensor.Tensors.scoped;

import java.util.List;
import java.util.Map;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.ScalarTypeOptional;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;
import org.scaledit.tensor.SoftmaxAttention;
import org.scaledit.tensor.Tensors;

/**
 * A layer of a convolutional network: names and sizes. Its weights are in a map, an autoencoder's by the names that diffusers'
 * {@code AutoencoderKL} gives them. A layer holds no more than it needs at a time: activations of a tile are by far the
 * largest tensors around.
 */
public sealed interface Layer {

    /** The layer's output. Closes {@code x} as soon as it can: whoever needs that further keeps a handle of its own. */
    Tensor forward(Map<String, Tensor> weights, Tensor x); // [batch, in, h, w] -> [batch, out, h', w']

    /** Enters the names and shapes of the layer's weights. */
    void declare(Map<String, long[]> shapes);

    /** Runs layers one after the other and leaves {@code x} open. */
    static Tensor run(List<Layer> layers, Map<String, Tensor> weights, Tensor x) {
        return scoped(() -> {
            Tensor hidden = new Tensor(x);
            for (Layer layer : layers) {
                Tensor input = hidden;
                hidden = scoped(() -> layer.forward(weights, input));
            }
            return hidden;
        });
    }

    /**
     * Whether a picture's channels lie side by side, as oneDNN's kernels want them on a CPU, and cuDNN's for bfloat16 on a GPU.
     * Elsewhere they lie one after the other.
     */
    static boolean channelsLast(Tensor x) {
        return !x.is_cuda() || x.scalar_type().intern() == torch.ScalarType.BFloat16;
    }

    /** Has the kernels of a convolution that is not trained lie as its output is to lie. */
    static Tensor laidOut(Tensor weight) {
        if (weight.dim() == 4 && channelsLast(weight)) {
            Tensors.run(() -> weight.__dispatch_set_data(weight.contiguous(torch.MemoryFormat.ChannelsLast)));
        }
        return weight;
    }

    /**
     * A convolution with bias. Unless channels lie last it is computed in strips, some rows of the output at a time: a
     * library that wants another layout copies its input and output, and at a tile's finest level, where they have a gigabyte,
     * those copies would be the largest thing around.
     */
    record Convolution(String name, int in, int out, int kernel, int stride, int padding) implements Layer {
        /** Of a strip's input and output together, without copies: enough work for a GPU. */
        private static final long STRIP_BYTES = 64L << 20;

        /** One that keeps height and width. */
        static Convolution same(String name, int in, int out, int kernel) {
            return new Convolution(name, in, out, kernel, 1, kernel / 2);
        }

        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            long height = outputSize(x, 2);
            long bytes = x.nbytes() / x.numel() * (x.numel() + x.size(0) * out * height * outputSize(x, 3));
            // In training what a gradient needs is kept in any case.
            boolean whole = channelsLast(x) || weight(weights, name).requires_grad();
            Tensor output = forward(weights, x, whole ? 1 : strips(bytes, height));
            x.close();
            return output;
        }

        /**
         * How many strips an output is cut into.
         *
         * @param bytes of input and output
         * @param height of the output, in rows
         */
        static int strips(long bytes, long height) {
            return (int) Math.min(height, (bytes + STRIP_BYTES - 1) / STRIP_BYTES);
        }

        /** In so many strips of nearly equal height; leaves {@code x} open. */
        Tensor forward(Map<String, Tensor> weights, Tensor x, int strips) {
            if (strips == 1) {
                return convolve(weights, x);
            }
            long height = outputSize(x, 2);
            Tensor output = x.new_empty(x.size(0), out, height, outputSize(x, 3));
            for (int i = 0; i < strips; i++) {
                long first = height * i / strips;
                long rows = height * (i + 1) / strips - first;
                Tensors.run(() -> output.narrow(2, first, rows).copy_(strip(weights, x, first, rows)));
            }
            return output;
        }

        /**
         * Rows of the output. Their neighbours in the input come along, so that padding inside the picture only reaches
         * rows that are cut off.
         */
        private Tensor strip(Map<String, Tensor> weights, Tensor x, long first, long rows) {
            long begin = Math.max(0, first * stride - padding);
            long end = Math.min(x.size(2), (first + rows - 1) * stride - padding + kernel);
            return convolve(weights, x.narrow(2, begin, end - begin))
                    .narrow(2, (first * stride - begin) / stride, rows);
        }

        private long outputSize(Tensor x, int axis) {
            return (x.size(axis) + 2 * padding - kernel) / stride + 1;
        }

        private Tensor convolve(Map<String, Tensor> weights, Tensor x) {
            if (kernel == 1 && stride == 1 && padding == 0 && !x.is_cuda()) {
                return product(weights, x);
            }
            if (!x.is_cuda() && weight(weights, name).requires_grad()) {
                // For gradients oneDNN 3.7 takes, on some processors, what lies beside fewer than 16 channels for more
                // of them.
                return torch.thnn_conv2d(
                        x.contiguous(),
                        weight(weights, name).contiguous(),
                        new long[] {kernel, kernel},
                        optional(bias(weights, name)),
                        new long[] {stride, stride},
                        new long[] {padding, padding});
            }
            return torch.conv2d(
                    x,
                    weight(weights, name),
                    optional(bias(weights, name)),
                    new long[] {stride, stride},
                    new long[] {padding, padding},
                    new long[] {1, 1},
                    1);
        }

        /**
         * Of a pixel's channels. As a convolution oneDNN 3.7 computes some of the last channels wrongly, on some processors, where
         * AVX-512 takes 32 or 48 at a time and their number is no multiple of that.
         */
        private Tensor product(Map<String, Tensor> weights, Tensor x) {
            return torch.linear(
                            x.permute(0, 2, 3, 1), weight(weights, name).view(out, in), optional(bias(weights, name)))
                    .permute(0, 3, 1, 2);
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            shapes.put(name + ".weight", new long[] {out, in, kernel, kernel});
            shapes.put(name + ".bias", new long[] {out});
        }
    }

    /** Group normalisation with scale and bias. */
    record Normalization(String name, int channels, int groups) implements Layer {
        private static final double EPSILON = 1e-6;

        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            return forward(weights, x, false);
        }

        /** @param silu whether SiLU comes after it */
        Tensor forward(Map<String, Tensor> weights, Tensor x, boolean silu) {
            Tensor weight = weight(weights, name);
            Tensor bias = bias(weights, name);
            boolean trained = x.requires_grad() || weight.requires_grad(); // the core's norm has no gradient
            if (x.is_cuda() && channelsLast(x) && !trained && x.size(0) == 1 && CudaGroupNorm.takes(channels)) {
                Tensor normed = CudaGroupNorm.normed(x, groups, weight, bias, EPSILON, silu);
                x.close();
                return normed;
            }
            boolean centred = !x.is_cuda() && !trained && x.scalar_type().intern() == torch.ScalarType.Float;
            Tensor normed = centred
                    ? centred(x, weight, bias)
                    : torch.group_norm(x, groups, optional(weight), optional(bias), EPSILON, true);
            x.close();
            return silu ? torch.silu_(normed) : normed;
        }

        /**
         * Each channel's mean goes off before squares are added up. Where channels lie last, torch's own norm adds squares up one
         * after the other in float32 and takes the mean's square from them: of a picture with large even areas a thousandth is lost.
         */
        private Tensor centred(Tensor x, Tensor weight, Tensor bias) {
            return scoped(() -> {
                Tensor ofChannels = mean(x, 2, 3); // [batch, channels, 1, 1]
                Tensor variances = scoped(() -> mean(x.sub(ofChannels).square_(), 2, 3));
                Tensor means = ofChannels.view(x.size(0), groups, -1); // [batch, groups, channels of each]
                Tensor mean = mean(means, 2); // [batch, groups, 1]
                Tensor variance =
                        mean(variances.view_as(means).add(means.sub(mean).square()), 2);
                Tensor scale = variance.add(new Scalar(EPSILON)).rsqrt().mul(weight.view(1, groups, -1));
                Tensor shift = bias.view(1, groups, -1).sub(mean.mul(scale));
                return torch.addcmul(
                        shift.reshape(x.size(0), channels, 1, 1), x, scale.reshape(x.size(0), channels, 1, 1));
            });
        }

        private static Tensor mean(Tensor x, long... axes) {
            return x.mean(axes, true, new ScalarTypeOptional());
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            shapes.put(name + ".weight", new long[] {channels});
            shapes.put(name + ".bias", new long[] {channels});
        }
    }

    /** Normalisation, SiLU, convolution. */
    record Activated(Normalization norm, Convolution convolution) implements Layer {
        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            return convolution.forward(weights, norm.forward(weights, x, true));
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            norm.declare(shapes);
            convolution.declare(shapes);
        }
    }

    /** {@code ResnetBlock2D}: two activated convolutions around which the input is carried. */
    record Residual(String name, int in, int out, int groups) implements Layer {
        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            Tensor carried = new Tensor(x);
            if (in != out) {
                carried = shortcut().forward(weights, carried);
            }
            Tensor hidden = second().forward(weights, first().forward(weights, x));
            hidden.add_(carried);
            return hidden;
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            first().declare(shapes);
            second().declare(shapes);
            if (in != out) {
                shortcut().declare(shapes);
            }
        }

        private Activated first() {
            return new Activated(
                    new Normalization(name + ".norm1", in, groups), Convolution.same(name + ".conv1", in, out, 3));
        }

        private Activated second() {
            return new Activated(
                    new Normalization(name + ".norm2", out, groups), Convolution.same(name + ".conv2", out, out, 3));
        }

        private Convolution shortcut() {
            return Convolution.same(name + ".conv_shortcut", in, out, 1);
        }
    }

    /** Self-attention over all positions of a tile, a single head as wide as the channels. */
    record SelfAttention(String name, int channels, int groups) implements Layer {
        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            Tensor normed = norm().forward(weights, new Tensor(x));
            Tensor tokens = normed.flatten(2, 3).transpose(1, 2); // [batch, h·w, channels]
            Tensor query = linear(weights, ".to_q", tokens).unsqueeze(1); // [batch, 1, h·w, channels]
            Tensor key = linear(weights, ".to_k", tokens).unsqueeze(1);
            Tensor value = linear(weights, ".to_v", tokens).unsqueeze(1);
            Tensor attended = SoftmaxAttention.attend(query, key, value).squeeze(1);
            Tensor output = linear(weights, ".to_out.0", attended)
                    .transpose(1, 2)
                    .reshape(x.shape())
                    .add(x);
            x.close();
            return output;
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            norm().declare(shapes);
            for (String projection : List.of(".to_q", ".to_k", ".to_v", ".to_out.0")) {
                shapes.put(name + projection + ".weight", new long[] {channels, channels});
                shapes.put(name + projection + ".bias", new long[] {channels});
            }
        }

        private Normalization norm() {
            return new Normalization(name + ".group_norm", channels, groups);
        }

        private Tensor linear(Map<String, Tensor> weights, String projection, Tensor x) {
            return torch.linear(x, weight(weights, name + projection), optional(bias(weights, name + projection)));
        }
    }

    /** Halves height and width. Zeros are padded at the bottom and the right only. */
    record Downsample(String name, int channels) implements Layer {
        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            Tensor padded = torch.constant_pad_nd(x, 0, 1, 0, 1);
            x.close();
            return convolution().forward(weights, padded);
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            convolution().declare(shapes);
        }

        private Convolution convolution() {
            return new Convolution(name + ".conv", channels, channels, 3, 2, 0);
        }
    }

    /** Doubles height and width: every value four times, then a convolution. */
    record Upsample(String name, int channels) implements Layer {
        @Override
        public Tensor forward(Map<String, Tensor> weights, Tensor x) {
            Tensor enlarged = torch.upsample_nearest2d(x, 2 * x.size(2), 2 * x.size(3));
            x.close();
            return convolution().forward(weights, enlarged);
        }

        @Override
        public void declare(Map<String, long[]> shapes) {
            convolution().declare(shapes);
        }

        private Convolution convolution() {
            return Convolution.same(name + ".conv", channels, channels, 3);
        }
    }

    private static Tensor weight(Map<String, Tensor> weights, String layer) {
        return of(weights, layer + ".weight");
    }

    private static Tensor bias(Map<String, Tensor> weights, String layer) {
        return of(weights, layer + ".bias");
    }

    private static Tensor of(Map<String, Tensor> weights, String name) {
        Tensor tensor = weights.get(name);
        if (tensor == null) {
            throw new IllegalStateException("the network has no weight " + name + ": it is closed");
        }
        return tensor;
    }
}
